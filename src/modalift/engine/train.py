"""`modalift train`: a recipe becomes a run folder; the same command goes on where it was stopped."""

from __future__ import annotations

import json

import torch

from modalift.engine.build import assemble
from modalift.engine.checkpoint import TrainingState, read_checkpoint
from modalift.engine.compute import own_macs, teachers, training_macs
from modalift.engine.distributed import init_distributed
from modalift.engine.experiment import Experiment
from modalift.engine.monitor import Monitor
from modalift.engine.run import Run
from modalift.engine.tables import split_free_fingerprint
from modalift.engine.trainer import Trainer
from modalift.errors import ModaliftError
from modalift.files import write_text
from modalift.recipe import Recipe


def train(recipe: Recipe, monitor: Monitor | None = None) -> Run:
    """Trains a recipe to its end, from wherever its run folder stands; a finished run is left as it is.

    With ``protocol.folds`` and no ``protocol.fold`` every fold is a run of its own, in ``fold0/``, ``fold1/``, ...

    Raises:
        ModaliftError: anything missing (before training), a folder of another experiment, a loss that is not finite.
    """
    monitor, run = monitor or Monitor(), Run(recipe.run.dir)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    if recipe.protocol.folds and recipe.protocol.fold is None:
        write_text(run.recipe, recipe.to_yaml())
        for fold in range(recipe.protocol.folds):
            train(recipe_of_fold(recipe, fold), monitor)
        return run
    experiment = assemble(recipe)
    if run.finished:
        check_same(experiment, run)
        monitor.message(f"{run.folder} is finished already")
        return run
    if run.occupied:
        raise ModaliftError(f"run.dir={run.folder}: holds something that is no run - give run.dir another folder")
    for role, told in experiment.initialized_from.items():
        monitor.message(f"networks.{role} begins with {recipe.networks[role].init}: {told}")
    leave_out_corrupt(experiment, monitor)
    is_main = init_distributed(recipe.run.device).is_main
    if is_main:
        write_text(run.recipe, recipe.to_yaml())
    state = Trainer(experiment, run, monitor).train()
    if is_main:
        finish(experiment, run, state)
    return run


def recipe_of_fold(recipe: Recipe, fold: int) -> Recipe:
    """The recipe of one fold of a cross-validation, in a folder of its own below the run's."""
    return recipe.changed({"protocol.fold": fold, "run.dir": recipe.run.dir / f"fold{fold}"})


def check_same(experiment: Experiment, run: Run) -> None:
    """Refuses a finished run of another recipe."""
    held, asked = run.compute(), experiment.recipe.run.precision
    if held["fingerprint"] != experiment.fingerprint(held["precision"] if asked == "auto" else asked):
        raise ModaliftError(f"{run.folder}: holds the finished run of another recipe - give run.dir another folder")


def leave_out_corrupt(experiment: Experiment, monitor: Monitor) -> None:
    """Names corrupt clips and leaves them out; stops where they are too many."""
    views = experiment.scheme.needs()
    table = experiment.table.where(lambda r: bool(views & set(r.tracks)))
    experiment.corrupt = dict(experiment.clips(table, views, augment=False).find_corrupt())
    for clip, reason in list(experiment.corrupt.items())[:10]:
        monitor.message(f"left out {clip}: {reason}", warning=True)
    share, most = len(experiment.corrupt) / max(1, len(table)), experiment.recipe.data.max_corrupt
    if share > most:
        first, reason = next(iter(experiment.corrupt.items()))
        raise ModaliftError(f"{len(experiment.corrupt)} of {len(table)} clips cannot be read ({share:.0%}, more than"
                            f" data.max_corrupt = {most:.0%}); the first: {first}: {reason}")


def finish(experiment: Experiment, run: Run, state: TrainingState) -> None:
    """Writes the models of a training, and what it cost."""
    recipe, scheme = experiment.recipe, experiment.scheme
    if recipe.protocol.select == "best":
        held = read_checkpoint(run.best)
        scheme.load_state_dict(held["scheme"])
        if state.average:
            state.average.load(held["average"])
    for role, model in experiment.models().items():
        model.save(run.model_file(role), state.average.of(role) if state.average and role in scheme.students else None)
    content = {"training_macs": training_macs(experiment), "own_macs": own_macs(experiment),
               "seconds": round(state.seconds, 2), "clips": len(experiment.train), "epochs": recipe.optim.epochs,
               "left_out": experiment.corrupt, "fingerprint": state.fingerprint, "precision": state.precision,
               "trained_on": trained_on(experiment)}
    write_text(run.cost, json.dumps(content))  # last: a run that has it is finished


def trained_on(experiment: Experiment) -> dict[str, list[str]]:
    """Which clips of which recordings have shaped the networks, their teachers' clips included."""
    known = {split_free_fingerprint(experiment.table): {r.id for r in experiment.train}}
    for run in teachers(experiment.recipe):
        for where, ids in run.compute().get("trained_on", {}).items():
            known.setdefault(where, set()).update(ids)
    return {where: sorted(ids) for where, ids in known.items()}
