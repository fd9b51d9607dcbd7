"""`modalift train`: trains a recipe into a run folder; the same command resumes a stopped run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from modalift.engine.build import assemble
from modalift.engine.checkpoint import TrainingState
from modalift.engine.compute import own_macs, training_macs
from modalift.engine.distributed import Ranks, broadcast, init_distributed, set_threads
from modalift.engine.experiment import Experiment
from modalift.engine.feasible import check_folders, check_share, check_training
from modalift.engine.monitor import Monitor
from modalift.engine.provenance import RecordedClips, check_recordings, difference, record_clips, teacher_runs
from modalift.engine.run import Run
from modalift.engine.scope import coverage
from modalift.engine.trainer import Trainer
from modalift.engine.unused import unused_settings, without_effect
from modalift.errors import ModaliftError, told
from modalift.files import disk_errors, exists, is_folder, to_json, write_text
from modalift.locks import locked
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
        folds = [recipe_of_fold(recipe, fold) for fold in range(recipe.protocol.folds)]
        for fold in folds:  # what the last one lacks is found before the first is trained
            check_folder(fold, Run(fold.run.dir))
            assemble(fold)
        keep_recipe(recipe, run)
        for fold in folds:
            train(fold, monitor)
        write_text(run.recipe_path, recipe.to_yaml())
        return run
    experiment = assemble(recipe)
    if is_complete(experiment, run, monitor):
        return run
    ranks = init_distributed(recipe.run.device)
    with exclusive(run, ranks):
        if not is_complete(experiment, run, monitor):  # another process may just have finished it
            train_alone(experiment, run, ranks, monitor if ranks.is_main else Monitor())
    return run


def is_complete(experiment: Experiment, run: Run, monitor: Monitor) -> bool:
    """Whether the run is finished and its models are whole.

    Raises:
        ModaliftError: it is finished with another recipe.
    """
    if not run.finished:
        return False
    check_same(experiment, run)
    complete = all(is_whole(run.model_path(role)) for role in experiment.scheme.models())
    if complete:
        monitor.message(f"{run.folder} is already finished")
    return complete


@contextmanager
def exclusive(run: Run, ranks: Ranks) -> Iterator[None]:
    """Within it no other training writes into the folder of the run; the main process holds the lock for all ranks.

    Raises:
        ModaliftError: another training does.
    """
    def busy(holder: str) -> None:
        raise ModaliftError(f"run.dir={run.folder}: another training writes into this folder ({holder}) - wait until it has"
                            " ended, or set run.dir to another folder")

    if not ranks.is_main:
        yield
        return
    is_new = not exists(run.folder)
    try:
        with ExitStack() as held:
            with disk_errors(run.folder, "nothing was written"):
                held.enter_context(locked(run.lock_path, busy))
            yield
    finally:
        if is_new:  # what was refused leaves no empty folder
            with suppress(OSError):
                run.folder.rmdir()


def train_alone(experiment: Experiment, run: Run, ranks: Ranks, monitor: Monitor) -> None:
    """Trains an experiment whose folder no other training writes into."""
    recipe = experiment.recipe
    if run.finished:
        monitor.message(f"{run.folder} is finished, but a model is missing or damaged: the models are written again",
                        warning=True)
    if recipe.protocol.fold in (None, 0):  # once in a cross-validation
        for line in without_effect(unused_settings(experiment)):
            monitor.message(line, warning=True)
    for role, loaded in experiment.initialized_from.items():
        monitor.message(f"networks.{role} starts from {recipe.networks[role].init}: {loaded}")
    leave_out_corrupt(experiment, run, ranks, monitor)
    compute = planned_compute(experiment)
    if ranks.is_main:
        check_training(experiment, run, monitor)
        keep_recipe(recipe, run)
        check_folders(experiment, run)
        record_clips(run, experiment.table, experiment.train, teacher_runs(recipe), experiment.store(), experiment.corrupt)
    trainer = Trainer(experiment, run, monitor)
    if ranks.is_main:
        write_text(run.recipe_path, recipe.to_yaml())  # the checkpoint was accepted; keys that may change are written
    state = trainer.train()
    if ranks.is_main:
        finish(experiment, run, state, compute)


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


def leave_out_corrupt(experiment: Experiment, run: Run, ranks: Ranks, monitor: Monitor) -> None:
    """Decodes the clips by ``data.cache``, leaves out corrupt ones and reports them.

    A run that was begun leaves out the clips that it left out then, mended or not: it stays the same. Others that cannot be
    read any more stay in it without sensors, as clips do that turn out to be unreadable during the training.

    Raises:
        ModaliftError: the share of clips that cannot be read is larger than ``data.max_corrupt``.
    """
    views, is_begun = experiment.scheme.required_views(), run.clips_path.is_file()
    table = experiment.table.where(lambda r: bool(views & set(r.tracks)))
    if is_begun:
        known = RecordedClips.of(run).left_out
        experiment.corrupt = {row.id: known[row.id] for row in table if row.id in known}
    experiment.decode(monitor)
    found = dict(experiment.clips(table, views, augment=False).find_corrupt()) if ranks.is_main else {}
    found = {clip: reason for clip, reason in broadcast(found, ranks).items() if clip not in experiment.corrupt}
    unreadable = experiment.corrupt | found
    for line in (*told(experiment.corrupt, "left out, as when this run was begun:"), *told(found)):
        monitor.message(line, warning=True)
    check_share(experiment, unreadable, "restore these files, or raise data.max_corrupt")
    if not is_begun:
        experiment.corrupt = found


def planned_compute(experiment: Experiment) -> dict[str, Any]:
    """What ``compute.json`` says about the training, as far as it is known before: what fails here fails before the first step.
    """
    return {"training_macs": training_macs(experiment), "own_macs": own_macs(experiment), "clips": len(experiment.train),
            "epochs": experiment.recipe.optim.epochs}


def finish(experiment: Experiment, run: Run, state: TrainingState, compute: Mapping[str, Any]) -> None:
    """Writes the models of a training, and its compute."""
    recipe, scheme, seconds, unreadable = experiment.recipe, experiment.scheme, state.seconds, state.unreadable
    if recipe.protocol.select == "best":
        state.load(run.best_checkpoint_path)
    for role, model in experiment.models().items():
        model.save(run.model_path(role), state.average.of(role) if state.average and role in scheme.students else None)
    left_out = experiment.corrupt | unreadable
    content = {**compute, "seconds": round(seconds, 2), "left_out": left_out,
               "coverage": training_coverage(experiment, left_out),
               "fingerprint": state.fingerprint, "precision": state.precision}
    write_text(run.compute_path, to_json(content))  # written last: its existence marks a finished run


def training_coverage(experiment: Experiment, left_out: Mapping[str, str]) -> dict[str, Any]:
    """How many clips of the training split the training used throughout, and why not the others."""
    part, views = experiment.table.split("train"), experiment.scheme.required_views()
    usable = part.where(lambda r: bool(views & set(r.tracks)))
    unreadable = {r.id: left_out[r.id] for r in usable if r.id in left_out}
    used = sum(r.id not in unreadable for r in experiment.train)
    return coverage(used, len(usable) - len(unreadable) - used, part, usable, unreadable,
                    max_corrupt=experiment.recipe.data.max_corrupt)
