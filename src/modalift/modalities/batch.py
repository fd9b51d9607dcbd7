"""The Batch: the clips and labels that a scheme gets per step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """Clips of several views, with their labels and masks.

    Attributes:
        clips: view -> ``(B, C, T, H, W)`` in the sensor's unit (gray levels, millimeters, meters); zeros where a
            clip lacks the view.
        valid: view -> bool ``(B, 1, T, H, W)``, False where the sensor has no reading (depth holes); only for views
            with an invalid value.
        present: view -> bool ``(B,)``, False where the clip lacks the view.
        labels: ``(B,)`` class indices; -1 for unlabeled clips.
        labeled: bool ``(B,)``, whether the clip has a label.
        index: ``(B,)`` row of each clip in the training table; memory banks are indexed by it.
        unreadable: row in the table -> why that clip could not be read; it has no sensor and no label.
    """

    clips: dict[str, Tensor]
    valid: dict[str, Tensor]
    present: dict[str, Tensor]
    labels: Tensor
    labeled: Tensor
    index: Tensor
    unreadable: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self._each(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._each(lambda t: t.pin_memory())

    def take(self, rows: Tensor) -> Batch:
        """The batch of the given rows, by index or by mask."""
        return self._each(lambda t: t[rows])

    def _each(self, change: Any) -> Batch:
        return Batch(
            {k: change(v) for k, v in self.clips.items()},
            {k: change(v) for k, v in self.valid.items()},
            {k: change(v) for k, v in self.present.items()},
            change(self.labels), change(self.labeled), change(self.index), self.unreadable,
        )
