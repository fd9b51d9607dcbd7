"""`modalift diagnose`: checks of a trained network that explain a low or doubtful accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modalift import networks
from modalift.engine.build import assemble
from modalift.engine.experiment import Experiment
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.statistics import binomial_tail, mcnemar
from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.collation import collate
from modalift.modalities import Table
from modalift.models import Predictions, load
from modalift.models.intervals import wilson
from modalift.models.recognizer import RecognizerModel
from modalift.recipe import load_recipe

State = Literal["good", "warning", "wrong", "unknown"]
#: The largest number of clips that are checked, evenly spread over the split.
MAX_CLIPS = 240
_MAX_BUNDLE_CLIPS = 12
_TOLERANCE = 1e-3
_NO_TRAINING_CLIP = "There is no labeled training clip of this view."
_TOO_FEW = " These clips are too few to tell."


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: its name.
        state: ``good``, ``warning`` (may be intended), ``wrong`` (a fault), or ``unknown`` (could not be checked).
        message: what was measured, what it means, and what to do.
        figures: the measured numbers.
    """

    check: str
    state: State
    message: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Probe:
    """A trained network with the framed clips of one split, and its predictions.

    Attributes:
        run, role, split: what is checked.
        experiment: the experiment of the run.
        model: the trained model.
        table: the clips' rows.
        clips: ``(N, C, T, H, W)`` in the sensor's unit, one centered crop each, without augmentation.
        labels: ``(N,)`` class indices.
        predictions: ``(N,)`` predicted class indices of the unchanged clips.
        correct: ``(N,)`` whether each prediction is the label.
        left_out: reason -> number of the split's clips that are not among them.
    """

    run: Run
    role: str
    split: str
    experiment: Experiment
    model: RecognizerModel
    table: Table
    clips: Tensor
    labels: np.ndarray
    predictions: np.ndarray
    correct: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def clips_of(self) -> str:
        """Which clips are checked, in words."""
        out, n = sum(self.left_out.values()), len(self.labels)
        if not out:
            return f"{n} {self.split} clips"
        return f"{n} of {n + out} {self.split} clips (left out: {', '.join(f'{k} {why}' for why, k in self.left_out.items())})"

    @property
    def too_few(self) -> bool:
        """Whether even a change that makes every correct prediction wrong would not be significant (at 5 %)."""
        return mcnemar(int(self.correct.sum()), 0) >= 0.05

    @property
    def view(self) -> str:
        return self.model.view

    def correct_on(self, clips: Tensor, labels: np.ndarray | None = None) -> np.ndarray:
        """Whether the predictions of changed clips are the labels (or other ones), ``(N,)`` bool."""
        return predict(self.model.network, clips) == (self.labels if labels is None else labels)


def diagnose(run: Run, *, full: bool = False, role: str = "", split: str = "") -> list[Finding]:
    """Checks a run's network on validation clips, or on the test split where there are none (entered in its ledger).

    Args:
        run: a finished run.
        full: also run the checks that train a network: overfitting eight clips, and shuffled labels (minutes).
        role: the network's role; see :meth:`Run.resolve_role` for the default.
        split: which clips; by default ``val``, or ``test`` without validation clips.

    Returns:
        One finding per check.

    Raises:
        ModaliftError: an unfinished run, a model that is not a recognizer, or a split without labeled clips of its view.
    """
    probe = prepare(run, role, split)
    checks: list[Callable[[Probe], Finding]] = [
        check_accuracy, check_prediction_variety, check_overfitting, check_time_order, check_motion, check_time_shift,
        check_mirroring, check_color_order, check_bundle]
    if full:
        checks += [check_memorization, check_shuffled_labels]
    findings = [check(probe) for check in checks]
    if probe.split == "test":
        enter_in_ledger(probe)
    return findings


