"""Why is my accuracy wrong? Probes of a trained network, each with an answer in a plain sentence."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table as RichTable
from torch import Tensor

from modalift import networks
from modalift.deploy.bundle import load as load_bundle
from modalift.engine.evaluate import answer
from modalift.engine.experiment import Experiment, assemble
from modalift.engine.run import Run, Trained
from modalift.engine.ship import ship
from modalift.engine.statistics import Predictions, binomial_tail, mcnemar
from modalift.errors import ModaliftError
from modalift.loading.clips import collate
from modalift.modalities import Table
from modalift.recipe import load_recipe

State = Literal["good", "look", "wrong", "unknown"]
#: At most so many clips are probed, spread over the split: enough to see what is broken, quick on a laptop.
CLIPS = 240
_BUNDLE_CLIPS = 12
_CLOSE = 1e-3


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    Attributes:
        probe: its name.
        state: ``good``, ``look`` (may be what you want), ``wrong`` (it is not), or ``unknown`` (could not be probed).
        says: what was seen, what it means, and what to do.
        figures: the numbers behind it.
    """

    probe: str
    state: State
    says: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Patient:
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
    trained: Trained
    table: Table
    clips: Tensor
    labels: np.ndarray
    answers: np.ndarray
    right: np.ndarray

    @property
    def view(self) -> str:
        return self.trained.net.view

    def accuracy(self, clips: Tensor, labels: np.ndarray | None = None) -> np.ndarray:
        """Whether the network is right about changed clips, ``(N,)`` bool."""
        return ask(self.trained.net, clips) == (self.labels if labels is None else labels)


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
    patient = admit(run, role, split)
    probes: list[Callable[[Patient], Finding]] = [
        plainly, variety, by_heart, reversed_time, frozen, late, mirrored, swapped_colors, shipped]
    if full:
        probes += [eight_clips, shuffled_labels]
    findings = [probe(patient) for probe in probes]
    if patient.split == "test":
        note(patient)
    return findings


def admit(run: Run, role: str = "", split: str = "") -> Patient:
    """The network and its clips, framed once."""
    recipe = load_recipe(run.folder)
    experiment, role = assemble(recipe, train=False), run.role(role)
    trained = run.trained(role)
    experiment.framings[trained.net.view] = trained.framing
    split = split or ("val" if len(experiment.table.split("val")) else "test")
    table = some(experiment.table.split(split), trained.net.view, CLIPS)
    if not len(table):
        raise ModaliftError(f"{experiment.table.name}: the split '{split}' has no labeled clip of the view"
                            f" '{trained.net.view}' - name another with --split")
    clips, labels = framed(experiment, table, trained.net.view)
    answers = ask(trained.net, clips)
    return Patient(run, role, split, experiment, trained, table, clips, labels, answers, answers == labels)


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
def ask(net: torch.nn.Module, clips: Tensor) -> np.ndarray:
    """The class that a network answers for each clip."""
    net.eval()
    return torch.cat([net(part.float()).argmax(1) for part in clips.split(32)]).numpy()


# ---- probes that only look ------------------------------------------------------------------------------------------


def plainly(patient: Patient) -> Finding:
    """Accuracy as it is, beside chance."""
    found, luck = float(patient.right.mean()), chance(patient.answers, patient.labels)
    figures = {"accuracy": found, "chance": luck, "clips": float(len(patient.right))}
    odds = binomial_tail(int(patient.right.sum()), len(patient.right), luck)
    said = f"{found:.1%} of {len(patient.right)} clips ({patient.split}) are right; chance would be {luck:.1%}."
    if odds > 0.01:
        return Finding("as it is", "wrong", said + " This network knows no more than chance: look at the next lines, at"
                       " `modalift look`, and at whether the loss fell.", figures)
    return Finding("as it is", "good", said, figures)


def variety(patient: Patient) -> Finding:
    """Whether one answer swallows the others."""
    K = len(patient.trained.classes)
    share = np.bincount(patient.answers, minlength=K) / len(patient.answers)
    due = np.bincount(patient.labels, minlength=K) / len(patient.labels)
    top = int((share - due).argmax())
    figures = {"largest": float(share[top]), "due": float(due[top])}
    said = f"'{patient.trained.classes[top]}' is answered for {share[top]:.0%} of the clips and is right for {due[top]:.0%}."
    if share[top] > due[top] + 0.3:
        return Finding("variety of answers", "wrong", said + " The network has collapsed onto it: check the normalization"
                       " (unit of the readings), the learning rate and the balance of classes.", figures)
    return Finding("variety of answers", "good", said, figures)


