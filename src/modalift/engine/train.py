"""`modalift train`: trains a recipe into a run folder; the same command resumes a stopped run."""

from __future__ import annotations

import json
from typing import Any

from modalift.engine.build import assemble
from modalift.engine.checkpoint import TrainingState
from modalift.engine.compute import own_macs, training_macs
from modalift.engine.distributed import init_distributed, set_threads
from modalift.engine.effects import flip_without_effect
from modalift.engine.experiment import Experiment
from modalift.engine.monitor import Monitor
from modalift.engine.provenance import check_recordings, difference, record_clips, teacher_runs
from modalift.engine.run import Run
from modalift.engine.scope import coverage
from modalift.engine.trainer import Trainer
from modalift.errors import ModaliftError
from modalift.files import exists, is_folder, write_text
from modalift.models import is_whole
from modalift.recipe import Recipe, load_recipe


def train(recipe: Recipe, monitor: Monitor | None = None) -> Run:
    """Trains a recipe, or resumes its run; a finished run is left unchanged.

    With ``protocol.folds`` and no ``protocol.fold`` every fold is a run of its own, in ``fold0/``, ``fold1/``, ...

    Args:
        recipe: the recipe; ``run.dir`` names the run folder.
        monitor: receives messages and progress.

    Returns:
        The finished run.

    Raises:
        ModaliftError: something missing (found before training), a folder of another experiment, or a loss that is not finite.
    """
    monitor, run = monitor or Monitor(), Run(recipe.run.dir)
    set_threads(recipe.run.threads)
    check_folder(recipe, run)
    if is_cross_validation(recipe):
        keep_recipe(recipe, run)
        for fold in range(recipe.protocol.folds):
            train(recipe_of_fold(recipe, fold), monitor)
        write_text(run.recipe_path, recipe.to_yaml())
        return run
    experiment = assemble(recipe)
    if run.finished:
        check_same(experiment, run)
        if all(is_whole(run.model_path(role)) for role in experiment.scheme.models()):
            monitor.message(f"{run.folder} is already finished")
            return run
        monitor.message(f"{run.folder} is finished, but a model is missing or damaged: the models are written again",
                        warning=True)
    for role, loaded in experiment.initialized_from.items():
        monitor.message(f"networks.{role} starts from {recipe.networks[role].init}: {loaded}")
    experiment.decode(monitor)
    for line in flip_without_effect(experiment):
        monitor.message(line, warning=True)
    leave_out_corrupt(experiment, monitor)
    is_main = init_distributed(recipe.run.device).is_main
    if is_main:
        record_clips(run, experiment.table, experiment.train, teacher_runs(recipe), experiment.store())
        keep_recipe(recipe, run)
    trainer = Trainer(experiment, run, monitor)
    if is_main:
        write_text(run.recipe_path, recipe.to_yaml())  # the checkpoint was accepted; keys that may change are written
    state = trainer.train()
    if is_main:
        finish(experiment, run, state)
    return run


def is_cross_validation(recipe: Recipe) -> bool:
    """Whether a recipe trains all folds, each in a run of its own."""
    return bool(recipe.protocol.folds) and recipe.protocol.fold is None


def keep_recipe(recipe: Recipe, run: Run) -> None:
    """Writes the recipe into a new run folder; a resumed run keeps its own until its checkpoint has been accepted."""
    if not run.recipe_path.is_file():
        write_text(run.recipe_path, recipe.to_yaml())


def check_folder(recipe: Recipe, run: Run) -> None:
    """Refuses a folder that holds anything but this run, before anything is written.

    Raises:
        ModaliftError: other files, or a run that is (or is not) a cross-validation.
    """
    if exists(run.folder) and not is_folder(run.folder):
        raise ModaliftError(f"run.dir={run.folder}: is not a folder - set run.dir to another one")
    if run.occupied:
        raise ModaliftError(f"run.dir={run.folder}: holds files but no run - set run.dir to another folder")
    if run.folds() and not is_cross_validation(recipe):
        raise ModaliftError(f"run.dir={run.folder}: holds the folds of a cross-validation - set run.dir to another folder")
    if run.begun and is_cross_validation(recipe):
        raise ModaliftError(f"run.dir={run.folder}: holds a run that is not a cross-validation - set run.dir to another folder")


