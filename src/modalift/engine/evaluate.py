"""Evaluation of a run's models on a split, by the recipe's protocol."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from modalift.engine.distributed import device_of, set_threads
from modalift.engine.experiment import Experiment
from modalift.engine.monitor import Monitor
from modalift.engine.optim import MovingAverage
from modalift.engine.provenance import (
    Evidence,
    RecordedClips,
    belongs,
    changed_clips,
    contents_of,
    evidence_of,
    joined,
    short_hash,
)
from modalift.engine.run import Run
from modalift.engine.scope import joined_scope, scope_of, seen_clips
from modalift.engine.store import cache_of, open_store
from modalift.engine.tables import limit_clips, open_table, open_unlimited
from modalift.errors import ModaliftError, nearest
from modalift.loading.clips import ClipSet, NoClipError
from modalift.loading.stores import Store
from modalift.modalities import Table
from modalift.models import Model, Predictions
from modalift.models.recognizer import ClassifierModel
from modalift.recipe import Recipe, load_recipe

#: Settings that may differ from training: where the data are, the number of crops, and the hardware.
_OVERRIDABLE = ("data.root", "data.cache", "protocol.temporal_crops", "protocol.spatial_crops", "run.workers", "run.device",
               "run.threads")


def validate(experiment: Experiment, split: str, device: torch.device | str,
             average: MovingAverage | None = None, unreadable: dict[str, str] | None = None) -> dict[str, dict[str, float]]:
    """Validates every student during training, with the weights that would be deployed.

    With a moving average these are the averaged weights; afterwards the scheme has its own again and is in training mode.
    A student for which the split has no readable clip is left out.

    Args:
        experiment: the scheme and its table.
        split: ``val``, or another split.
        device: where the networks are.
        average: the moving average, or None.
        unreadable: receives clips that turn out to be unreadable, and why.

    Returns:
        role -> metrics, see :meth:`~modalift.models.Model.validate`.
    """
    found: dict[str, dict[str, float]] = {}
    part, models = experiment.table.split(split), experiment.models()
    for role, net in experiment.scheme.students.items():
        usable = models[role].validation_clips(part).where(lambda r: r.id not in experiment.corrupt)
        if not len(usable):
            continue
        clips = experiment.clips(usable, set(models[role].evaluation_views), augment=False, tolerant=True)
        with averaged_weights(net, role, average), suppress(NoClipError):
            found[role] = models[role].validate(clips, workers=experiment.recipe.run.workers, device=device)
        if unreadable is not None:
            unreadable |= clips.unreadable
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


def evaluate(run: Run, split: str = "test", roles: Sequence[str] = (), overrides: Sequence[str] = (),
             monitor: Monitor | None = None) -> dict[str, Any]:
    """Evaluates a run's models on a split by the recipe's protocol, and writes predictions and results.

    Each result has its ``evidence``: weights, clips and contents of their files. An evaluation under other conditions than
    the run's own (other crops, other data) is stored beside that of the run, never in its place. Evaluations on the test
    split are appended to the run's ledger, which its report shows.

    Args:
        run: a finished run; of a cross-validation every fold is evaluated, and all predictions are scored together.
        split: ``train``, ``val`` or ``test``.
        roles: which models; by default all.
        overrides: ``section.key=value``, for settings that may differ from training.
        monitor: receives a warning where recordings have changed since the training.

    Returns:
        role -> metrics, which depend on the kind of model, see :class:`modalift.models.Model`; and for every kind, what they
        are of: see :func:`~modalift.engine.scope.scope_of`.

    Raises:
        ModaliftError: an unfinished run, an unknown role, an override that would change what was trained, a split without
            clips for a model, or a held-out split with clips on which the run was trained.
    """
    check_overrides(overrides)
    requested = [run.resolve_role(role) for role in roles or (run.roles() or [""])]
    if run.folds():
        return evaluate_folds(run, split, requested, overrides, monitor)
    recipe = load_recipe(run.folder, overrides)
    device = device_of(recipe.run.device)
    set_threads(recipe.run.threads)
    whole = open_unlimited(recipe)
    table = limit_clips(whole, recipe.data.limit)
    if not len(table.split(split)):
        raise ModaliftError(f"{table.name} has no {split} clips - give another --split, or see `modalift check`")
    store = open_store(recipe, table.split(split), {view for role in requested for view in run.describe(role)["framings"]})
    results: dict[str, tuple[str, dict[str, Any]]] = {}
    seen, beyond = seen_clips(run, recipe, table, split), len(whole.split(split)) - len(table.split(split))
    for role in requested:
        model: Model = run.model(role)
        model.protocol = recipe.protocol.crops_only()
        model.check_table(table)
        clips = evaluation_clips(model, table.split(split), store, recipe.run.seed)
        evidence = evidence_before(run, role, model, clips.table, store, recipe, monitor or Monitor())
        clips.find_corrupt()
        evaluation = model.evaluate(clips, workers=recipe.run.workers, device=device)
        run.save_predictions(role, evidence.key, with_evidence(evaluation.predictions, evidence))
        results[role] = evidence.key, evaluation.metrics | {"evidence": evidence.plain()} | scope_of(
            evaluation.metrics, table, split, clips, seen, beyond_limit=beyond, max_corrupt=recipe.data.max_corrupt)
    run.save_results(split, results, table.fingerprint())
    return {role: metrics for role, (_, metrics) in results.items()}


def evidence_before(run: Run, role: str, model: Model, part: Table, store: Store | None, recipe: Recipe,
                    monitor: Monitor) -> Evidence:
    """The evidence of an evaluation, with the conditions that are not the run's own.

    Raises:
        ModaliftError: the split holds clips on which the run was trained.
    """
    own, recorded, split = load_recipe(run.folder), RecordedClips.of(run), part[0].split
    now = contents_of(part, model.evaluation_views, store)
    if split != "train" and (seen := recorded.seen_in(part, split, now)):
        raise ModaliftError(f"{run.folder}: was trained on {len(seen)} of the {len(part)} {split} clips ('{seen[0]}', ...), so"
                            " this would measure nothing - train again with these splits, or restore those of the training")
    evidence = evidence_of(run, role, part, now, model.protocol, store)
    then = recorded.splits.get(split, {})
    changed = changed_clips(then, now)
    readable = {clip for clip, views in then.items() if set(model.evaluation_views) <= set(views)}
    moved = recipe.data.root != own.data.root and (bool(changed) or readable != set(now))
    if changed and not moved:
        monitor.message(f"the recordings of {len(changed)} {split} clips have changed since the training ('{changed[0]}', ...);"
                        " they are evaluated as they are now", warning=True)
    other = [f"{evidence.crops} crops"] if model.protocol != own.protocol.crops_only() else []
    other += [f"data {short_hash(json.dumps(evidence.contents))[:6]}"] if moved else []
    return dataclasses.replace(evidence, conditions=", ".join(other))


def with_evidence(predictions: Predictions | None, evidence: Evidence) -> Predictions | None:
    """Predictions with the evidence; None for a model without classes."""
    return None if predictions is None else dataclasses.replace(predictions, evidence=evidence.plain())


def current_predictions(run: Run, role: str, split: str) -> Predictions | None:
    """The stored predictions of a model on a split by the run's own recipe, if they are those of the present weights and clips.

    Returns:
        None where there are none, or where weights, protocol, clips or recordings are others. Where the data cannot be opened
        any more, predictions of the present weights are taken.
    """
    path = run.predictions_path(role, split)
    if not path.is_file():
        return None
    found = Predictions.load(path)
    evidence = Evidence.parse(found.evidence)
    if evidence is None or evidence.conditions:
        return None
    if run.folds():
        parts = [current_predictions(fold, role, split) for fold in run.folds()]
        return found if all(parts) and joined([p.evidence for p in parts if p is not None]) == evidence.plain() else None
    recipe = load_recipe(run.folder)
    model: Model = run.model(role)
    model.protocol = recipe.protocol.crops_only()
    try:
        table = open_table(recipe)
    except ModaliftError:
        return found if belongs(run, role, found.evidence) else None
    part = model.evaluable(table.split(split))
    if not len(part):
        return None
    store = cache_of(recipe)
    now = evidence_of(run, role, part, contents_of(part, model.evaluation_views, store), model.protocol, store)
    same = (now.weights, now.recipe, now.crops) == (evidence.weights, evidence.recipe, evidence.crops)
    return found if same and now.same_data(evidence) else None


def evaluation_clips(model: Model, part: Table, store: Store | None, seed: int = 0) -> ClipSet:
    """The clips of a split on which a model can be evaluated.

    Raises:
        ModaliftError: the split has none.
    """
    usable, views = model.evaluable(part), model.evaluation_views
    if not len(usable):
        names = f"the view '{views[0]}'" if len(views) == 1 else f"all of the views {', '.join(views)}"
        raise ModaliftError(f"{part.name}: no clip of this split has {names} - see `modalift check`")
    return ClipSet(usable, model.framings, seed=seed, store=store, protocol=model.protocol, tolerant=True)


def evaluate_folds(run: Run, split: str, roles: Sequence[str], overrides: Sequence[str],
                   monitor: Monitor | None = None) -> dict[str, Any]:
    """Evaluates every fold of a cross-validation, and scores all folds' predictions together.

    Each fold's own results are in its folder; for folds of equal size their mean is the accuracy over all.
    """
    each = [evaluate(fold, split, roles, overrides, monitor) for fold in run.folds()]
    results = {}
    for role in roles:
        model = run.folds()[0].model(role)
        if not isinstance(model, ClassifierModel):
            raise ModaliftError(f"{run.folder}: '{role}' is a {model.kind} without class predictions, whose folds cannot be"
                                " scored together - evaluate each fold")
        keys = [Evidence(**metrics[role]["evidence"]).key for metrics in each]
        parts = [Predictions.load(f.predictions_path(role, key)) for f, key in zip(run.folds(), keys, strict=True)]
        evidence = joined([p.evidence for p in parts])
        found = dataclasses.replace(Predictions.join(parts), evidence=evidence)
        run.save_predictions(role, keys[0], found)
        results[role] = keys[0], model.metrics_of(found, model.classes) | {"evidence": evidence} | joined_scope(
            [metrics[role] for metrics in each])
    run.save_results(split, results, "all folds")
    return {role: metrics for role, (_, metrics) in results.items()}


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
