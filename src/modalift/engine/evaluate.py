"""What the models of a run make of a split, by the recipe's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

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

#: What may differ from training: where the data are, how many crops are averaged, and what it is computed on.
_MAY_DIFFER = ("data.root", "data.cache", "protocol.temporal_crops", "protocol.spatial_crops", "run.workers", "run.device",
               "run.threads")


def validate(experiment: Experiment, split: str, device: torch.device | str,
             average: MovingAverage | None = None) -> dict[str, dict[str, float]]:
    """Figures of every student on a split, during training, with the weights that would be deployed.

    Under a moving average these are the averaged ones; the scheme goes back to its own and to training. A student that no
    clip of the split can be evaluated for is not among them.

    Returns:
        role -> what :meth:`~modalift.models.Model.validate` of its kind gives.
    """
    found: dict[str, dict[str, float]] = {}
    part, models = experiment.table.split(split), experiment.models()
    for role, net in experiment.scheme.students.items():
        clips = models[role].evaluable(part)
        if len(clips):
            with averaged(net, role, average):
                found[role] = models[role].validate(
                    experiment.clips(clips, set(models[role].evaluation_views), augment=False),
                    workers=experiment.recipe.run.workers, device=device)
    experiment.scheme.train()
    return found


@contextmanager
def averaged(net: torch.nn.Module, role: str, average: MovingAverage | None) -> Iterator[None]:
    """While it lasts a network has the averaged weights, where there are any."""
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

    An evaluation on the test split is appended to the run's ledger, which its report shows.

    Args:
        run: a finished run; of a cross-validation every fold is evaluated, and all of them are scored together.
        split: ``train``, ``val`` or ``test``.
        roles: which models; by default all.
        overrides: ``section.key=value`` of what may differ from training.

    Returns:
        ``{role: metrics}``; what these hold is up to the kind of model, see :class:`modalift.models.Model`.

    Raises:
        ModaliftError: an unfinished run, a role that it does not have, an override that would change what was trained, or a
            split without a clip that can be evaluated.
    """
    check_overrides(overrides)
    asked = [run.role(role) for role in roles or (run.roles() or [""])]
    if run.folds():
        return evaluate_folds(run, split, asked, overrides)
    recipe = load_recipe(run.folder, overrides)
    table, store = open_table(recipe), store_of(recipe)
    results: dict[str, Any] = {}
    for role in asked:
        model: Model = run.model(role)
        model.protocol = recipe.protocol.crops_only()
        model.check_table(table)
        clips = evaluation_clips(model, table.split(split), store, recipe.run.seed)
        left_out = clips.find_corrupt()
        found = model.evaluate(clips, workers=recipe.run.workers)
        run.keep(role, split, found.predictions)
        results[role] = found.metrics | {"left_out": left_out}
    run.record(split, results, table.fingerprint())
    return results


def evaluation_clips(model: Model, part: Table, store: Store | None, seed: int = 0) -> ClipSet:
    """The clips of a split that a model can be evaluated on.

    Raises:
        ModaliftError: there is none.
    """
    seen, views = model.evaluable(part), model.evaluation_views
    if not len(seen):
        names = f"the view '{views[0]}'" if len(views) == 1 else f"all of the views {', '.join(views)}"
        raise ModaliftError(f"{part.name}: no clip of this split has {names} - `modalift check` counts them")
    return ClipSet(seen, model.framings, seed=seed, store=store, protocol=model.protocol)


def store_of(recipe: Recipe) -> Store | None:
    """The recipe's cache folder, where there is one."""
    folder = Path(recipe.data.cache)
    return open_cache(folder) if recipe.data.cache not in ("", "memory") and folder.is_dir() else None


def evaluate_folds(run: Run, split: str, roles: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """A cross-validation: every fold is evaluated, and all folds' predictions are scored together.

    Each fold's own figures stand in its folder; where folds are of equal size their mean is the joint accuracy.
    """
    for fold in run.folds():
        evaluate(fold, split, roles, overrides)
    results = {}
    for role in roles:
        model = run.folds()[0].model(role)
        if not isinstance(model, ClassifierModel):
            raise ModaliftError(f"{run.folder}: '{role}' makes no predictions that folds could be scored together by - evaluate"
                                " each fold")
        found = Predictions.join([Predictions.load(f.predictions(role, split)) for f in run.folds()])
        run.keep(role, split, found)
        results[role] = model.metrics_of(found, model.classes)
    run.record(split, results, "all folds")
    return results


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuses what would change what was trained."""
    for text in overrides:
        key = text.partition("=")[0]
        if key not in _MAY_DIFFER:
            raise ModaliftError(f"eval {key}=...: a run is evaluated as it was trained; only {', '.join(_MAY_DIFFER)} may"
                                f" differ - {nearest(key, _MAY_DIFFER)}")