def by_heart(patient: Patient) -> Finding:
    """Accuracy on training clips, seen without augmentation, against that on the split."""
    table = some(patient.experiment.train, patient.view, CLIPS)
    if not len(table):
        return Finding("training clips", "unknown", "There is no labeled training clip of this sensor.")
    clips, labels = framed(patient.experiment, table, patient.view)
    known, new = float((ask(patient.trained.net, clips) == labels).mean()), float(patient.right.mean())
    figures = {"train": known, patient.split: new}
    said = f"Training clips are right for {known:.1%}, {patient.split} clips for {new:.1%}."
    if known < 0.6:
        return Finding("training clips", "look", said + " It has not even learned its training clips: train longer, raise"
                       " the learning rate or the width, or soften the augmentation.", figures)
    if known - new > 0.25:
        return Finding("training clips", "look", said + " It knows its training clips by heart: more augmentation, more"
                       " subjects, dropout or weight decay may help; so may a teacher.", figures)
    return Finding("training clips", "good", said, figures)


def reversed_time(patient: Patient) -> Finding:
    """Clips played backwards."""
    back, p = against(patient, patient.clips.flip(2))
    said = f"Played backwards, {back:.1%} are right ({patient.right.mean():.1%} forwards)."
    figures = {"forwards": float(patient.right.mean()), "backwards": back, "p": p}
    if p < 0.05 and back > patient.right.mean():
        return Finding("reversed", "wrong", said + " The clips seem to arrive in the wrong order of time: check the reading"
                       " order, and that training and evaluation read alike.", figures)
    if p >= 0.05:
        return Finding("reversed", "look", said + " No difference is shown: the network makes no use of the order of time."
                       " Fine where no two classes are each other's reverse; else use a head that knows order.", figures)
    return Finding("reversed", "good", said + " It uses the order of time.", figures)


