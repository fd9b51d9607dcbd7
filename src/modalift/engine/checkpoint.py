"""The state of a training, and its file: all that a killed run needs to resume bit for bit."""

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
    """Weights, optimizers, moving average, random states and the position in the data.

    Attributes:
        fingerprint: of the experiment, see :meth:`Experiment.fingerprint`.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        epoch, sample: completed epochs, and samples used of the next one.
        step: completed optimizer steps.
        seconds: training time so far.
        sums: running sums of this epoch's terms, for its log entry.
        log_sizes: sizes of the log files in bytes at the last checkpoint; later lines are cut off on resume.
        best: highest selection score on validation clips so far.
        unreadable: clip -> why it could not be read when its turn came.
    """

    def __init__(self, scheme: Scheme, optimizers: dict[str, torch.optim.Optimizer], plateau: Plateau,
                 average: MovingAverage | None, scaler: torch.amp.GradScaler, fingerprint: str, precision: str) -> None:
        self.scheme, self.optimizers, self.plateau = scheme, optimizers, plateau
        self.average, self.scaler, self.fingerprint, self.precision = average, scaler, fingerprint, precision
        self.epoch = self.sample = self.step = 0
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.log_sizes: dict[str, int] = {}
        self.best = -math.inf
        self.unreadable: dict[str, str] = {}

    def save(self, path: Path) -> None:
        """Writes a checkpoint under a temporary name and renames it.

        Raises:
            ModaliftError: weights that are not finite (a gradient overflowed although the loss was finite), or a full disk.
        """
        for name, weights in self.scheme.named_parameters():
            if not torch.isfinite(weights).all():
                raise ModaliftError(f"weights '{name}' are not finite (NaN or Inf) after step {self.step} - the last"
                                    f" good checkpoint is kept ({path}); start again in another run.dir with a lower optim.lr,"
                                    " or with optim.clip_grad_norm=1")
        content = {
            "scheme": self.scheme.state_dict(),
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "plateau": self.plateau.state_dict(),
            "average": self.average.average if self.average else {},
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "position": {"epoch": self.epoch, "sample": self.sample, "step": self.step, "seconds": self.seconds,
                      "best": self.best},
            "sums": self.sums, "log_sizes": self.log_sizes, "fingerprint": self.fingerprint,
            "unreadable": self.unreadable,
        }
        write_beside(path, lambda p: torch.save(content, p))

    def load(self, path: Path) -> None:
        """Restores the state of a checkpoint.

        Raises:
            ModaliftError: a damaged file, or a checkpoint of another experiment.
        """
        content = read_checkpoint(path)
        if content["fingerprint"] != self.fingerprint:
            raise ModaliftError(f"{path.parent.parent}: this run was started with another recipe or other clips"
                                " - set run.dir to another folder, or remove this one")
        try:
            self.restore(content)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            line = " ".join(str(error).split())[:160]
            raise ModaliftError(f"{path}: a part of the training state is missing or damaged ({type(error).__name__}: {line})"
                                " - remove it to start again") from None

    def restore(self, content: dict[str, Any]) -> None:
        """Restores the content that :meth:`save` wrote."""
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
        position = content["position"]
        self.epoch, self.sample, self.step = int(position["epoch"]), int(position["sample"]), int(position["step"])
        self.seconds, self.best = float(position["seconds"]), float(position["best"])
        self.sums, self.log_sizes = dict(content["sums"]), dict(content["log_sizes"])
        self.unreadable = dict(content["unreadable"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint; only tensors and plain values are accepted, so that the file cannot run code.

    Raises:
        ModaliftError: a missing or damaged file, or one that is not a checkpoint.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below replaces torch's long warning
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModaliftError(f"{path}: no such checkpoint - remove {path.parent} to train again from the start") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, LookupError):
        raise ModaliftError(f"{path}: not a checkpoint of Modalift, or damaged; no code in it was run"
                            " - remove it to start again") from None
    if not isinstance(content, dict) or "fingerprint" not in content:
        raise ModaliftError(f"{path}: not a checkpoint of Modalift - remove it to start again")
    return content


class CheckpointTimer:
    """Decides when a checkpoint is due: every ``every`` seconds, or less often where writing takes over 2 % of the time."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.last = time.perf_counter()

    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        return time.perf_counter() - self.last >= self.every

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measures the time of writing a checkpoint."""
        started = time.perf_counter()
        yield
        self.last = time.perf_counter()
        if self.every >= 1:  # an interval below a second is kept as it is
            self.every = max(self.every, 50 * (self.last - started))
