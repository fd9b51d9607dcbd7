"""Evaluation of a run's models on a split, by the recipe's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from modalift.engine.distributed import device_of, set_threads
from modalift.engine.experiment import Experiment
from modalift.engine.optim import MovingAverage
from modalift.engine.run import Run
from modalift.engine.tables import open_table
from modalift.errors import ModaliftError, nearest
from modalift.loading.cache import open_cache
from modalift.loading.clips import ClipSet
from modalift.loading.stores import Store
from modalift.modalities import Table
from modalift.models import Model, Predictions
from modalift.models.recognizer import ClassifierModel
from modalift.recipe import Recipe, load_recipe

#: Settings that may differ from training: where the data are, the number of crops, and the hardware.
_OVERRIDABLE = ("data.root", "data.cache", "protocol.temporal_crops", "protocol.spatial_crops", "run.workers", "run.device",
               "run.threads")


def validate(experiment: Experiment, split: str, device: torch.device | str,
             average: MovingAverage | None = None) -> dict[str, dict[str, float]]:
    """Validates every student during training, with the weights that would be deployed.

    With a moving average these are the averaged weights; afterwards the scheme has its own again and is in training mode.
    A student for which the split has no clip is left out.

    Args:
        experiment: the scheme and its table.
        split: ``val``, or another split.
        device: where the networks are.
        average: the moving average, or None.

    Returns:
        role -> metrics, see :meth:`~modalift.models.Model.validate`.
    """
    found: dict[str, dict[str, float]] = {}
    part, models = experiment.table.split(split), experiment.models()
    for role, net in experiment.scheme.students.items():
        clips = models[role].validation_clips(part)
        if len(clips):
            with averaged_weights(net, role, average):
                found[role] = models[role].validate(
                    experiment.clips(clips, set(models[role].evaluation_views), augment=False),
                    workers=experiment.recipe.run.workers, device=device)
    experiment.scheme.train()
    return found


@contextmanager
def averaged_weights(net: torch.nn.Module, role: str, average: MovingAverage | None) -> Iterator[None]:
    """Within it a network has its averaged weights, if there are any."""
    own = {k: v.clone() for k, v in net.state_dict().items()} if average else None
    if average:
        net.load_state_dict(average.of(role))
    try:
        yield
    finally:
        if own:
            net.load_state_dict(own)


def evaluate(run: Run, split: str = "test", roles: Sequence[str] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluates a run's models on a split by the recipe's protocol, and writes predictions and results.

    Evaluations on the test split are appended to the run's ledger, which its report shows.

    Args:
        run: a finished run; of a cross-validation every fold is evaluated, and all predictions are scored together.
        split: ``train``, ``val`` or ``test``.
        roles: which models; by default all.
        overrides: ``section.key=value``, for settings that may differ from training.

    Returns:
        role -> metrics, which depend on the kind of model, see :class:`modalift.models.Model`.

    Raises:
        ModaliftError: an unfinished run, an unknown role, an override that would change what was trained, or a split
            without clips for a model.
    """
    check_overrides(overrides)
    requested = [run.resolve_role(role) for role in roles or (run.roles() or [""])]
    if run.folds():
        return evaluate_folds(run, split, requested, overrides)
    recipe = load_recipe(run.folder, overrides)
    device = device_of(recipe.run.device)
    set_threads(recipe.run.threads)
    table, store = open_table(recipe), open_store(recipe)
    if not len(table.split(split)):
        raise ModaliftError(f"{table.name} has no {split} clips - give another --split, or see `modalift check`")
    results: dict[str, Any] = {}
    for role in requested:
        model: Model = run.model(role)
        model.protocol = recipe.protocol.crops_only()
        model.check_table(table)
        clips = evaluation_clips(model, table.split(split), store, recipe.run.seed)
        left_out = clips.find_corrupt()
        evaluation = model.evaluate(clips, workers=recipe.run.workers, device=device)
        run.save_predictions(role, split, evaluation.predictions)
        results[role] = evaluation.metrics | {"left_out": left_out}
    run.save_results(split, results, table.fingerprint())
    return results


def evaluation_clips(model: Model, part: Table, store: Store | None, seed: int = 0) -> ClipSet:
    """The clips of a split on which a model can be evaluated.

    Raises:
        ModaliftError: the split has none.
    """
    usable, views = model.evaluable(part), model.evaluation_views
    if not len(usable):
        names = f"the view '{views[0]}'" if len(views) == 1 else f"all of the views {', '.join(views)}"
        raise ModaliftError(f"{part.name}: no clip of this split has {names} - see `modalift check`")
    return ClipSet(usable, model.framings, seed=seed, store=store, protocol=model.protocol)


def open_store(recipe: Recipe) -> Store | None:
    """Opens the recipe's cache folder, if it exists."""
    folder = Path(recipe.data.cache)
    return open_cache(folder) if recipe.data.cache not in ("", "memory") and folder.is_dir() else None


def evaluate_folds(run: Run, split: str, roles: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """Evaluates every fold of a cross-validation, and scores all folds' predictions together.

    Each fold's own results are in its folder; for folds of equal size their mean is the accuracy over all.
    """
    for fold in run.folds():
        evaluate(fold, split, roles, overrides)
    results = {}
    for role in roles:
        model = run.folds()[0].model(role)
        if not isinstance(model, ClassifierModel):
            raise ModaliftError(f"{run.folder}: '{role}' is a {model.kind} without class predictions, whose folds cannot be"
                                " scored together - evaluate each fold")
        found = Predictions.join([Predictions.load(f.predictions_path(role, split)) for f in run.folds()])
        run.save_predictions(role, split, found)
        results[role] = model.metrics_of(found, model.classes)
    run.save_results(split, results, "all folds")
    return results


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuses overrides that would change what was trained.

    Raises:
        ModaliftError: such an override.
    """
    for text in overrides:
        key = text.partition("=")[0]
        if key not in _OVERRIDABLE:
            raise ModaliftError(f"eval {key}=...: a run is evaluated as it was trained; only {', '.join(_OVERRIDABLE)} may"
                                f" differ - {nearest(key, _OVERRIDABLE)}")
