"""The Modality: the physical meaning of the numbers in a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from modalift.registry import Registry

#: Whether readings may be mirrored: yes (`same`), yes with the sign of x components changed (`negate_x`: flow vectors), or
#: not at all (`never`: accelerations, joints whose left and right are not known).
Mirror = Literal["same", "negate_x", "never"]
#: Photometric augmentations that are plausible for a sensor (see :mod:`modalift.loading.transforms`).
Photometric = Literal["brightness", "contrast", "saturation", "noise", "range"]


@dataclass(frozen=True)
class Modality:
    """One kind of sensor reading.

    Attributes:
        name: its name in recipes and tables.
        kind: ``video`` (clips ``(C, T, H, W)``) or ``signal`` (clips ``(C, T, 1, 1)``: joints, accelerations).
        channels: numbers per pixel, or per sample of a signal; 0: as many as the recording has, fixed when a table is
            opened.
        unit: the unit of a number, e.g. ``gray level``, ``mm``, ``°C``, ``m``, ``pixel/frame``.
        low, high: range of valid readings, in that unit.
        dtype: how a reading is stored: ``uint8``, ``uint16`` or ``float32``.
        invalid: the value that means *no reading* (0 for depth), or None.
        mean, std: default normalization constants of networks, one per channel or one for all.
        photometric: photometric augmentations that are allowed.
        mirror: whether and how readings may be mirrored.
        derived_from: the modality that it is computed from, for derived ones (flow from rgb).

    Example:
        >>> modality("depth").unit, modality("depth").invalid
        ('mm', 0.0)
    """

    name: str
    kind: Literal["video", "signal"]
    channels: int
    unit: str
    low: float
    high: float
    dtype: Literal["uint8", "uint16", "float32"]
    invalid: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    photometric: tuple[Photometric, ...] = ()
    mirror: Mirror = "same"
    derived_from: str | None = None

    def with_channels(self, channels: int) -> Modality:
        """The same modality with a fixed number of channels (joints: three per joint)."""
        return replace(self, channels=channels)


MODALITIES: Registry[Modality] = Registry("modality")


def modality(name: str, channels: int | None = None) -> Modality:
    """The registered modality of that name; with ``channels``, with that number of channels."""
    found = MODALITIES[name]
    return found if channels is None else found.with_channels(channels)
