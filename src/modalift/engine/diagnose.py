"""Why is my accuracy wrong? Checks of a trained network, each answered in a plain sentence."""

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
from modalift.loading.collation import collate
from modalift.modalities import Table
from modalift.models import Predictions, load
from modalift.models.recognizer import RecognizerModel
from modalift.recipe import load_recipe

State = Literal["good", "look", "wrong", "unknown"]
#: At most so many clips are probed, spread over the split: enough to see what is broken, quick on a laptop.
CLIPS = 240
_BUNDLE_CLIPS = 12
_CLOSE = 1e-3


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        state: ``good``, ``look`` (may be what you want), ``wrong`` (it is not), or ``unknown`` (could not be checked).
        says: what was seen, what it means, and what to do.
        figures: the numbers behind it.
    """

    check: str
    state: State
    says: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Probe:
    """A trained network with framed clips of one split, and of training.

    Attributes:
        clips: ``(N, C, T, H, W)`` in the sensor's unit, one centered view each, without augmentation.
        labels: ``(N,)``.
        right: whether the network is right about each clip as it is.
    """

    run: Run
    role: str
    split: str
    experiment: Experiment
    model: RecognizerModel
    table: Table
    clips: Tensor
    labels: np.ndarray
    answers: np.ndarray
    right: np.ndarray

    @property
    def view(self) -> str:
        return self.model.view

    def accuracy(self, clips: Tensor, labels: np.ndarray | None = None) -> np.ndarray:
        """Whether the network is right about changed clips, ``(N,)`` bool."""
        return classify(self.model.network, clips) == (self.labels if labels is None else labels)


def diagnose(run: Run, *, full: bool = False, role: str = "", split: str = "") -> list[Finding]:
    """Probes a run's network on validation clips, or on the test split where there are none (noted in its ledger).

    Args:
        run: a finished run.
        full: also train: eight clips by heart, and shuffled labels (minutes).
        role: which network, where the run trained several.
        split: which clips.

    Raises:
        ModaliftError: an unfinished run, or a split without labeled clips of the network's sensor.
    """
    probe = prepare(run, role, split)
    checks: list[Callable[[Probe], Finding]] = [
        plainly, variety, by_heart, reversed_time, frozen, late, mirrored, swapped_colors, shipped]
    if full:
        checks += [eight_clips, shuffled_labels]
    findings = [check(probe) for check in checks]
    if probe.split == "test":
        note(probe)
    return findings


def prepare(run: Run, role: str = "", split: str = "") -> Probe:
    """The network and its clips, framed once."""
    experiment, role = assemble(load_recipe(run.folder), train=False), run.role(role)
    model = run.model(role)
    if not isinstance(model, RecognizerModel):
        raise ModaliftError(f"{run.folder}: '{role}' is a {model.kind} - diagnose looks at recognizers")
    experiment.framings = {**experiment.framings, model.view: model.framing}
    split = split or ("val" if len(experiment.table.split("val")) else "test")
    table = some(experiment.table.split(split), model.view, CLIPS)
    if not len(table):
        raise ModaliftError(f"{experiment.table.name}: the split '{split}' has no labeled clip of the view"
                            f" '{model.view}' - name another with --split")
    clips, labels = framed(experiment, table, model.view)
    answers = classify(model.network, clips)
    return Probe(run, role, split, experiment, model, table, clips, labels, answers, answers == labels)


def some(table: Table, view: str, most: int) -> Table:
    """At most so many labeled clips with a view, evenly spread."""
    known = table.where(lambda r: r.label is not None and view in r.tracks)
    if not len(known):
        return known
    chosen = np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int))
    return replace(known, rows=tuple(known.rows[i] for i in chosen.tolist()))


def framed(experiment: Experiment, table: Table, view: str) -> tuple[Tensor, np.ndarray]:
    """Clips ``(N, C, T, H, W)`` as the network receives them in evaluation, and their labels."""
    clips = experiment.clips(table, {view}, augment=False)
    batch = collate([clips[0, i] for i in clips.indices])
    return batch.clips[view], batch.labels.numpy()


@torch.no_grad()
def classify(net: torch.nn.Module, clips: Tensor) -> np.ndarray:
    """The top-1 prediction of a network for each clip."""
    net.eval()
    return torch.cat([net(part.float()).argmax(1) for part in clips.split(32)]).numpy()


# ---- probes that only look ------------------------------------------------------------------------------------------


def plainly(probe: Probe) -> Finding:
    """Accuracy as it is, beside chance."""
    found, luck = float(probe.right.mean()), chance(probe.answers, probe.labels)
    figures = {"accuracy": found, "chance": luck, "clips": float(len(probe.right))}
    odds = binomial_tail(int(probe.right.sum()), len(probe.right), luck)
    said = f"{found:.1%} of {len(probe.right)} clips ({probe.split}) are right; chance would be {luck:.1%}."
    if odds > 0.01:
        return Finding("as it is", "wrong", said + " This network knows no more than chance: look at the next lines, at"
                       " `modalift look`, and at whether the loss fell.", figures)
    return Finding("as it is", "good", said, figures)


def variety(probe: Probe) -> Finding:
    """Whether one answer swallows the others."""
    K = len(probe.model.classes)
    share = np.bincount(probe.answers, minlength=K) / len(probe.answers)
    due = np.bincount(probe.labels, minlength=K) / len(probe.labels)
    top = int((share - due).argmax())
    figures = {"largest": float(share[top]), "due": float(due[top])}
    said = f"'{probe.model.classes[top]}' is answered for {share[top]:.0%} of the clips and is right for {due[top]:.0%}."
    if share[top] > due[top] + 0.3:
        return Finding("variety of answers", "wrong", said + " The network has collapsed onto it: check the normalization"
                       " (unit of the readings), the learning rate and the balance of classes.", figures)
    return Finding("variety of answers", "good", said, figures)


def by_heart(probe: Probe) -> Finding:
    """Accuracy on training clips, seen without augmentation, against that on the split."""
    table = some(probe.experiment.train, probe.view, CLIPS)
    if not len(table):
        return Finding("training clips", "unknown", "There is no labeled training clip of this sensor.")
    clips, labels = framed(probe.experiment, table, probe.view)
    known, new = float((classify(probe.model.network, clips) == labels).mean()), float(probe.right.mean())
    figures = {"train": known, probe.split: new}
    said = f"Training clips are right for {known:.1%}, {probe.split} clips for {new:.1%}."
    if known < 0.6:
        return Finding("training clips", "look", said + " It has not even learned its training clips: train longer, raise"
                       " the learning rate or the width, or soften the augmentation.", figures)
    if known - new > 0.25:
        return Finding("training clips", "look", said + " It knows its training clips by heart: more augmentation, more"
                       " subjects, dropout or weight decay may help; so may a teacher.", figures)
    return Finding("training clips", "good", said, figures)


def reversed_time(probe: Probe) -> Finding:
    """Clips played backwards."""
    back, p = against(probe, probe.clips.flip(2))
    said = f"Played backwards, {back:.1%} are right ({probe.right.mean():.1%} forwards)."
    figures = {"forwards": float(probe.right.mean()), "backwards": back, "p": p}
    if p < 0.05 and back > probe.right.mean():
        return Finding("reversed", "wrong", said + " The clips seem to arrive in the wrong order of time: check the reading"
                       " order, and that training and evaluation read alike.", figures)
    if p >= 0.05:
        return Finding("reversed", "look", said + " No difference is shown: the network makes no use of the order of time."
                       " Fine where no two classes are each other's reverse; else use a head that knows order.", figures)
    return Finding("reversed", "good", said + " It uses the order of time.", figures)


def frozen(probe: Probe) -> Finding:
    """The middle frame, repeated."""
    middle = probe.clips[:, :, probe.clips.shape[2] // 2:][:, :, :1]
    still, p = against(probe, middle.expand_as(probe.clips))
    said = f"With the middle frame repeated, {still:.1%} are right ({probe.right.mean():.1%} in motion)."
    figures = {"moving": float(probe.right.mean()), "frozen": still, "p": p}
    if p >= 0.05 or still > probe.right.mean():
        return Finding("frozen", "look", said + " No use of motion is shown: it recognizes postures, or the scene. Check that"
                       " a clip's frames differ (`modalift look`) and that classes are not given away by the place.", figures)
    return Finding("frozen", "good", said + " It uses motion.", figures)


def late(probe: Probe) -> Finding:
    """The sensor's clock wrong by a quarter of the clip."""
    T = probe.clips.shape[2]
    shift = max(1, T // 4)
    places = (torch.arange(T) + shift).clamp_max(T - 1)
    moved, p = against(probe, probe.clips[:, :, places])
    figures = {"in time": float(probe.right.mean()), "late": moved, "p": p}
    said = f"Started {shift} of {T} frames late, {moved:.1%} are right ({probe.right.mean():.1%} in time)."
    if p < 0.05 and moved > probe.right.mean():
        return Finding("misaligned", "wrong", said + " Late is better: the clips' windows or the offset of this sensor's clock"
                       " (`offset_ms`) seem to be wrong.", figures)
    if probe.right.mean() - moved > 0.2:
        return Finding("misaligned", "look", said + " It depends on where a clip begins: where the start is not known in use,"
                       " train with temporal jitter.", figures)
    return Finding("misaligned", "good", said, figures)


def mirrored(probe: Probe) -> Finding:
    """Left and right exchanged."""
    if probe.clips.shape[-1] == 1:
        return Finding("mirrored", "unknown", "Signals are not mirrored: that would need the names of left and right.")
    swap = np.array([probe.table.mirrored.get(int(y), -1) for y in probe.labels])
    pictures = probe.clips.flip(-1)
    same, p = against(probe, pictures)
    figures = {"as it is": float(probe.right.mean()), "mirrored": same, "p": p}
    said = f"Mirrored, {same:.1%} are right ({probe.right.mean():.1%} as they are)"
    if (known := swap >= 0).any() and (swap[known] != probe.labels[known]).any():
        figures["mirrored labels"] = float(probe.accuracy(pictures, swap)[known].mean())
        said += f"; {figures['mirrored labels']:.1%} if labels are mirrored too"
    if p < 0.05 and same > probe.right.mean():
        return Finding("mirrored", "wrong", said + ". Mirrored is better: training and evaluation see the world the other way"
                       " round (a camera's selfie mode, a flip in the reader).", figures)
    return Finding("mirrored", "good", said + ".", figures)


def swapped_colors(probe: Probe) -> Finding:
    """Red and blue exchanged, as OpenCV's order of channels would."""
    if probe.clips.shape[1] != 3 or probe.clips.shape[-1] == 1:
        return Finding("BGR", "unknown", f"'{probe.view}' has no colors.")
    other, p = against(probe, probe.clips.flip(1))
    figures = {"RGB": float(probe.right.mean()), "BGR": other, "p": p}
    said = f"With red and blue exchanged, {other:.1%} are right ({probe.right.mean():.1%} as they are)."
    if p < 0.05 and other > probe.right.mean():
        return Finding("BGR", "wrong", said + " The clips seem to be BGR where the network was trained on RGB.", figures)
    return Finding("BGR", "good", said, figures)


def shipped(probe: Probe) -> Finding:
    """The bundle, asked about the recordings themselves, against evaluation now and as it was stored."""
    table = some(probe.table, probe.view, _BUNDLE_CLIPS)
    clips = probe.experiment.clips(table, {probe.view}, augment=False)
    now = probe.model.predict_clips(clips).probabilities
    with tempfile.TemporaryDirectory() as folder:
        ship(probe.run, probe.role, Path(folder) / "probe.modalift")
        bundle = load(Path(folder) / "probe.modalift")
        home = np.stack([bundle.predict(row.tracks[probe.view]).probabilities for row in table])
    gaps = np.abs(home - now).max(1)
    figures = {"clips": float(len(table)), "bundle against evaluation": float(gaps.max())}
    if gaps.max() > _CLOSE:
        return Finding("bundle", "wrong", f"The bundle and evaluation disagree about '{table[int(gaps.argmax())].id}' by"
                       f" {gaps.max():.3f}: they do not read, frame or average alike.", figures)
    said = f"The bundle answers as evaluation does on {len(table)} clips (largest difference {gaps.max():.0e})."
    stored = probe.run.predictions(probe.role, probe.split)
    if not stored.is_file():
        return Finding("bundle", "good", said, figures)
    known = Predictions.load(stored)
    place = {x: i for i, x in enumerate(known.ids.tolist())}
    old = [float(np.abs(now[i] - known.probabilities[place[r.id]]).max()) for i, r in enumerate(table) if r.id in place]
    figures["stored against evaluation"] = max(old, default=1.0)
    if figures["stored against evaluation"] > _CLOSE:
        return Finding("bundle", "wrong", said + f" But {stored.name} says something else: the data, the weights or the"
                       " protocol have changed since. Run `modalift eval` again.", figures)
    return Finding("bundle", "good", said, figures)


# ---- probes that train ----------------------------------------------------------------------------------------------


def eight_clips(probe: Probe) -> Finding:
    """A fresh network of the same kind on eight clips, until it knows them."""
    table = some(probe.experiment.train, probe.view, 8)
    clips, labels = framed(probe.experiment, table, probe.view)
    net = learn(probe, clips, labels, steps=150, batch=8)
    known = float((classify(net, clips) == labels).mean())
    said = f"A fresh network has learned {known:.0%} of {len(labels)} clips by heart in 150 steps."
    if known < 1:
        return Finding("eight clips", "wrong", said + " It should know them all: check the readings' unit and normalization"
                       " (`modalift look`), the learning rate, and that labels belong to their clips.", {"known": known})
    return Finding("eight clips", "good", said, {"known": known})


def shuffled_labels(probe: Probe) -> Finding:
    """A fresh network trained on labels dealt out at random: on new clips it must be at chance."""
    table = some(probe.experiment.train, probe.view, CLIPS)
    clips, labels = framed(probe.experiment, table, probe.view)
    net = learn(probe, clips, np.random.default_rng(0).permutation(labels), steps=150, batch=32)
    answers = classify(net, probe.clips)
    found, luck = float((answers == probe.labels).mean()), chance(answers, probe.labels)
    odds = binomial_tail(int((answers == probe.labels).sum()), len(answers), luck)
    said = f"Trained on shuffled labels, {found:.1%} of the {probe.split} clips are right; chance is {luck:.1%}."
    figures = {"accuracy": found, "chance": luck, "p": odds}
    if odds < 0.001:
        return Finding("shuffled labels", "wrong", said + " Labels reach the network by another way than training: check what"
                       " evaluation computes, and whether clips stand in both splits.", figures)
    return Finding("shuffled labels", "good", said, figures)


def learn(probe: Probe, clips: Tensor, labels: np.ndarray, *, steps: int, batch: int) -> torch.nn.Module:
    """A fresh network of the probe's kind, trained by labels alone with AdamW, no augmentation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = networks.build(**probe.model.network.config).train()
        rate = min(probe.experiment.recipe.optim.lr, 2e-3) if probe.experiment.recipe.optim.name == "adamw" else 1e-3
        optimizer = torch.optim.AdamW(net.parameters(), rate)
        y = torch.as_tensor(labels)
        for _ in range(steps):
            chosen = torch.randperm(len(y))[:batch]
            loss = F.cross_entropy(net(clips[chosen].float()), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net.eval()


# ---- words ----------------------------------------------------------------------------------------------------------


def against(probe: Probe, clips: Tensor) -> tuple[float, float]:
    """Accuracy on changed clips, and the McNemar probability that the change makes no difference."""
    changed = probe.accuracy(clips)
    p = mcnemar(int((probe.right & ~changed).sum()), int((~probe.right & changed).sum()))
    return float(changed.mean()), p


def chance(answers: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of these answers, were they dealt to the clips at random."""
    K = int(max(answers.max(), labels.max())) + 1
    return float((np.bincount(answers, minlength=K) * np.bincount(labels, minlength=K)).sum() / len(labels) ** 2)


def note(probe: Probe) -> None:
    """A line in the ledger: the test split was evaluated."""
    probe.run.enter(probe.role, len(probe.labels), {"top1": float(probe.right.mean())},
                    table=probe.experiment.table.fingerprint(), by="diagnose")
