"""The compute of a training in multiply-accumulates, and compute-matched recipes."""

from __future__ import annotations

import math
from typing import Any

from modalift.engine.build import assemble
from modalift.engine.experiment import Experiment
from modalift.engine.provenance import teacher_runs
from modalift.networks import cost
from modalift.recipe import Recipe


def clip_macs(net: Any) -> int:
    """Multiply-accumulates of one clip through a network."""
    return cost(net, frames=net.frames, size=net.size).macs


def epoch_macs(experiment: Experiment) -> float:
    """Multiply-accumulates of one epoch; a backward pass counts as two forward passes, a frozen network has none."""
    frozen, rows = {id(n) for n in experiment.scheme.frozen()}, experiment.train
    steps, per_step = experiment.steps()
    used = min(len(rows), steps * per_step) / len(rows)  # clips that do not fill a step are left out
    return used * sum(clip_macs(n) * (1 if id(n) in frozen else 3) * sum(n.view in r.tracks for r in rows)
                      for n in experiment.scheme.roles.values())


def own_macs(experiment: Experiment) -> float:
    """Multiply-accumulates of a training, without its teachers' trainings."""
    return epoch_macs(experiment) * experiment.recipe.optim.epochs


def training_macs(experiment: Experiment) -> float:
    """Multiply-accumulates of a training, with its teachers' trainings."""
    return own_macs(experiment) + sum(t.compute().get("training_macs", 0.0) for t in teacher_runs(experiment.recipe))


def match_compute(recipe: Recipe, other: Recipe) -> Recipe:
    """The recipe with the fewest epochs whose compute is at least that of another recipe, its teachers included."""
    epochs = math.ceil(training_macs(assemble(other)) / epoch_macs(assemble(recipe)))
    return recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"epochs": epochs})})
