"""What a sensor says: the physical meaning of the numbers in a clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from modalift.registry import Registry

#: What a mirror image of a reading is: still the same kind of reading (`same`), one whose x components change sign
#: (`negate_x`: flow vectors), or something that must not be mirrored at all (`never`: accelerations, anonymous joints).
Mirror = Literal["same", "negate_x", "never"]
#: Photometric changes that a sensor could really produce (see :mod:`modalift.loading.transforms`).
Photometric = Literal["brightness", "contrast", "saturation", "noise", "range"]


@dataclass(frozen=True)
class Modality:
    """One kind of sensor reading.

    Attributes:
        name: what recipes and tables call it.
        kind: ``video`` (clips ``(C, T, H, W)``) or ``signal`` (clips ``(C, T, 1, 1)``: joints, accelerations).
        channels: numbers per pixel (or per sample of a signal); 0 means *as many as the recording has*, fixed when a table is
            opened.
        unit: the unit of a number, e.g. ``gray level``, ``mm``, ``°C``, ``m``, ``pixel/frame``.
        low, high: range of valid readings, in that unit.
        dtype: how a reading is stored: ``uint8``, ``uint16`` or ``float32``.
        invalid: the reading that means *no reading* (0 for depth), or None.
        mean, std: default constants with which a network normalizes (one per channel, or one for all).
        photometric: changes that augmentation may make.
        mirror: what a mirror image of the reading is.
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
        """The same modality with its number of channels fixed (joints: three per joint)."""
        return replace(self, channels=channels)


MODALITIES: Registry[Modality] = Registry("modality")


def modality(name: str, channels: int | None = None) -> Modality:
    """The registered modality of that name, with its channels fixed where they are given."""
    found = MODALITIES[name]
    return found if channels is None else found.with_channels(channels)
