"""The logs of a training: JSON lines, a CSV file of epochs, TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import disk_errors, to_json, write_text
from modalift.schemes import Terms


class Logs:
    """The log files of a run, truncated to the last checkpoint when it resumes.

    ``metrics.csv`` holds the numbers of the epochs' entries of ``log.jsonl``, one row per epoch. A column that comes after the
    first row (a validation every second epoch, a term that starts later) is added at the end; its cells are empty before.

    Args:
        run: the run.
        sizes: file -> size in bytes at the last checkpoint (empty: a new run).
        tensorboard: also write event files.
        enabled: False writes nothing (all processes but the main one).
    """

    def __init__(self, run: Run, sizes: Mapping[str, int], *, tensorboard: bool = False, enabled: bool = True) -> None:
        self.log, self.metrics, self.enabled = run.log_path, run.metrics_path, enabled
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = []
        if enabled:
            with disk_errors(self.log):
                self.log.touch()
                with self.log.open("r+b") as file:
                    file.truncate(min(sizes.get("log", 0), self.log.stat().st_size))
            self.rows = [_flat(entry) for entry in _entries(self.log) if entry.get("kind") == "epoch"]
            self._write_table()
        self._writer = _summary_writer(run.tensorboard_path) if tensorboard and enabled else None

    def sizes(self) -> dict[str, int]:
        """Sizes of the files in bytes, for a checkpoint; ``metrics.csv`` follows from ``log.jsonl``."""
        return {"log": self.log.stat().st_size} if self.enabled else {}

    def write(self, entry: Mapping[str, Any]) -> None:
        """Appends a line to ``log.jsonl``, and for an epoch a row to ``metrics.csv``."""
        if not self.enabled:
            return
        _append(self.log, to_json(entry) + "\n")
        if self._writer is not None:
            for key, value in _flat(entry).items():
                self._writer.add_scalar(f"{entry['kind']}/{key}", value, entry.get("step", entry["epoch"]))
        if entry["kind"] == "epoch":
            self.rows.append(_flat(entry))
            if set(self.rows[-1]) <= set(self.columns):
                _append(self.metrics, _csv(self.columns, self.rows[-1:]))
            else:
                self._write_table()

    def _write_table(self) -> None:
        """Writes ``metrics.csv`` with all columns that there are now."""
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        header = ",".join(self.columns) + "\n" if self.columns else ""
        write_text(self.metrics, header + _csv(self.columns, self.rows))

    def close(self) -> None:
        """Closes TensorBoard's event files."""
        if self._writer is not None:
            self._writer.close()


def _append(path: Path, text: str) -> None:
    with disk_errors(path), path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, float]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _entries(log: Path) -> Iterator[dict[str, Any]]:
    """The entries of a log; lines that are not JSON are passed over."""
    for line in log.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def _flat(entry: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a nested entry under dotted keys (``val.student.top1``)."""
    flat: dict[str, float] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, (int, float)) and math.isfinite(value):
            flat[f"{prefix}{key}"] = value
    return flat


def _summary_writer(folder: Path) -> Any:
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
    """The terms of a step, for its log entry."""
    return {"terms": {k: float(r.detach()) for k, (_, r) in terms.items()},
            "weights": {k: w for k, (w, _) in terms.items()}}


def epoch_terms(sums: dict[str, float]) -> dict[str, Any]:
    """The terms of an epoch, for its log entry: means over its steps."""
    count = sums.get("count", 1.0)
    terms = {k: v / count for k, v in sums.items() if k != "count" and not k.startswith("weight ")}
    weights = {k: sums[f"weight {k}"] for k in terms}
    return {"loss": sum(weights[k] * v for k, v in terms.items()), "terms": terms, "weights": weights}