def prepare(run: Run, role: str = "", split: str = "") -> Probe:
    """Loads the network, frames its clips and predicts them; see :func:`diagnose` for the arguments."""
    experiment, role = assemble(load_recipe(run.folder), train=False), run.resolve_role(role)
    model = run.model(role)
    if not isinstance(model, RecognizerModel):
        raise ModaliftError(f"{run.folder}: '{role}' is a {model.kind} - only recognizers can be diagnosed")
    experiment.framings = {**experiment.framings, model.view: model.framing}
    experiment.corrupt = dict(run.compute()["left_out"])
    split = split or ("val" if len(experiment.table.split("val")) else "test")
    part = experiment.table.split(split)
    usable = part.where(lambda r: model.view in r.tracks)
    if len(usable):  # files may have been damaged since the training
        experiment.corrupt |= experiment.clips(usable, {model.view}, augment=False).find_corrupt()
    readable = usable.where(lambda r: r.id not in experiment.corrupt)
    labeled = readable.where(lambda r: r.label is not None)
    table = sample_clips(labeled, model.view, MAX_CLIPS)
    steps = {f"without '{model.view}'": (part, usable), "unreadable": (usable, readable),
             "without a label": (readable, labeled), f"beyond {MAX_CLIPS}": (labeled, table)}
    if not len(table):
        raise ModaliftError(f"{experiment.table.name}: the split '{split}' has no labeled clip of the view"
                            f" '{model.view}' - choose another with --split")
    clips, labels = framed_clips(experiment, table, model.view)
    predictions = predict(model.network, clips)
    return Probe(run, role, split, experiment, model, table, clips, labels, predictions, predictions == labels,
                 {why: len(before) - len(kept) for why, (before, kept) in steps.items() if len(before) > len(kept)})


def sample_clips(table: Table, view: str, limit: int) -> Table:
    """At most ``limit`` labeled clips with a view, evenly spread over the table."""
    labeled = table.where(lambda r: r.label is not None and view in r.tracks)
    if not len(labeled):
        return labeled
    chosen = np.unique(np.linspace(0, len(labeled) - 1, min(limit, len(labeled))).round().astype(int))
    return replace(labeled, rows=tuple(labeled.rows[i] for i in chosen.tolist()))


def framed_clips(experiment: Experiment, table: Table, view: str) -> tuple[Tensor, np.ndarray]:
    """The readable clips ``(N, C, T, H, W)``, framed as in evaluation, but one centered crop each, and their labels."""
    clips = ClipSet(table, {view: experiment.framings[view]}, augment=None, store=experiment.store(table))
    clips.find_corrupt()
    batch = collate([clips[0, position] for position in range(len(clips))])
    return batch.clips[view], batch.labels.numpy()


@torch.no_grad()
def predict(net: torch.nn.Module, clips: Tensor) -> np.ndarray:
    """The predicted class index of each clip, ``(N,)``."""
    net.eval()
    return torch.cat([net(part.float()).argmax(1) for part in clips.split(32)]).numpy()


# ---- checks without training -----------------------------------------------------------------------------------------


def check_accuracy(probe: Probe) -> Finding:
    """Accuracy on unchanged clips, compared with chance."""
    accuracy, expected = float(probe.correct.mean()), chance_accuracy(probe.predictions, probe.labels)
    figures = {"accuracy": accuracy, "chance": expected, "clips": float(len(probe.correct))}
    p = binomial_tail(int(probe.correct.sum()), len(probe.correct), expected)
    low, high = wilson(int(probe.correct.sum()), len(probe.correct)) or (0.0, 1.0)
    text = (f"The accuracy on {probe.clips_of} is {accuracy:.1%} (95 % interval over clips: {low:.1%} to {high:.1%}); chance is"
            f" {expected:.1%}.")
    if p > 0.01 and binomial_tail(len(probe.correct), len(probe.correct), 1 / len(probe.model.classes)) > 0.01:
        return Finding("accuracy", "unknown", text + _TOO_FEW, figures)
    if p > 0.01:
        return Finding("accuracy", "wrong", text + " Nothing shows that the network is better than chance: see the other checks"
                       " and `modalift look`, and whether the training loss fell.", figures)
    return Finding("accuracy", "good", text, figures)


def check_prediction_variety(probe: Probe) -> Finding:
    """Whether one class is predicted far too often."""
    K = len(probe.model.classes)
    predicted = np.bincount(probe.predictions, minlength=K) / len(probe.predictions)
    actual = np.bincount(probe.labels, minlength=K) / len(probe.labels)
    top = int((predicted - actual).argmax())
    figures = {"predicted": float(predicted[top]), "actual": float(actual[top])}
    text = (f"'{probe.model.classes[top]}' is predicted for {predicted[top]:.0%} of the clips, and {actual[top]:.0%} are of"
            " this class.")
    low, _ = wilson(int((probe.predictions == top).sum()), len(probe.predictions)) or (0.0, 1.0)
    if predicted[top] > actual[top] + 0.3 and low > actual[top]:
        return Finding("prediction variety", "wrong", text + " The network has collapsed onto this class: check the"
                       " normalization (unit of the readings), the learning rate and the class balance.", figures)
    return Finding("prediction variety", "good", text, figures)


