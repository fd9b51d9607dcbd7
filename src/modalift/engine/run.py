"""The run folder: what an experiment leaves, and how later ones read it. Nobody else knows the names of its files."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError, nearest
from modalift.files import disk_errors, read_json, write_text
from modalift.models import KINDS, Predictions, load, read_document

_MODEL = ".modalift"


@dataclass(frozen=True)
class Run:
    """A folder: ``recipe.yaml``, ``log.jsonl``, ``metrics.csv``, ``checkpoints/``, ``models/``, ``predictions/``,
    ``results.json``, ``test_ledger.jsonl``, ``environment.json``, ``compute.json``, ``report.html``, ``tensorboard/``."""

    folder: Path

    # ---- files ------------------------------------------------------------------------------------------------------

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def last(self) -> Path:
        """The checkpoint from which the same command goes on."""
        return self.folder / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best figures on validation clips."""
        return self.folder / "checkpoints" / "best.pt"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def ledger(self) -> Path:
        """Every evaluation on the test split, a line each."""
        return self.folder / "test_ledger.jsonl"

    @property
    def environment(self) -> Path:
        """Versions, hardware and precision with which it began; written before the first step, and then left."""
        return self.folder / "environment.json"

    @property
    def cost(self) -> Path:
        """What the training cost, and on which clips; written last, so a run that has it is finished."""
        return self.folder / "compute.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def model_file(self, role: str) -> Path:
        return self.folder / "models" / f"{role}{_MODEL}"

    def model_files(self) -> list[Path]:
        """The models that are there, whole or not."""
        return sorted(p for p in (self.folder / "models").glob(f"*{_MODEL}") if p.name[0] != ".")

    def predictions(self, role: str, split: str) -> Path:
        return self.folder / "predictions" / f"{role}-{split}.npz"

    # ---- what it holds ----------------------------------------------------------------------------------------------

    @property
    def short_name(self) -> str:
        """The folder, with its parent where the folder alone would say little (``single_depth/seed0``)."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if folder.name.startswith(("seed", "fold")) else folder.name

    @property
    def finished(self) -> bool:
        return self.cost.is_file()

    @property
    def occupied(self) -> bool:
        """Whether the folder holds something that is no run.

        Names with a dot are files half written by a process that was killed, or by another rank that is a moment ahead.
        """
        return self.folder.is_dir() and not self.recipe.is_file() and any(p.name[0] != "." for p in self.folder.iterdir())

    def folds(self) -> list[Run]:
        """The runs of a cross-validation's folds, in order; none for an ordinary run."""
        found = [Run(p) for p in self.folder.glob("fold*") if re.fullmatch(r"fold\d+", p.name)]
        return sorted(found, key=lambda r: int(r.folder.name.removeprefix("fold")))

    def roles(self) -> list[str]:
        """The models of the run; those that ship first, then those that are only evaluated.

        Of a cross-validation: the models that every fold has.
        """
        parts = self.folds()
        if parts:
            first, *others = (part.roles() for part in parts)
            return [role for role in first if all(role in other for other in others)]
        return sorted((p.stem for p in self.model_files()), key=lambda role: not self.ships(role))

    def ships(self, role: str) -> bool:
        """Whether a model can be deployed: only one of a single sensor can."""
        return KINDS[self.describe(role)["kind"]].deployable

    def describe(self, role: str) -> dict[str, Any]:
        """The description in a model's file (``kind``, ``network``, ``classes``, ...), without its weights."""
        return read_document((self.folds() or [self])[0].model_file(role))

    def role(self, wanted: str = "") -> str:
        """The role asked for, or where none is, the only one that ships, or ``student``.

        Raises:
            ModaliftError: the run is not finished, or the role is not there or not unique.
        """
        roles = self.roles()
        if not roles or not all(part.finished for part in self.folds() or [self]):
            raise ModaliftError(f"{self.folder}: no trained network - finish it with `modalift train {self.folder}`")
        if wanted:
            if wanted not in roles:
                raise ModaliftError(f"{self.folder}: no network in the role '{wanted}' - {nearest(wanted, roles)}")
            return wanted
        shipping = [role for role in roles if self.ships(role)]
        if len(shipping) == 1 or "student" in shipping:
            return "student" if "student" in shipping else shipping[0]
        raise ModaliftError(f"{self.folder} trained {', '.join(shipping)} - say which, e.g. --student {shipping[0]}")

    def model(self, role: str = "") -> Any:
        """A trained model of the run."""
        return load(self.model_file(self.role(role)))

    def compute(self) -> dict[str, Any]:
        """What the training cost; empty where it is not finished."""
        advice = f"`modalift train {self.folder}` writes it again"
        return read_json(self.cost, dict, advice) if self.cost.is_file() else {}

    def measured(self) -> dict[str, Any]:
        """``results.json``: role -> split -> metrics; empty where nothing was evaluated."""
        advice = f"`modalift eval {self.folder}` writes it again"
        return read_json(self.results, dict, advice) if self.results.is_file() else {}

    # ---- what is written ----------------------------------------------------------------------------------------------

    def record(self, split: str, results: Mapping[str, dict[str, Any]], table: str) -> None:
        """Results of one split, beside those that are there; of the test split, each is also entered in the ledger.

        Args:
            split: which clips.
            results: role -> metrics.
            table: the fingerprint of the clips.
        """
        held = self.measured()
        for role, metrics in results.items():
            held.setdefault(role, {})[split] = metrics
        write_text(self.results, json.dumps(held))
        for role, metrics in results.items() if split == "test" else ():
            headline = KINDS[metrics["kind"]].headline
            self.enter(role, metrics["n"], {headline.key: headline.of(metrics)}, table=table)

    def enter(self, role: str, clips: int, figures: Mapping[str, float], **facts: str) -> None:
        """A line in the ledger: the test split was evaluated. A figure that was seen ten times is worth less than one that
        was seen once, so the report counts these lines."""
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({"when": when, "role": role, **facts, "clips": clips, **figures})
        with disk_errors(self.ledger), self.ledger.open("a", encoding="utf-8") as ledger:
            ledger.write(line + "\n")

    def keep(self, role: str, split: str, found: Predictions | None) -> None:
        """Predictions of one model on one split, where it makes any."""
        if found is not None:
            found.save(self.predictions(role, split))


def open_run(folder: str | Path) -> Run:
    """An existing run folder."""
    run = Run(Path(folder))
    if not run.recipe.is_file():
        raise ModaliftError(f"{folder}: not a run folder (it has no recipe.yaml) - give the run.dir of a training")
    return run
