"""The run folder: the only module that knows the names of its files, and the only one that writes its ledger."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError, nearest
from modalift.files import disk_errors, entries, exists, is_file, is_folder, read_json, to_json, write_text
from modalift.locks import locked
from modalift.models import KINDS, Predictions, load, read_document

_MODEL = ".modalift"


@dataclass(frozen=True)
class Run:
    """The folder of one training and its evaluations.

    It holds ``recipe.yaml``, ``log.jsonl``, ``metrics.csv``, ``checkpoints/``, ``models/``, ``predictions/``,
    ``results.json``, ``test_ledger.jsonl``, ``environment.json``, ``clips.json``, ``compute.json``, ``report.html``,
    ``tensorboard/``.

    Attributes:
        folder: its path; it may not exist yet.
    """

    folder: Path

    # ---- paths ------------------------------------------------------------------------------------------------------

    @property
    def recipe_path(self) -> Path:
        """The resolved recipe."""
        return self.folder / "recipe.yaml"

    @property
    def log_path(self) -> Path:
        """The log of steps and epochs, JSON lines."""
        return self.folder / "log.jsonl"

    @property
    def metrics_path(self) -> Path:
        """The metrics of epochs, one row per epoch."""
        return self.folder / "metrics.csv"

    @property
    def tensorboard_path(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.folder / "tensorboard"

    @property
    def last_checkpoint_path(self) -> Path:
        """The checkpoint from which the same command resumes."""
        return self.folder / "checkpoints" / "last.pt"

    @property
    def best_checkpoint_path(self) -> Path:
        """The checkpoint with the best selection score on validation clips."""
        return self.folder / "checkpoints" / "best.pt"

    @property
    def results_path(self) -> Path:
        """The metrics of all evaluations."""
        return self.folder / "results.json"

    @property
    def ledger_path(self) -> Path:
        """The ledger of evaluations on the test split, one line per evaluation."""
        return self.folder / "test_ledger.jsonl"

    @property
    def environment_path(self) -> Path:
        """Versions, hardware and precision at the start of the training; written before the first step, then unchanged."""
        return self.folder / "environment.json"

    @property
    def clips_path(self) -> Path:
        """The training clips and the contents of their files, and those of the held-out splits; written before the first
        step, then unchanged."""
        return self.folder / "clips.json"

    @property
    def compute_path(self) -> Path:
        """The compute that the training took, and its clips; written last, so a run that has this file is finished."""
        return self.folder / "compute.json"

    @property
    def lock_path(self) -> Path:
        """The file whose lock a training holds."""
        return self.folder / ".lock"

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    def model_path(self, role: str) -> Path:
        """The file of one trained model."""
        return self.folder / "models" / f"{role}{_MODEL}"

    def model_paths(self) -> list[Path]:
        """The files of models that exist, valid or damaged."""
        return sorted(p for p in (self.folder / "models").glob(f"*{_MODEL}") if p.name[0] != ".")

    def predictions_path(self, role: str, key: str) -> Path:
        """The predictions of one model on one split; ``key`` may name other conditions than the recipe's, too."""
        return self.folder / "predictions" / f"{role}-{re.sub(r'[^A-Za-z0-9]+', '-', key)}.npz"

    # ---- reading ----------------------------------------------------------------------------------------------------

    @property
    def short_name(self) -> str:
        """The folder's name; of a seed or fold with its parent's (``single_depth/seed0``)."""
        folder = Path(os.path.realpath(self.folder))
        return f"{folder.parent.name}/{folder.name}" if folder.name.startswith(("seed", "fold")) else folder.name

    @property
    def finished(self) -> bool:
        """Whether the training has ended and all its models are written."""
        return is_file(self.compute_path)

    @property
    def begun(self) -> bool:
        """Whether a training was started in this folder; in a cross-validation only the folders of its folds have one."""
        traces = (self.environment_path, self.log_path, self.last_checkpoint_path, self.compute_path)
        return any(exists(path) for path in traces)

    @property
    def occupied(self) -> bool:
        """Whether the folder holds files but no run.

        Names that start with a dot are ignored: incomplete files of a process that was killed, or of another rank.
        """
        return is_folder(self.folder) and not is_file(self.recipe_path) and bool(entries(self.folder))

    def folds(self) -> list[Run]:
        """The runs of a cross-validation's folds, in order; none for an ordinary run."""
        found = [Run(p) for p in self.folder.glob("fold*") if re.fullmatch(r"fold\d+", p.name)]
        return sorted(found, key=lambda r: int(r.folder.name.removeprefix("fold")))

    def roles(self) -> list[str]:
        """The roles of the run's models: first those that can be deployed, then those that are only evaluated.

        Of a cross-validation: the roles that every fold has.
        """
        parts = self.folds()
        if parts:
            first, *others = (part.roles() for part in parts)
            return [role for role in first if all(role in other for other in others)]
        return sorted((p.stem for p in self.model_paths()), key=lambda role: not self.ships(role))

    def ships(self, role: str) -> bool:
        """Whether a model can be deployed: only models of one sensor can."""
        return KINDS[self.describe(role)["kind"]].deployable

    def describe(self, role: str) -> dict[str, Any]:
        """The description in a model's file (``kind``, ``network``, ``classes``, ...), without its weights."""
        return read_document((self.folds() or [self])[0].model_path(role))

    def resolve_role(self, requested: str = "") -> str:
        """The requested role; without a request ``student``, or else the only role that can be deployed.

        Raises:
            ModaliftError: the run is not finished, the role does not exist, or the choice is not unique.
        """
        roles = self.roles()
        if not roles or not all(part.finished for part in self.folds() or [self]):
            raise ModaliftError(f"{self.folder}: no trained network - finish it with `modalift train {self.folder}`")
        if requested:
            if requested not in roles:
                raise ModaliftError(f"{self.folder}: no network in the role '{requested}' - {nearest(requested, roles)}")
            return requested
        deployable = [role for role in roles if self.ships(role)]
        if len(deployable) == 1 or "student" in deployable:
            return "student" if "student" in deployable else deployable[0]
        raise ModaliftError(f"{self.folder} trained {', '.join(deployable)} - name one, e.g. --student {deployable[0]}"
                            f" (for a network's init: networks.ROLE.role={deployable[0]})")

    def model(self, role: str = "") -> Any:
        """Loads a trained model of the run; see :meth:`resolve_role` for the default.

        Raises:
            ModaliftError: as :meth:`resolve_role`, a damaged file, or a cross-validation, which has one model per fold.
        """
        if self.folds():
            raise ModaliftError(f"{self.folder} is a cross-validation with a model per fold - name the run of one fold,"
                                f" e.g. {self.folds()[0].folder}")
        return load(self.model_path(self.resolve_role(role)))

    def compute(self) -> dict[str, Any]:
        """``compute.json``: multiply-accumulates, seconds and clips of the training; empty before it is finished."""
        advice = f"`modalift train {self.folder}` writes it again"
        return read_json(self.compute_path, dict, advice, _is_compute) if is_file(self.compute_path) else {}

    def results(self) -> dict[str, Any]:
        """``results.json``: role -> split -> metrics; empty before the first evaluation.

        A key is a split, or a split with the conditions that differ from the run's recipe (``test, 10x3 crops``).
        """
        advice = f"`modalift eval {self.folder}` writes it again"
        return read_json(self.results_path, dict, advice, _is_results) if is_file(self.results_path) else {}

    # ---- writing ------------------------------------------------------------------------------------------------------

    def save_results(self, split: str, results: Mapping[str, tuple[str, dict[str, Any]]], table: str) -> None:
        """Adds the results of one split to ``results.json``; those of the test split also to the ledger.

        Args:
            split: name of the split.
            results: role -> key (see :meth:`results`) and metrics.
            table: the fingerprint of the table.
        """
        with locked(self.folder / ".results.lock", lambda holder: None):  # another evaluation may add its own
            stored = self.results()
            for role, (key, metrics) in results.items():
                stored.setdefault(role, {})[key] = metrics
            write_text(self.results_path, to_json(stored))
        for role, (key, metrics) in results.items() if split == "test" else ():
            headline = KINDS[metrics["kind"]].headline
            notes = {"table": table} if key == split else {"table": table, "conditions": key.removeprefix(f"{split}, ")}
            covered = metrics.get("coverage")
            out = {"left_out": covered["clips"] - covered["scored"]} if covered else {}
            self.append_to_ledger(role, metrics["n"], {headline.key: headline.of(metrics), **out}, **notes)

    def append_to_ledger(self, role: str, clips: int, figures: Mapping[str, float], **notes: str) -> None:
        """Appends one evaluation on the test split to the ledger.

        Every evaluation on the test split makes later choices less independent of it, so the report counts these lines.

        Args:
            role: what was evaluated.
            clips: number of clips.
            figures: metric -> value.
            notes: further text, e.g. ``table`` (its fingerprint) or ``by`` (the command).
        """
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = to_json({"when": when, "role": role, **notes, "clips": clips, **figures})
        with disk_errors(self.ledger_path), self.ledger_path.open("a", encoding="utf-8") as ledger:
            ledger.write(line + "\n")

    def save_predictions(self, role: str, key: str, predictions: Predictions | None) -> None:
        """Writes the predictions of one model on one split; nothing for a model without classes (None)."""
        if predictions is not None:
            predictions.save(self.predictions_path(role, key))


def _is_compute(held: dict[str, Any]) -> bool:
    return {"fingerprint", "precision"} <= set(held)


def _is_results(held: dict[str, Any]) -> bool:
    metrics = [m for splits in held.values() for m in (splits.values() if isinstance(splits, dict) else [None])]
    return all(isinstance(m, dict) and isinstance(m.get("kind"), str) and isinstance(m.get("n"), int) for m in metrics)


def open_run(folder: str | Path) -> Run:
    """An existing run folder.

    Raises:
        ModaliftError: the folder holds no run.
    """
    run = Run(Path(folder))
    if not is_file(run.recipe_path):
        raise ModaliftError(f"{folder}: not a run folder (it has no recipe.yaml) - give the run.dir of a training")
    return run