def recipe_of_fold(recipe: Recipe, fold: int) -> Recipe:
    """The recipe of one fold of a cross-validation, with a folder of its own in that of the run."""
    return recipe.changed({"protocol.fold": fold, "run.dir": recipe.run.dir / f"fold{fold}"})


def check_same(experiment: Experiment, run: Run) -> None:
    """Refuses a finished run of another recipe.

    Raises:
        ModaliftError: the recipe or the clips differ.
    """
    finished, precision = run.compute(), experiment.recipe.run.precision
    if finished["fingerprint"] != experiment.fingerprint(finished["precision"] if precision == "auto" else precision):
        there = difference(load_recipe(run.folder), experiment.recipe) or "its clips or the weights that it starts from differ"
        raise ModaliftError(f"{run.folder}: holds the finished run of another recipe ({there}) - set run.dir to another folder")
    if run.clips_path.is_file():
        check_recordings(run, experiment.table.split("train"))


def leave_out_corrupt(experiment: Experiment, monitor: Monitor) -> None:
    """Finds corrupt clips, leaves them out and reports them.

    Raises:
        ModaliftError: their share is larger than ``data.max_corrupt``.
    """
    views = experiment.scheme.required_views()
    table = experiment.table.where(lambda r: bool(views & set(r.tracks)))
    experiment.corrupt = dict(experiment.clips(table, views, augment=False).find_corrupt())
    for clip, reason in list(experiment.corrupt.items())[:10]:
        monitor.message(f"left out {clip}: {reason}", warning=True)
    if len(experiment.corrupt) > 10:
        monitor.message(f"left out {len(experiment.corrupt) - 10} more clips that cannot be read, {len(experiment.corrupt)} of"
                        f" {len(table)} in all", warning=True)
    share, limit = len(experiment.corrupt) / max(1, len(table)), experiment.recipe.data.max_corrupt
    if share > limit:
        first, reason = next(iter(experiment.corrupt.items()))
        raise ModaliftError(f"{len(experiment.corrupt)} of {len(table)} clips cannot be read ({share:.0%}, more than"
                            f" data.max_corrupt = {limit:.0%}); the first: {first}: {reason}")


def finish(experiment: Experiment, run: Run, state: TrainingState) -> None:
    """Writes the models of a training, and its compute."""
    recipe, scheme, seconds = experiment.recipe, experiment.scheme, state.seconds
    if recipe.protocol.select == "best":
        state.load(run.best_checkpoint_path)
    for role, model in experiment.models().items():
        model.save(run.model_path(role), state.average.of(role) if state.average and role in scheme.students else None)
    content = {"training_macs": training_macs(experiment), "own_macs": own_macs(experiment),
               "seconds": round(seconds, 2), "clips": len(experiment.train), "epochs": recipe.optim.epochs,
               "left_out": experiment.corrupt, "coverage": training_coverage(experiment),
               "fingerprint": state.fingerprint, "precision": state.precision}
    write_text(run.compute_path, json.dumps(content))  # written last: its existence marks a finished run


def training_coverage(experiment: Experiment) -> dict[str, Any]:
    """How many clips of the training split the training used, and why not the others."""
    part, views = experiment.table.split("train"), experiment.scheme.required_views()
    usable = part.where(lambda r: bool(views & set(r.tracks)))
    unreadable = {r.id: experiment.corrupt[r.id] for r in usable if r.id in experiment.corrupt}
    used = len(experiment.train)
    return coverage(used, len(usable) - len(unreadable) - used, part, usable, unreadable,
                    max_corrupt=experiment.recipe.data.max_corrupt)
