"""The logs of a training: JSON lines, a CSV file of epochs, TensorBoard."""

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
    """The log files of a run, truncated to the last checkpoint when it resumes.

    Args:
        run: the run.
        sizes: file -> size in bytes at the last checkpoint (empty: a new run).
        tensorboard: also write event files.
        enabled: False writes nothing (all processes but the main one).
    """

    def __init__(self, run: Run, sizes: Mapping[str, int], *, tensorboard: bool = False, enabled: bool = True) -> None:
        self.files = {"log": run.log_path, "metrics": run.metrics_path} if enabled else {}
        for name, path in self.files.items():
            with disk_errors(path):
                path.touch()
                with path.open("r+b") as file:
                    file.truncate(min(sizes.get(name, 0), path.stat().st_size))
        self._writer = _summary_writer(run.tensorboard_path) if tensorboard and enabled else None

    def sizes(self) -> dict[str, int]:
        """Sizes of the files in bytes, for a checkpoint."""
        return {name: path.stat().st_size for name, path in self.files.items()}

    def write(self, entry: Mapping[str, Any]) -> None:
        """Appends a line to ``log.jsonl``, and for an epoch a row to ``metrics.csv``."""
        if not self.files:
            return
        self._append("log", json.dumps(entry) + "\n")
        if self._writer is not None:
            for key, value in _flat(entry).items():
                self._writer.add_scalar(f"{entry['kind']}/{key}", value, entry.get("step", entry["epoch"]))
        if entry["kind"] == "epoch":
            self._row(_flat(entry))

    def _row(self, values: dict[str, float]) -> None:
        path = self.files["metrics"]
        with path.open(encoding="utf-8") as file:
            header = line.split(",") if (line := file.readline().strip()) else []
        text = io.StringIO()
        names = header or list(values)
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        if not header:
            writer.writeheader()
        writer.writerow(values)
        self._append("metrics", text.getvalue())

    def _append(self, name: str, text: str) -> None:
        with disk_errors(self.files[name]), self.files[name].open("a", encoding="utf-8", newline="") as file:
            file.write(text)

    def close(self) -> None:
        """Closes TensorBoard's event files."""
        if self._writer is not None:
            self._writer.close()


def _flat(entry: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a nested entry under dotted keys (``val.student.top1``)."""
    flat: dict[str, float] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, (int, float)):
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
