"""What a training writes down: JSON lines, a CSV of epochs, TensorBoard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import disk_errors
from modalift.schemes import Terms


class Logs:
    """The log files of a run, cut back to the last checkpoint when it resumes.

    Args:
        run: the run.
        marks: byte lengths at the last checkpoint (empty: a new run).
        tensorboard: also write event files.
        writes: False in every process but the first.
    """

    def __init__(self, run: Run, marks: Mapping[str, int], *, tensorboard: bool = False, writes: bool = True) -> None:
        self.files = {"log": run.log, "metrics": run.metrics} if writes else {}
        for name, path in self.files.items():
            with disk_errors(path):
                path.touch()
                with path.open("r+b") as file:
                    file.truncate(min(marks.get(name, 0), path.stat().st_size))
        self._board = _board(run.tensorboard) if tensorboard and writes else None

    def marks(self) -> dict[str, int]:
        return {name: path.stat().st_size for name, path in self.files.items()}

    def write(self, entry: Mapping[str, Any]) -> None:
        """One line of ``log.jsonl``; epochs also become a row of ``metrics.csv``."""
        if not self.files:
            return
        self._append("log", json.dumps(entry) + "\n")
        if self._board is not None:
            for key, value in _flat(entry).items():
                self._board.add_scalar(f"{entry['kind']}/{key}", value, entry.get("step", entry["epoch"]))
        if entry["kind"] == "epoch":
            self._row(_flat(entry))

    def _row(self, values: dict[str, float]) -> None:
        path = self.files["metrics"]
        header = path.open().readline().strip().split(",") if path.stat().st_size else []
        text = io.StringIO()
        names = header or list(values)
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        if not header:
            writer.writeheader()
        writer.writerow(values)
        self._append("metrics", text.getvalue())

    def _append(self, name: str, text: str) -> None:
        with disk_errors(self.files[name]), self.files[name].open("a") as file:
            file.write(text)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _flat(entry: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a nested entry under joined names (``val.student.top1``)."""
    flat: dict[str, float] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, (int, float)):
            flat[f"{prefix}{key}"] = value
    return flat


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ModaliftError('run.tensorboard=true needs TensorBoard - pip install "modalift[log]"') from None
    return SummaryWriter(str(folder))


def add_terms(sums: dict[str, float], terms: Terms) -> None:
    """Adds a step's raw terms to the sums of its epoch."""
    sums["count"] = sums.get("count", 0.0) + 1
    for key, (weight, raw) in terms.items():
        sums[key] = sums.get(key, 0.0) + float(raw.detach())
        sums[f"weight {key}"] = weight


def step_terms(terms: Terms) -> dict[str, Any]:
    """A step's terms as the log has them."""
    return {"terms": {k: float(r.detach()) for k, (_, r) in terms.items()},
            "weights": {k: w for k, (w, _) in terms.items()}}


def epoch_terms(sums: dict[str, float]) -> dict[str, Any]:
    """An epoch's terms as the log has them: means over its steps."""
    count = sums.get("count", 1.0)
    terms = {k: v / count for k, v in sums.items() if k != "count" and not k.startswith("weight ")}
    weights = {k: sums[f"weight {k}"] for k in terms}
    return {"loss": sum(weights[k] * v for k, v in terms.items()), "terms": terms, "weights": weights}
