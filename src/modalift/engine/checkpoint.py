"""The state of a training: all that must survive a kill for the run to end as if nothing had happened."""

from __future__ import annotations

import math
import pickle
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from modalift.engine.optim import MovingAverage, Plateau
from modalift.errors import ModaliftError
from modalift.files import write_beside
from modalift.schemes import Scheme


class TrainingState:
    """Weights, optimizers, averages, random states and the place in the data.

    Attributes:
        precision: what is computed in.
        epoch, sample: how far training has come: whole epochs, and samples of the next one already used.
        step: optimizer steps so far.
        sums: running sums of this epoch's terms, for its log line.
        marks: byte lengths of the log files at the last checkpoint; what was written after it is cut on resume.
        best: highest selection score on validation clips so far.
    """

    def __init__(self, scheme: Scheme, optimizers: dict[str, torch.optim.Optimizer], plateau: Plateau,
                 average: MovingAverage | None, scaler: torch.amp.GradScaler, fingerprint: str, precision: str) -> None:
        self.scheme, self.optimizers, self.plateau = scheme, optimizers, plateau
        self.average, self.scaler, self.fingerprint, self.precision = average, scaler, fingerprint, precision
        self.epoch = self.sample = self.step = 0
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.marks: dict[str, int] = {}
        self.best = -math.inf

    def save(self, path: Path) -> None:
        """Writes a checkpoint beside ``path`` and renames it.

        Raises:
            ModaliftError: weights that are not finite (a gradient overflowed though the loss was finite), a full disk.
        """
        for name, weights in self.scheme.named_parameters():
            if not torch.isfinite(weights).all():
                raise ModaliftError(f"weights '{name}' are not finite after step {self.step} - the last good checkpoint is"
                                    f" kept ({path}); lower optim.lr, or set optim.clip=1")
        content = {
            "scheme": self.scheme.state_dict(),
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "plateau": self.plateau.state_dict(),
            "average": self.average.average if self.average else {},
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "place": {"epoch": self.epoch, "sample": self.sample, "step": self.step, "seconds": self.seconds,
                      "best": self.best},
            "sums": self.sums, "marks": self.marks, "fingerprint": self.fingerprint,
        }
        write_beside(path, lambda p: torch.save(content, p))

    def load(self, path: Path) -> None:
        """Continues from a checkpoint.

        Raises:
            ModaliftError: a damaged file, or one of another experiment.
        """
        content = read_checkpoint(path)
        if content["fingerprint"] != self.fingerprint:
            raise ModaliftError(f"{path.parent.parent}: this run was started with another recipe or other clips"
                                " - give run.dir another folder, or remove this one")
        self.scheme.load_state_dict(content["scheme"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        self.plateau.load_state_dict(content["plateau"])
        if self.average:
            self.average.load(content["average"])
        self.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available() and len(content["random_gpu"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(content["random_gpu"])
        place = content["place"]
        self.epoch, self.sample, self.step = place["epoch"], place["sample"], place["step"]
        self.seconds, self.best = place["seconds"], place["best"]
        self.sums, self.marks = content["sums"], content["marks"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content; tensors and plain values only, so that a stranger's file cannot run code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says at length what the error below says in a line
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModaliftError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, LookupError):
        raise ModaliftError(f"{path}: not a checkpoint of Modalift, or damaged; nothing in it was run"
                            " - remove it to start again") from None
    if not isinstance(content, dict) or "fingerprint" not in content:
        raise ModaliftError(f"{path}: not a checkpoint of Modalift - remove it to start again")
    return content


class CheckpointTimer:
    """When a checkpoint is due: every ``every`` seconds, or as rarely as keeps them under a fiftieth of the time where they
    are large."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.since = time.perf_counter()

    def due(self) -> bool:
        return time.perf_counter() - self.since >= self.every

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While one is written."""
        started = time.perf_counter()
        yield
        self.since = time.perf_counter()
        if self.every >= 1:  # who asks for less than a second means it
            self.every = max(self.every, 50 * (self.since - started))