def frozen(patient: Patient) -> Finding:
    """The middle frame, repeated."""
    middle = patient.clips[:, :, patient.clips.shape[2] // 2:][:, :, :1]
    still, p = against(patient, middle.expand_as(patient.clips))
    said = f"With the middle frame repeated, {still:.1%} are right ({patient.right.mean():.1%} in motion)."
    figures = {"moving": float(patient.right.mean()), "frozen": still, "p": p}
    if p >= 0.05 or still > patient.right.mean():
        return Finding("frozen", "look", said + " No use of motion is shown: it recognizes postures, or the scene. Check that"
                       " a clip's frames differ (`modalift look`) and that classes are not given away by the place.", figures)
    return Finding("frozen", "good", said + " It uses motion.", figures)


def late(patient: Patient) -> Finding:
    """The sensor's clock wrong by a quarter of the clip."""
    T = patient.clips.shape[2]
    shift = max(1, T // 4)
    places = (torch.arange(T) + shift).clamp_max(T - 1)
    moved, p = against(patient, patient.clips[:, :, places])
    figures = {"in time": float(patient.right.mean()), "late": moved, "p": p}
    said = f"Started {shift} of {T} frames late, {moved:.1%} are right ({patient.right.mean():.1%} in time)."
    if p < 0.05 and moved > patient.right.mean():
        return Finding("misaligned", "wrong", said + " Late is better: the clips' windows or the offset of this sensor's clock"
                       " (`offset_ms`) seem to be wrong.", figures)
    if patient.right.mean() - moved > 0.2:
        return Finding("misaligned", "look", said + " It depends on where a clip begins: where the start is not known in use,"
                       " train with temporal jitter.", figures)
    return Finding("misaligned", "good", said, figures)


def mirrored(patient: Patient) -> Finding:
    """Left and right exchanged."""
    if patient.clips.shape[-1] == 1:
        return Finding("mirrored", "unknown", "Signals are not mirrored: that would need the names of left and right.")
    swap = np.array([patient.table.mirrored.get(int(y), -1) for y in patient.labels])
    pictures = patient.clips.flip(-1)
    same, p = against(patient, pictures)
    figures = {"as it is": float(patient.right.mean()), "mirrored": same, "p": p}
    said = f"Mirrored, {same:.1%} are right ({patient.right.mean():.1%} as they are)"
    if (known := swap >= 0).any() and (swap[known] != patient.labels[known]).any():
        figures["mirrored labels"] = float(patient.accuracy(pictures, swap)[known].mean())
        said += f"; {figures['mirrored labels']:.1%} if labels are mirrored too"
    if p < 0.05 and same > patient.right.mean():
        return Finding("mirrored", "wrong", said + ". Mirrored is better: training and evaluation see the world the other way"
                       " round (a camera's selfie mode, a flip in the reader).", figures)
    return Finding("mirrored", "good", said + ".", figures)


def swapped_colors(patient: Patient) -> Finding:
    """Red and blue exchanged, as OpenCV's order of channels would."""
    if patient.clips.shape[1] != 3 or patient.clips.shape[-1] == 1:
        return Finding("BGR", "unknown", f"'{patient.view}' has no colors.")
    other, p = against(patient, patient.clips.flip(1))
    figures = {"RGB": float(patient.right.mean()), "BGR": other, "p": p}
    said = f"With red and blue exchanged, {other:.1%} are right ({patient.right.mean():.1%} as they are)."
    if p < 0.05 and other > patient.right.mean():
        return Finding("BGR", "wrong", said + " The clips seem to be BGR where the network was trained on RGB.", figures)
    return Finding("BGR", "good", said, figures)


def shipped(patient: Patient) -> Finding:
    """The bundle, asked about the recordings themselves, against evaluation now and as it was stored."""
    table = some(patient.table, patient.view, _BUNDLE_CLIPS)
    clips = patient.experiment.clips(table, {patient.view}, augment=False)
    now = answer(patient.trained.net, clips)
    with tempfile.TemporaryDirectory() as folder:
        ship(patient.run, patient.role, Path(folder) / "probe.modalift")
        bundle = load_bundle(Path(folder) / "probe.modalift")
        home = np.stack([bundle.predict(row.tracks[patient.view]).probabilities for row in table])
    gaps = np.abs(home - now).max(1)
    figures = {"clips": float(len(table)), "bundle against evaluation": float(gaps.max())}
    if gaps.max() > _CLOSE:
        return Finding("bundle", "wrong", f"The bundle and evaluation disagree about '{table[int(gaps.argmax())].id}' by"
                       f" {gaps.max():.3f}: they do not read, frame or average alike.", figures)
    said = f"The bundle answers as evaluation does on {len(table)} clips (largest difference {gaps.max():.0e})."
    stored = patient.run.predictions(patient.role, patient.split)
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


def eight_clips(patient: Patient) -> Finding:
    """A fresh network of the same kind on eight clips, until it knows them."""
    table = some(patient.experiment.train, patient.view, 8)
    clips, labels = framed(patient.experiment, table, patient.view)
    net = learn(patient, clips, labels, steps=150, batch=8)
    known = float((ask(net, clips) == labels).mean())
    said = f"A fresh network has learned {known:.0%} of {len(labels)} clips by heart in 150 steps."
    if known < 1:
        return Finding("eight clips", "wrong", said + " It should know them all: check the readings' unit and normalization"
                       " (`modalift look`), the learning rate, and that labels belong to their clips.", {"known": known})
    return Finding("eight clips", "good", said, {"known": known})


def shuffled_labels(patient: Patient) -> Finding:
    """A fresh network trained on labels dealt out at random: on new clips it must be at chance."""
    table = some(patient.experiment.train, patient.view, CLIPS)
    clips, labels = framed(patient.experiment, table, patient.view)
    net = learn(patient, clips, np.random.default_rng(0).permutation(labels), steps=150, batch=32)
    answers = ask(net, patient.clips)
    found, luck = float((answers == patient.labels).mean()), chance(answers, patient.labels)
    odds = binomial_tail(int((answers == patient.labels).sum()), len(answers), luck)
    said = f"Trained on shuffled labels, {found:.1%} of the {patient.split} clips are right; chance is {luck:.1%}."
    figures = {"accuracy": found, "chance": luck, "p": odds}
    if odds < 0.001:
        return Finding("shuffled labels", "wrong", said + " Labels reach the network by another way than training: check what"
                       " evaluation computes, and whether clips stand in both splits.", figures)
    return Finding("shuffled labels", "good", said, figures)


def learn(patient: Patient, clips: Tensor, labels: np.ndarray, *, steps: int, batch: int) -> torch.nn.Module:
    """A fresh network of the patient's kind, trained by labels alone with AdamW, no augmentation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = networks.build(**patient.trained.net.config).train()
        rate = min(patient.experiment.recipe.optim.lr, 2e-3) if patient.experiment.recipe.optim.name == "adamw" else 1e-3
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


def against(patient: Patient, clips: Tensor) -> tuple[float, float]:
    """Accuracy on changed clips, and the McNemar probability that the change makes no difference."""
    changed = patient.accuracy(clips)
    p = mcnemar(int((patient.right & ~changed).sum()), int((~patient.right & changed).sum()))
    return float(changed.mean()), p


def chance(answers: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of these answers, were they dealt to the clips at random."""
    K = int(max(answers.max(), labels.max())) + 1
    return float((np.bincount(answers, minlength=K) * np.bincount(labels, minlength=K)).sum() / len(labels) ** 2)


def note(patient: Patient) -> None:
    """A line in the ledger: the test split was looked at."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (patient.run.folder / "test_ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps({"when": when, "role": patient.role, "table": patient.experiment.table.fingerprint(),
                                 "clips": len(patient.labels), "top1": float(patient.right.mean()), "by": "diagnose"}) + "\n")


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(f) for f in findings]


def render(findings: Sequence[Finding]) -> RichTable:
    """The findings as a table for the terminal."""
    colors = {"good": "green", "look": "yellow", "wrong": "bold red", "unknown": "dim"}
    table = RichTable(title="why is my accuracy what it is?", title_justify="left", show_lines=True)
    for name in ("probe", "state", "what was found"):
        table.add_column(name)
    for f in findings:
        table.add_row(f.probe, f"[{colors[f.state]}]{f.state}[/]", f.says.replace("[", r"\["))
    return table
