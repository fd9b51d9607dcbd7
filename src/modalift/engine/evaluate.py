"""What a network answers on a split, by the recipe's protocol."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modalift.engine import joint, pictures
from modalift.engine.experiment import Experiment, framing_of, open_table
from modalift.engine.metrics import score
from modalift.engine.optim import MovingAverage
from modalift.engine.run import FUSION, Run, Trained, read_network
from modalift.engine.statistics import Predictions
from modalift.errors import ModaliftError, nearest
from modalift.files import write_text
from modalift.loading.cache import Cache, open_cache
from modalift.loading.clips import ClipSet, loader
from modalift.modalities import Table
from modalift.networks import Recognizer, Translator
from modalift.networks.fusion import Fusion
from modalift.recipe import Recipe, load_recipe


@torch.no_grad()
def answer(net: Recognizer | Fusion, clips: ClipSet, *, batch: int = 32, workers: int = 0,
           device: torch.device | str = "cpu") -> np.ndarray:
    """Class probabilities ``(N, K)`` of every clip: the mean over its views in time and its crops.

    The last batch is as large as it comes: a split is never padded.
    """
    net.eval()
    each = clips.time_views * clips.crops
    found = []
    for part in loader(clips, batch=max(1, batch // each) * each, shuffle=False, seed=0, epoch=0, workers=workers):
        part = part.to(device)
        logits = (net(part.clips) if isinstance(net, Fusion) else net(part.clips[net.view])).float()
        found.append(torch.softmax(logits, 1).reshape(-1, each, logits.shape[1]).mean(1).cpu().numpy())
    return np.concatenate(found)


def seen_by(table: Table, view: str) -> Table:
    """The clips that a sensor recorded."""
    seen = table.where(lambda r: view in r.tracks)
    if not len(seen):
        raise ModaliftError(f"{table.name}: no clip of this split has the view '{view}' - `modalift check` counts them")
    return seen


def with_all(table: Table, *views: str) -> Table:
    """The clips that all these sensors recorded."""
    return table.where(lambda r: set(views) <= set(r.tracks))


def predictions(net: Recognizer | Fusion, clips: ClipSet, *, workers: int = 0,
                device: torch.device | str = "cpu") -> Predictions:
    """What a network answers, with whose clips they are and their numeric facts; corrupt clips are not among them."""
    rows = [clips.table.rows[i] for i in clips.indices]
    probabilities = answer(net.to(device), clips, workers=workers, device=device)
    names = {k for r in rows for k, v in r.facts.items() if isinstance(v, float)}
    facts = {n: np.array([r.facts.get(n, np.nan) for r in rows], float) for n in sorted(names)}
    return Predictions(np.array([r.id for r in rows]), np.array([-1 if r.label is None else r.label for r in rows]),
                       np.array([r.subject for r in rows]), probabilities.astype(np.float32), facts)


def quick_look(experiment: Experiment, split: str, device: torch.device | str,
               average: MovingAverage | None = None) -> dict[str, dict[str, float]]:
    """Accuracy and loss of every student on a split, during training, with the weights that would ship.

    A translator's is how like its pictures are to the target's; nothing is known of it where no clip has both views.

    Under a moving average these are the averaged ones; the scheme goes back to its own and to training.
    """
    looks, workers = {}, experiment.recipe.run.workers
    for role, net in experiment.scheme.students.items():
        own = {k: v.clone() for k, v in net.state_dict().items()} if average else None
        if average:
            net.load_state_dict(average.of(role))
        target = getattr(experiment.scheme, "target", "") if isinstance(net, Translator) else ""
        part = experiment.table.split(split)
        pairs = with_all(part, net.view, target) if target else part
        found = None
        if len(pairs):
            clips = experiment.clips(seen_by(pairs, net.view), {net.view, *([target] if target else [])}, augment=False)
            if target:
                looks[role] = pictures.summary(pictures.compare(net, clips, target, workers=workers, device=device))
            else:
                found = predictions(net, clips, workers=workers, device=device)
        if own:
            net.load_state_dict(own)
        if found is None:
            continue
        known = found.take(found.labels >= 0)
        chosen = known.probabilities[np.arange(len(known)), known.labels]
        recalls = [known.right[known.labels == c].mean() for c in np.unique(known.labels)]
        looks[role] = {"top1": float(known.right.mean()), "mean_class": float(np.mean(recalls)),
                       "loss": float(-np.log(np.clip(chosen, 1e-12, None)).mean())}
    experiment.scheme.train()
    return looks


def merit(look: dict[str, float]) -> float:
    """What the best checkpoint is chosen by: accuracy, or a translator's structural similarity."""
    return look["top1"] if "top1" in look else look["ssim"]


