"""Framing: how a recording of any length and size becomes a network's clip, without chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from modalift.errors import ModaliftError, nearest
from modalift.loading.brighten import Brighten

Sampler = Literal["segments", "dense", "whole"]
Pad = Literal["edge", "zeros", "loop"]
Region = Literal["whole", "valid"]
Fit = Literal["stretch", "short"]


@dataclass(frozen=True)
class Framing:
    """What training, evaluation and the shipped bundle must do alike to a recording.

    Attributes:
        frames: frames of the clip (T).
        size: height and width of the clip in pixels; 1 for signals.
        sampler: ``segments`` (T equal segments of the clip, one frame each: random inside in training, the center in
            test), ``dense`` (T neighboring frames, ``stride`` apart) or ``whole`` (every frame, T as recorded; clips
            of a batch are padded to the longest).
        stride: frames between neighbors of a dense window.
        pad: what stands where a dense window is longer than the clip: the ``edge`` frame, ``zeros`` (at random sides
            in training, at both sides alike in test), or the clip again (``loop``).
        region: ``whole`` picture, or the square box around all ``valid`` readings of the clip (a person that a depth
            camera cut out), widened by ``margin`` of its side.
        margin: see ``region``.
        fit: ``stretch`` the region to the square, or scale its ``short`` side and crop.
        keep: side of the crop as a share of the region's (short) side, in (0, 1]: 0.875 is *resize to 256, crop 224*.
        brighten, strength: see :func:`~modalift.loading.brighten.brighten`; for 8-bit pictures.
    """

    frames: int
    size: int
    sampler: Sampler = "segments"
    stride: int = 1
    pad: Pad = "edge"
    region: Region = "whole"
    margin: float = 0.1
    fit: Fit = "short"
    keep: float = 1.0
    brighten: Brighten = "none"
    strength: float = 0.0

    def __post_init__(self) -> None:
        for name in ("frames", "size", "stride"):
            if getattr(self, name) < 1:
                raise ModaliftError(f"framing.{name} is {getattr(self, name)} - it must be 1 or more")
        for name, known in (("sampler", Sampler), ("pad", Pad), ("region", Region), ("fit", Fit), ("brighten", Brighten)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise ModaliftError(f"framing.{name} is '{value}' - {nearest(str(value), get_args(known))}")
        if not 0.0 < self.keep <= 1.0:
            raise ModaliftError(f"framing.keep is {self.keep} - it is a share of the region's side, in (0, 1]")
        if self.strength < 0.0:
            raise ModaliftError(f"framing.strength is {self.strength} - it must be 0 (the usual one) or more")
        if self.margin < 0.0:
            raise ModaliftError(f"framing.margin is {self.margin} - it must be 0 or more")
