"""`modalift fuse`: the mean of what finished networks answer, on the clips that all of them saw."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modalift.engine.evaluate import evaluate
from modalift.engine.metrics import score
from modalift.engine.run import Run
from modalift.engine.statistics import Predictions
from modalift.errors import ModaliftError, nearest


@dataclass(frozen=True)
class Voice:
    """One network of a run, and what it answered."""

    run: Run
    role: str
    answers: Predictions

    @property
    def name(self) -> str:
        """The folder (with its parent where the folder alone says little) and the role."""
        folder = self.run.folder.resolve()
        short = f"{folder.parent.name}/{folder.name}" if folder.name.startswith(("seed", "fold")) else folder.name
        return f"{short}:{self.role}"


def fuse(runs: Sequence[Run], split: str = "test", roles: Sequence[str] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    r"""Late fusion: the mean of several networks' probabilities.

    .. math:: p = \frac{1}{M} \sum_m \mathrm{softmax}(z_m)

    Networks that were not evaluated on the split yet are, as `modalift eval` does. Nothing else is written but, for the test
    split, a line in the ledger of every run: this was a look at it.

    Args:
        runs: finished runs; one that trained several networks gives all of them.
        split: ``test``, ``val`` or ``train``.
        roles: of each run, only the networks in these roles.
        overrides: see :func:`~modalift.engine.evaluate.evaluate`.

    Returns:
        ``{"split", "members": {name: metrics}, "fusion": metrics, "left_out": n}``: everything on the common clips, whose
        number is ``n`` of any metrics; ``left_out`` clips lack the sensor of some network.

    Raises:
        ModaliftError: fewer than two networks, a role that no run has, networks of other classes, no common clip, labels
            that differ.

    Source: MTUT, section 4.4 (there MTUT with a superscript F).
    """
    for role in roles:
        known = sorted({r for run in runs for r in _roles(run)})
        if role not in known:
            raise ModaliftError(f"no run has a network in the role '{role}' - {nearest(role, known)}")
    asked = [(run, role) for run in runs for role in _roles(run) if not roles or role in roles]
    if len(asked) < 2:
        raise ModaliftError(f"fusion takes two networks or more, and there is {len(asked)} - give further runs, or fewer"
                            " --student")
    first, classes = asked[0], _classes(*asked[0])
    for run, role in asked[1:]:
        if _classes(run, role) != classes:
            raise ModaliftError(f"{run.folder}: '{role}' knows the classes {_few(_classes(run, role))}, '{first[1]}' of"
                                f" {first[0].folder} knows {_few(classes)} - fuse networks of the same classes")
    asked_of = [Voice(run, role, _answers(run, role, split, overrides)) for run, role in asked]
    voices = _common(asked_of, split)
    names = [v.name for v in voices]
    if len(set(names)) < len(names):
        names = [f"{v.run.folder}:{v.role}" for v in voices]
    if len(set(names)) < len(names):
        raise ModaliftError(f"{voices[0].run.folder}: given twice - name each run once")
    one = voices[0].answers

    def scored(probabilities: np.ndarray) -> dict[str, Any]:
        return score(probabilities, one.labels, classes, subjects=one.subjects, facts=dict(one.facts))

    mean = np.mean([v.answers.probabilities.astype(np.float64) for v in voices], 0)
    everything = set().union(*(v.answers.ids.tolist() for v in asked_of))
    whole = scored(mean)
    found = {"split": split, "members": {n: scored(v.answers.probabilities) for n, v in zip(names, voices, strict=True)},
             "fusion": whole, "left_out": len(everything) - len(one)}
    if split == "test":
        _enter([v.run for v in voices], names, whole)
    return found


def _roles(run: Run) -> list[str]:
    parts = run.folds() or [run]
    for part in parts:
        part.role(next(iter(part.roles()), ""))  # refuses an unfinished one
    return parts[0].roles()


def _classes(run: Run, role: str) -> tuple[str, ...]:
    found = (run.folds() or [run])[0].trained(role).classes
    if not found:
        raise ModaliftError(f"{run.folder}: '{role}' tells no classes apart - fuse networks that do")
    return found


def _answers(run: Run, role: str, split: str, overrides: Sequence[str]) -> Predictions:
    path = run.predictions(role, split)
    if overrides or not path.is_file():
        evaluate(run, split, [role], overrides)
    return Predictions.load(path)


def _common(voices: Sequence[Voice], split: str) -> list[Voice]:
    """The answers of all networks about the clips that all of them saw, in one order."""
    first = voices[0].answers
    shared = set(first.ids.tolist()).intersection(*(v.answers.ids.tolist() for v in voices[1:]))
    ids = [x for x in first.ids.tolist() if x in shared]
    if not ids:
        raise ModaliftError(f"no clip of the split '{split}' was seen by all of {', '.join(v.name for v in voices)} - fuse runs"
                            " of one table, whose sensors recorded the same clips")
    kept: list[Voice] = []
    for v in voices:
        place = {x: i for i, x in enumerate(v.answers.ids.tolist())}
        own = v.answers.take(np.array([place[x] for x in ids], dtype=np.int64))
        if kept and (differ := own.labels != kept[0].answers.labels).any():
            k = int(differ.argmax())
            raise ModaliftError(f"clip '{ids[k]}' has label {kept[0].answers.labels[k]} for {kept[0].name} and {own.labels[k]}"
                                f" for {v.name} - fuse runs of one table")
        kept.append(Voice(v.run, v.role, own))
    return kept


def _enter(runs: Sequence[Run], names: Sequence[str], metrics: dict[str, Any]) -> None:
    """A look at the test split, in the ledger of every run that took part."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = json.dumps({"when": when, "role": f"mean of {', '.join(names)}", "clips": metrics["n"], "top1": metrics["top1"]})
    for folder in dict.fromkeys(run.folder for run in runs):
        with (folder / "test_ledger.jsonl").open("a") as ledger:
            ledger.write(line + "\n")


def _few(classes: Sequence[str]) -> str:
    return f"{', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''} ({len(classes)})"