def evaluate(run: Run, split: str = "test", roles: Sequence[str] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluates a run's networks on a split by the recipe's protocol, and writes predictions and results.

    An evaluation on the test split is appended to the run's ledger, which its report shows: a figure that was looked
    at ten times is worth less than one that was looked at once.

    Returns:
        ``{role: metrics}``, see :func:`modalift.engine.metrics.score`.
    """
    if run.folds():
        return _joined(run, split, roles, overrides)
    recipe = load_recipe(run.folder, overrides)
    table, data, protocol = open_table(recipe), recipe.data, recipe.protocol
    cache = open_cache(Path(data.cache)) if data.cache not in ("", "memory") and Path(data.cache).is_dir() else None
    _allowed(overrides)
    results: dict[str, Any] = {}
    run.role(run.roles()[0] if run.roles() else "")  # refuses a run that is not finished
    fuses = run.fuses()
    for role in roles or run.roles():
        if role == FUSION and fuses:
            continue
        trained = read_network(run.network_file(run.role(role)))
        if isinstance(trained.net, Translator):
            results[role] = _pictures(recipe, table.split(split), trained, cache)
            continue
        if trained.classes != table.classes:
            raise ModaliftError(f"{run.folder}: '{role}' knows {len(trained.classes)} classes, the table has"
                                f" {len(table.classes)} - evaluate it on the table that it was trained on")
        clips = ClipSet(seen_by(table.split(split), trained.net.view), {trained.net.view: trained.framing}, augment=None,
                        seed=recipe.run.seed, cache=cache, time_views=protocol.time_views, crops=protocol.crops)
        left_out = clips.probe()
        found = predictions(trained.net, clips, workers=recipe.run.workers)
        found.save(run.predictions(role, split))
        results[role] = score(found.probabilities, found.labels, trained.classes, subjects=found.subjects,
                              facts=dict(found.facts)) | {"left_out": left_out}
    if fuses and (not roles or FUSION in roles):
        results[FUSION] = _joint_answer(run, recipe, table, split, cache)
    _record(run, split, results, table.fingerprint())
    return results


def _joint_answer(run: Run, recipe: Recipe, table: Table, split: str, cache: Cache | None) -> dict[str, Any]:
    """The joint answer of several sensors, on the clips that all of them saw."""
    held, protocol = joint.read(run.fusion_file), recipe.protocol
    if held.classes != table.classes:
        raise ModaliftError(f"{run.folder}: its fusion knows {len(held.classes)} classes, the table has"
                            f" {len(table.classes)} - evaluate it on the table that it was trained on")
    clips = ClipSet(joint.seen_by_all(table.split(split), held.fusion), held.framings, augment=None, seed=recipe.run.seed,
                    cache=cache, time_views=protocol.time_views, crops=protocol.crops)
    left_out = clips.probe()
    found = predictions(held.fusion, clips, workers=recipe.run.workers)
    found.save(run.predictions(FUSION, split))
    return score(found.probabilities, found.labels, held.classes, subjects=found.subjects,
                 facts=dict(found.facts)) | {"left_out": left_out}


def _pictures(recipe: Recipe, part: Table, trained: Trained, cache: Cache | None) -> dict[str, Any]:
    """How like a translator's pictures are to what the target sensor said of the same clips."""
    net, protocol = trained.net, recipe.protocol
    target = str((recipe.scheme.model_extra or {}).get("target") or net.target)
    pairs = with_all(part, net.view, target)
    if not len(pairs):
        raise ModaliftError(f"{part.name}: no clip of this split has both '{net.view}' and '{target}', so pictures cannot be"
                            " compared - look at them with `modalift derive pseudo_ir`")
    if protocol.time_views > 1 or protocol.crops > 1:
        raise ModaliftError("protocol: a translator is looked at once - set time_views and crops to 1")
    framings = {net.view: trained.framing, target: framing_of(recipe, target, part)}
    clips = ClipSet(pairs, framings, augment=None, seed=recipe.run.seed, cache=cache)
    left_out = clips.probe()
    found = pictures.compare(net, clips, target, workers=recipe.run.workers)
    return {**pictures.summary(found), "target": target, "per_clip": found, "left_out": left_out}


def _allowed(overrides: Sequence[str]) -> None:
    """What may differ from training: where the data are, how many views are averaged, and what it is computed on."""
    known = ("data.root", "data.cache", "protocol.time_views", "protocol.crops", "run.workers", "run.device", "run.threads")
    for text in overrides:
        key = text.partition("=")[0]
        if key not in known:
            raise ModaliftError(f"eval {key}=...: a run is evaluated as it was trained; only {', '.join(known)} may differ"
                                f" - {nearest(key, known)}")


def _joined(run: Run, split: str, roles: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """A cross-validation: every fold is evaluated, and all folds' answers are scored together.

    Each fold's own accuracies stand in its folder; where folds are of equal size their mean is the joint accuracy.
    """
    for fold in run.folds():
        evaluate(fold, split, roles, overrides)
    first, results = run.folds()[0], {}
    for role in roles or [*first.roles(), *([FUSION] if run.fuses() else [])]:
        found = Predictions.join([Predictions.load(f.predictions(role, split)) for f in run.folds()])
        found.save(run.predictions(role, split))
        classes = first.trained(role if role in first.roles() else first.roles()[0]).classes
        results[role] = score(found.probabilities, found.labels, classes, subjects=found.subjects, facts=dict(found.facts))
    _record(run, split, results, "all folds")
    return results


def _record(run: Run, split: str, results: dict[str, Any], fingerprint: str) -> None:
    held = run.measured()
    for role, metrics in results.items():
        held.setdefault(role, {})[split] = metrics
    write_text(run.results, json.dumps(held))
    if split == "test":
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with (run.folder / "test_ledger.jsonl").open("a") as ledger:
            for role, metrics in results.items():
                figures = {k: metrics[k] for k in ("top1", "psnr", "ssim", "edges") if k in metrics}
                ledger.write(json.dumps({"when": when, "role": role, "table": fingerprint, "clips": metrics["n"], **figures})
                             + "\n")