def check_overfitting(probe: Probe) -> Finding:
    """Accuracy on training clips without augmentation, compared with that on the split."""
    table = sample_clips(probe.experiment.train, probe.view, MAX_CLIPS)
    if not len(table):
        return Finding("overfitting", "unknown", _NO_TRAINING_CLIP)
    clips, labels = framed_clips(probe.experiment, table, probe.view)
    train, held_out = float((predict(probe.model.network, clips) == labels).mean()), float(probe.correct.mean())
    figures = {"train": train, probe.split: held_out}
    text = f"The accuracy is {train:.1%} on training clips and {held_out:.1%} on {probe.split} clips."
    if train < 0.6:
        return Finding("overfitting", "warning", text + " The network underfits: train longer, raise the learning rate or"
                       " the width, or use weaker augmentation.", figures)
    if train - held_out > 0.25 and not _is_larger(predict(probe.model.network, clips) == labels, probe.correct):
        return Finding("overfitting", "unknown", text + _TOO_FEW, figures)
    if train - held_out > 0.25:
        return Finding("overfitting", "warning", text + " The network overfits: more augmentation, more subjects, dropout,"
                       " weight decay or a teacher may help.", figures)
    return Finding("overfitting", "good", text, figures)


def check_time_order(probe: Probe) -> Finding:
    """Accuracy on clips with their frames in reversed order."""
    back, p = compare_with(probe, probe.clips.flip(2))
    text = f"With reversed frames the accuracy is {back:.1%} (else {probe.correct.mean():.1%})."
    figures = {"forwards": float(probe.correct.mean()), "backwards": back, "p": p}
    if p < 0.05 and back > probe.correct.mean():
        return Finding("time order", "wrong", text + " Frames seem to be read in the wrong order: check that training and"
                       " evaluation read them alike.", figures)
    if probe.too_few:
        return Finding("time order", "unknown", text + _TOO_FEW, figures)
    if p >= 0.05:
        return Finding("time order", "warning", text + " The difference is not significant: nothing shows that the network uses"
                       " the order of frames. Fine where no class is another one reversed; else use a head that models order.",
                       figures)
    return Finding("time order", "good", text + " It uses the order of frames.", figures)


