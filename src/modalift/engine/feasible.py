"""Checks before the first step: a training that cannot end well is refused before it costs time."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping

from modalift.engine.experiment import Experiment
from modalift.engine.monitor import Monitor
from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import disk_errors

#: Choices that need a validation: key -> value.
_VALIDATED = {"protocol.select": "best", "optim.schedule": "plateau"}


def check_validation(experiment: Experiment) -> None:
    """Refuses settings that need a validation where none of the students can be validated, or none takes place.

    Raises:
        ModaliftError: no clip of the validation split has what any student's metrics need, or all of these are corrupt; or
            validations are further apart than the training is long.
    """
    recipe = experiment.recipe
    chosen = {"protocol.select": recipe.protocol.select, "optim.schedule": recipe.optim.schedule}
    needed = [f"{key}={value}" for key, value in _VALIDATED.items() if chosen[key] == value]
    if not needed:
        return
    if recipe.protocol.eval_every > recipe.optim.epochs:
        raise ModaliftError(f"protocol.eval_every={recipe.protocol.eval_every} is larger than optim.epochs="
                            f"{recipe.optim.epochs}, and {needed[0]} needs validations during the training - lower"
                            " protocol.eval_every")
    if any(validation_clips(experiment).values()):
        return
    labels = " with labels" if any(net.classes for net in experiment.scheme.students.values()) else ""
    val = experiment.table.split("val")
    corrupt = [row.id for row in val if row.id in experiment.corrupt]
    why = "the table has none" if not len(val) else \
        f"of its {len(val)} clips {len(corrupt)} cannot be read" if corrupt else \
        f"none of its {len(val)} clips has {'a label and ' if labels else ''}the views that a student is validated with"
    raise ModaliftError(f"{needed[0]} needs validation clips{labels}, and {why} - set protocol.val_subjects (never the test"
                        " split)")


def validation_clips(experiment: Experiment) -> dict[str, int]:
    """Role of a student -> number of readable clips of the validation split with what its metrics need."""
    readable = experiment.table.split("val").where(lambda r: r.id not in experiment.corrupt)
    models = experiment.models()
    return {role: len(models[role].validation_clips(readable)) for role in experiment.scheme.students}


def check_share(experiment: Experiment, unreadable: Mapping[str, str], advice: str) -> None:
    """Checks that few enough clips cannot be read.

    Args:
        experiment: the experiment.
        unreadable: clip -> why.
        advice: what to do.

    Raises:
        ModaliftError: their share of the clips with a view that the training reads is larger than ``data.max_corrupt``.
    """
    views = experiment.scheme.required_views()
    clips, limit = sum(bool(views & set(r.tracks)) for r in experiment.table), experiment.recipe.data.max_corrupt
    share = len(unreadable) / max(1, clips)
    if share > limit:
        first, reason = next(iter(unreadable.items()))
        raise ModaliftError(f"{len(unreadable)} of {clips} clips cannot be read ({share:.0%}, more than data.max_corrupt ="
                            f" {limit:.0%}), the first: {first}: {without_advice(reason)} - {advice}")


def without_advice(reason: str) -> str:
    """Why a clip cannot be read, without what to do: leaving it out of the table would make another run.

    Example:
        >>> without_advice("a.mp4 has zero bytes - record or copy it again")
        'a.mp4 has zero bytes'
    """
    return reason.rpartition(" - ")[0] or reason


def check_training(experiment: Experiment, run: Run, monitor: Monitor) -> None:
    """Checks what a training needs at its end, after corrupt clips were left out; warns of what it cannot do.

    Raises:
        ModaliftError: see :func:`check_validation`; or a model that cannot be saved.
    """
    check_validation(experiment)
    for role, model in experiment.models().items():
        model.check_saveable(run.model_path(role))
    for line in cautions(experiment):
        monitor.message(line, warning=True)
    experiment.scheme.train()  # a model puts its network into evaluation mode


def check_folders(experiment: Experiment, run: Run) -> None:
    """Checks that checkpoints and models can be written, and that the disk has room for them.

    Raises:
        ModaliftError: it has not.
    """
    for folder in (run.last_checkpoint_path.parent, run.model_path("role").parent):
        with disk_errors(folder, "nothing was written"):
            folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ModaliftError(f"{folder}: cannot be written - change its permissions, or set run.dir to another folder")
    free, needed = shutil.disk_usage(run.folder).free, bytes_needed(experiment)
    if free < needed:
        raise ModaliftError(f"run.dir={run.folder}: checkpoints and models take about {needed / 1e9:.2f} GB, and the disk has"
                            f" {free / 1e9:.2f} GB free - free some space, or set run.dir to another disk")


def bytes_needed(experiment: Experiment) -> int:
    """About how much room a training needs: its checkpoints, one of them while it replaces another, and its models."""
    optim, scheme = experiment.recipe.optim, experiment.scheme
    parameters = list(scheme.parameters())
    whole = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    students = sum(p.numel() * p.element_size() for net in scheme.students.values() for p in net.parameters())
    moments = 2 if optim.name == "adamw" else int(optim.momentum > 0)
    checkpoint = whole + moments * trained + (students if optim.ema else 0)
    kept = 2 if len(experiment.table.split("val")) else 1
    return (kept + 1) * checkpoint + 2 * students


def check_best(run: Run, best: float) -> None:
    """Checks, when a run is resumed, that the best checkpoint that it has written is there.

    Raises:
        ModaliftError: it is gone.
    """
    if best > float("-inf") and not run.best_checkpoint_path.is_file():
        raise ModaliftError(f"{run.best_checkpoint_path}: is missing, and protocol.select=best needs it at the end - restore"
                            f" it, or remove {run.best_checkpoint_path.parent} to train again from the start")


def cautions(experiment: Experiment) -> list[str]:
    """A line for each setting that has not the effect that it promises on a training of this length and these clips.

    Those without any effect beside the other settings are :func:`modalift.engine.unused.unused_settings`.
    """
    optim, lines = experiment.recipe.optim, []
    if optim.warmup >= optim.epochs and optim.schedule != "onecycle":
        lines.append(f"optim.warmup={optim.warmup:g}: the learning rate is not reached in optim.epochs={optim.epochs}")
    most = max(Counter(r.label for r in experiment.train if r.label is not None).values(), default=0)
    if optim.per_class > max(most, 1):
        lines.append(f"optim.per_class={optim.per_class}: no class has that many training clips, at most {most}; batches are"
                     " shuffled plainly")
    if len(experiment.table.split("val")):
        lines += [f"networks.{role} is not validated: no validation clip has what its metrics need"
                  for role, count in validation_clips(experiment).items() if not count]
    return lines
