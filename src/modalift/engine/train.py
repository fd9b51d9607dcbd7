"""`modalift train`: a recipe becomes a run folder; the same command goes on where it was stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from modalift.engine import joint
from modalift.engine.distribution import join
from modalift.engine.experiment import Experiment, assemble, origin
from modalift.engine.fit import fit
from modalift.engine.run import Run, write_network
from modalift.engine.state import State, read_checkpoint
from modalift.errors import ModaliftError
from modalift.files import write_text
from modalift.networks import Recognizer, cost
from modalift.recipe import Recipe, fill_in


def train(recipe: Recipe, console: Console | None = None) -> Run:
    """Trains a recipe to its end, from wherever its run folder stands; a finished run is left as it is.

    With ``protocol.folds`` and no ``protocol.fold`` every fold is a run of its own, in ``fold0/``, ``fold1/``, ...

    Raises:
        ModaliftError: anything missing (before training), a folder of another experiment, a loss that is no number.
    """
    console = console or Console(stderr=True)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    run = Run(recipe.run.dir)
    if recipe.protocol.folds and recipe.protocol.fold is None:
        write_text(run.recipe, recipe.to_yaml())
        for fold in range(recipe.protocol.folds):
            train(one_fold(recipe, fold), console)
        return run
    experiment = assemble(recipe)
    if run.finished:
        held, asked = run.compute(), recipe.run.precision
        if held["fingerprint"] != experiment.fingerprint(held["precision"] if asked == "auto" else asked):
            raise ModaliftError(f"{run.folder}: holds the finished run of another recipe - give run.dir another folder")
        console.print(Text(f"{run.folder} is finished already"), soft_wrap=True)
        return run
    # Names with a dot are files half written by a process that was killed, or by a fellow that is a moment ahead.
    if run.folder.is_dir() and not run.recipe.is_file() and any(p.name[0] != "." for p in run.folder.iterdir()):
        raise ModaliftError(f"run.dir={run.folder}: holds something that is no run - give run.dir another folder")
    for role, told in experiment.begun.items():
        console.print(Text(f"networks.{role} begins with {recipe.networks[role].init}: {told}"), soft_wrap=True)
    leave_out_bad(experiment, console)
    chief = join(recipe.run.device).chief
    if chief:
        write_text(run.recipe, recipe.to_yaml())
    state = fit(experiment, run, console)
    if chief:
        finish(experiment, run, state)
    return run


def leave_out_bad(experiment: Experiment, console: Console) -> None:
    """Names corrupt clips and leaves them out; stops where they are too many."""
    views = experiment.scheme.needs()
    table = experiment.table.where(lambda r: bool(views & set(r.tracks)))
    clips = experiment.clips(table, views, augment=False)
    experiment.skip = dict(clips.probe())
    for clip, reason in list(experiment.skip.items())[:10]:
        console.print(Text.assemble(("left out ", "yellow"), f"{clip}: {reason}"), soft_wrap=True)
    share = len(experiment.skip) / max(1, len(table))
    if share > experiment.recipe.data.max_bad:
        first, reason = next(iter(experiment.skip.items()))
        raise ModaliftError(f"{len(experiment.skip)} of {len(table)} clips cannot be read ({share:.0%}, more than"
                            f" data.max_bad = {experiment.recipe.data.max_bad:.0%}); the first: {first}: {reason}")


def finish(experiment: Experiment, run: Run, state: State) -> None:
    """Writes the networks that may ship, and what the training cost."""
    recipe, scheme = experiment.recipe, experiment.scheme
    if recipe.protocol.select == "best":
        held = read_checkpoint(run.best)
        scheme.load_state_dict(held["scheme"])
        if state.average:
            state.average.load(held["average"])
    text = recipe.to_yaml()
    used = training_macs(experiment)
    content = {"training_macs": used, "own_macs": own_macs(experiment), "seconds": round(state.seconds, 2),
               "clips": len(experiment.train), "epochs": recipe.optim.epochs, "left_out": experiment.skip,
               "fingerprint": state.fingerprint, "precision": state.precision, "trained_on": trained_on(experiment)}
    for role, net in scheme.students.items():
        weights = state.average.of(role) if state.average else None
        write_network(run.network_file(role), net, experiment.framings[net.view], experiment.table.classes, weights, text)
    if scheme.fusion is not None:
        joint.write(run.fusion_file, scheme.fusion, experiment.framings, experiment.table.classes)
    write_text(run.folder / "compute.json", json.dumps(content))  # last: a run that has it is finished


def teachers(recipe: Recipe) -> list[Run]:
    """The runs that a recipe's networks start from."""
    return [Run(Path(t)) for t in sorted({s.init for s in recipe.networks.values() if s.init and Path(s.init).is_dir()})]


def trained_on(experiment: Experiment) -> dict[str, list[str]]:
    """Which clips of which recordings have shaped the networks, their teachers' clips included."""
    known = {origin(experiment.table): {r.id for r in experiment.train}}
    for run in teachers(experiment.recipe):
        for where, ids in run.compute().get("trained_on", {}).items():
            known.setdefault(where, set()).update(ids)
    return {where: sorted(ids) for where, ids in known.items()}


def clip_macs(net: Recognizer) -> int:
    """Multiply-accumulates of one clip through a network."""
    return cost(net, frames=net.frames, size=net.size).macs


def epoch_macs(experiment: Experiment) -> float:
    """Multiply-accumulates of one epoch: a backward pass counts as two forward ones, a frozen network has none."""
    frozen, rows = {id(n) for n in experiment.scheme.frozen()}, experiment.train
    steps, per_step = experiment.steps()
    used = min(len(rows), steps * per_step) / len(rows)  # a last step that is not full is left out
    return used * sum(clip_macs(n) * (1 if id(n) in frozen else 3) * sum(n.view in r.tracks for r in rows)
                      for n in experiment.scheme.roles.values())


def own_macs(experiment: Experiment) -> float:
    return epoch_macs(experiment) * experiment.recipe.optim.epochs


def training_macs(experiment: Experiment) -> float:
    """Multiply-accumulates of a training, those of its teachers' trainings included."""
    return own_macs(experiment) + sum(t.compute().get("training_macs", 0.0) for t in teachers(experiment.recipe))


def match_compute(recipe: Recipe, other: Recipe) -> Recipe:
    """The recipe with as many epochs as spend what another one spends in all, its teachers included (at least that)."""
    epochs = math.ceil(training_macs(assemble(other)) / epoch_macs(assemble(recipe)))
    return recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"epochs": epochs})})


def one_fold(recipe: Recipe, fold: int) -> Recipe:
    """The recipe of one fold of a cross-validation, in a folder of its own below the run's."""
    own = recipe.model_copy(deep=True)
    own.protocol.fold, own.run.dir = fold, recipe.run.dir / f"fold{fold}"
    fill_in(own)
    return own