def check_motion(probe: Probe) -> Finding:
    """Accuracy on clips that repeat their middle frame."""
    middle = probe.clips[:, :, probe.clips.shape[2] // 2:][:, :, :1]
    frozen, p = compare_with(probe, middle.expand_as(probe.clips))
    text = f"With the middle frame repeated the accuracy is {frozen:.1%} (else {probe.correct.mean():.1%})."
    figures = {"moving": float(probe.correct.mean()), "frozen": frozen, "p": p}
    if probe.too_few:
        return Finding("motion", "unknown", text + _TOO_FEW, figures)
    if p >= 0.05 or frozen > probe.correct.mean():
        return Finding("motion", "warning", text + " Nothing shows that the network uses motion, rather than postures or the"
                       " scene. Check that a clip's frames differ (`modalift look`) and that the background does not reveal the"
                       " class.", figures)
    return Finding("motion", "good", text + " It uses motion.", figures)


def check_time_shift(probe: Probe) -> Finding:
    """Accuracy on clips that start a quarter of their length late."""
    T = probe.clips.shape[2]
    shift = max(1, T // 4)
    frames = (torch.arange(T) + shift).clamp_max(T - 1)
    shifted, p = compare_with(probe, probe.clips[:, :, frames])
    figures = {"in time": float(probe.correct.mean()), "late": shifted, "p": p}
    text = f"Shifted by {shift} of {T} frames the accuracy is {shifted:.1%} (else {probe.correct.mean():.1%})."
    if p < 0.05 and shifted > probe.correct.mean():
        return Finding("time shift", "wrong", text + " Shifted clips are better: their windows or the offset of this sensor's"
                       " clock (`offset_ms`) seem to be wrong.", figures)
    if probe.correct.mean() - shifted > 0.2 and p >= 0.05:
        return Finding("time shift", "unknown", text + _TOO_FEW, figures)
    if probe.correct.mean() - shifted > 0.2:
        return Finding("time shift", "warning", text + " The network depends on the exact start of a clip: where it is unknown"
                       " in deployment, train with temporal jitter.", figures)
    return Finding("time shift", "good", text, figures)


def check_mirroring(probe: Probe) -> Finding:
    """Accuracy on clips with left and right exchanged."""
    if probe.clips.shape[-1] == 1:
        return Finding("mirroring", "unknown", "Signals are not mirrored: their left and right channels are not known.")
    swap = np.array([probe.table.mirrored.get(int(y), -1) for y in probe.labels])
    flipped = probe.clips.flip(-1)
    accuracy, p = compare_with(probe, flipped)
    figures = {"original": float(probe.correct.mean()), "mirrored": accuracy, "p": p}
    text = f"Mirrored, the accuracy is {accuracy:.1%} (else {probe.correct.mean():.1%})"
    if (known := swap >= 0).any() and (swap[known] != probe.labels[known]).any():
        figures["mirrored labels"] = float(probe.correct_on(flipped, swap)[known].mean())
        text += f"; {figures['mirrored labels']:.1%} with the labels of mirrored classes"
    if p < 0.05 and accuracy > probe.correct.mean():
        return Finding("mirroring", "wrong", text + ". Mirrored clips are better: either training or evaluation mirrors them"
                       " (a camera's selfie mode, a flip in the reader).", figures)
    return Finding("mirroring", "good", text + ".", figures)


def check_color_order(probe: Probe) -> Finding:
    """Accuracy on clips with red and blue exchanged, as in OpenCV's BGR order."""
    if probe.clips.shape[1] != 3 or probe.clips.shape[-1] == 1:
        return Finding("color order", "unknown", f"'{probe.view}' has no colors.")
    accuracy, p = compare_with(probe, probe.clips.flip(1))
    figures = {"RGB": float(probe.correct.mean()), "BGR": accuracy, "p": p}
    text = f"With red and blue exchanged the accuracy is {accuracy:.1%} (else {probe.correct.mean():.1%})."
    if p < 0.05 and accuracy > probe.correct.mean():
        return Finding("color order", "wrong", text + " The clips seem to be BGR, the network was trained on RGB.", figures)
    return Finding("color order", "good", text, figures)


def check_bundle(probe: Probe) -> Finding:
    """Predictions of the bundle on recordings, compared with evaluation now and with the stored predictions."""
    table = sample_clips(probe.table, probe.view, _MAX_BUNDLE_CLIPS)
    clips = probe.experiment.clips(table, {probe.view}, augment=False)
    now = probe.model.predict_clips(clips).probabilities
    with tempfile.TemporaryDirectory() as folder:
        ship(probe.run, probe.role, Path(folder) / "probe.modalift")
        bundle = load(Path(folder) / "probe.modalift")
        shipped = np.stack([bundle.predict(row.tracks[probe.view]).probabilities for row in table])
    gaps = np.abs(shipped - now).max(1)
    figures = {"clips": float(len(table)), "bundle and evaluation": float(gaps.max())}
    if gaps.max() > _TOLERANCE:
        return Finding("bundle", "wrong", f"Bundle and evaluation differ by {gaps.max():.3f} in a probability of"
                       f" '{table[int(gaps.argmax())].id}': they do not read, frame or average alike.", figures)
    text = f"Bundle and evaluation agree on {len(table)} clips (largest difference of a probability: {gaps.max():.0e})."
    stored_path = probe.run.predictions_path(probe.role, probe.split)
    if not stored_path.is_file():
        return Finding("bundle", "good", text, figures)
    stored = Predictions.load(stored_path)
    position = {x: i for i, x in enumerate(stored.ids.tolist())}
    changes = [float(np.abs(now[i] - stored.probabilities[position[r.id]]).max())
               for i, r in enumerate(table) if r.id in position]
    figures["stored and evaluation"] = max(changes, default=1.0)
    if figures["stored and evaluation"] > _TOLERANCE:
        return Finding("bundle", "wrong", text + f" But {stored_path.name} differs: the data, the weights or the protocol"
                       " have changed since. Run `modalift eval` again.", figures)
    return Finding("bundle", "good", text, figures)


# ---- checks that train ----------------------------------------------------------------------------------------------


def check_memorization(probe: Probe) -> Finding:
    """Whether a new network of the same configuration can overfit eight clips."""
    table = sample_clips(probe.experiment.train, probe.view, 8)
    if not len(table):
        return Finding("memorization", "unknown", _NO_TRAINING_CLIP)
    clips, labels = framed_clips(probe.experiment, table, probe.view)
    net = train_on_labels(probe, clips, labels, steps=150, batch=8)
    accuracy = float((predict(net, clips) == labels).mean())
    text = f"After 150 steps on {len(labels)} clips a new network predicts {accuracy:.0%} of them correctly."
    if accuracy < 1:
        return Finding("memorization", "wrong", text + " It should be all: check the readings' unit and normalization"
                       " (`modalift look`), the learning rate, and that labels belong to their clips.", {"accuracy": accuracy})
    return Finding("memorization", "good", text, {"accuracy": accuracy})


def check_shuffled_labels(probe: Probe) -> Finding:
    """Whether a new network trained on shuffled labels is at chance on the split, as it must be."""
    table = sample_clips(probe.experiment.train, probe.view, MAX_CLIPS)
    if not len(table):
        return Finding("shuffled labels", "unknown", _NO_TRAINING_CLIP)
    clips, labels = framed_clips(probe.experiment, table, probe.view)
    net = train_on_labels(probe, clips, np.random.default_rng(0).permutation(labels), steps=150, batch=32)
    predictions = predict(net, probe.clips)
    correct, expected = predictions == probe.labels, chance_accuracy(predictions, probe.labels)
    p = binomial_tail(int(correct.sum()), len(correct), expected)
    text = f"Trained on shuffled labels, the accuracy on {probe.split} clips is {correct.mean():.1%}; chance is {expected:.1%}."
    figures = {"accuracy": float(correct.mean()), "chance": expected, "p": p}
    if p < 0.001:
        return Finding("shuffled labels", "wrong", text + " Labels leak: check how evaluation computes the accuracy, and"
                       " whether clips are in both splits.", figures)
    return Finding("shuffled labels", "good", text, figures)


def train_on_labels(probe: Probe, clips: Tensor, labels: np.ndarray, *, steps: int, batch: int) -> torch.nn.Module:
    """Trains a new network of the probe's configuration with cross-entropy and AdamW, without augmentation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = networks.build(**probe.model.network.config).train()
        lr = min(probe.experiment.recipe.optim.lr, 2e-3) if probe.experiment.recipe.optim.name == "adamw" else 1e-3
        optimizer = torch.optim.AdamW(net.parameters(), lr)
        y = torch.as_tensor(labels)
        for _ in range(steps):
            chosen = torch.randperm(len(y))[:batch]
            loss = F.cross_entropy(net(clips[chosen].float()), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net.eval()


# ---- shared ---------------------------------------------------------------------------------------------------------


def compare_with(probe: Probe, clips: Tensor) -> tuple[float, float]:
    """Accuracy on changed clips, and the p-value of McNemar's test against the unchanged ones."""
    changed = probe.correct_on(clips)
    p = mcnemar(int((probe.correct & ~changed).sum()), int((~probe.correct & changed).sum()))
    return float(changed.mean()), p


def _is_larger(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a proportion is larger than another of independent clips: 0 is below the 95 % interval of their difference.

    Source: Newcombe, *Interval estimation for the difference between independent proportions: comparison of eleven methods*,
    1998, method 10.
    """
    (low, _), (_, high) = (wilson(int(x.sum()), len(x)) or (0.0, 1.0) for x in (one, other))
    below, above = float(one.mean()) - low, high - float(other.mean())
    return float(one.mean() - other.mean()) > float(np.hypot(below, above))


def chance_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Expected accuracy of these predictions in random order."""
    K = int(max(predictions.max(), labels.max())) + 1
    return float((np.bincount(predictions, minlength=K) * np.bincount(labels, minlength=K)).sum() / len(labels) ** 2)


def enter_in_ledger(probe: Probe) -> None:
    """Enters this evaluation of the test split in the run's ledger."""
    figures = {"top1": float(probe.correct.mean()), "left_out": sum(probe.left_out.values())}
    probe.run.append_to_ledger(probe.role, len(probe.labels), figures,
                    table=probe.experiment.table.fingerprint(), by="diagnose")
