"""A kind of model in one file, as a user might write it: a network that estimates the mean reading of a clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.modalities import Batch
from modalift.models import Column, Evaluation, SensorModel, model_kind
from modalift.networks import Network, NetworkSpec, network
from modalift.schemes import Progress, Scheme, Terms, scheme


class Meter(Network):
    """``net(clip) -> (B,)``, a linear function of the mean reading."""

    kind = "meter"

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.fit = nn.Linear(1, 1)

    def forward(self, clip: Tensor) -> Tensor:
        measured: Tensor = self.fit(clip.float().mean((1, 2, 3, 4))[:, None] / 3000)[:, 0]
        return measured


@network("meter", view="depth", clip=(1, 4, 16), classes=False)
def meter(spec: NetworkSpec) -> Meter:
    """A linear meter."""
    return Meter(spec)


@scheme("measure")
class Measure(Scheme):
    """One network learns to give the mean reading in meters."""

    trains_on_labels = False

    def __init__(self, student: Meter) -> None:
        super().__init__()
        self.student = student

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        clip = batch.clips[self.student.view]
        return {"mse/student": (1.0, (self.student(clip) - target(clip)).square().mean())}


@model_kind
class MeterModel(SensorModel):
    """Evaluated by its mean absolute error, in meters."""

    kind = "meter"
    headline = Column("error", "mean error, m", "number3", better="lower")
    columns = (Column("n", "clips", "count"), headline)

    def validate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> dict[str, float]:
        error = self.evaluate(clips, workers=workers, device=device).metrics["error"]
        return {"error": error, "loss": error}

    @torch.no_grad()
    def evaluate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> Evaluation:
        net, errors = self.network.to(device).eval(), []
        for batch in loader(clips, batch=8, shuffle=False, seed=0, epoch=0, workers=workers):
            clip: Any = batch.clips[self.view].to(device)
            errors += (net(clip) - target(clip)).abs().tolist()
        return Evaluation({"kind": self.kind, "n": len(errors), "error": float(np.mean(errors))})


def target(clip: Tensor) -> Tensor:
    """The mean reading of each clip in meters, ``(B,)``."""
    return clip.float().mean((1, 2, 3, 4)) / 1000
