"""The Framer: from a recording's frames to a network's clip, identical in training, evaluation, prediction and streaming.

Images that are much larger than the clips are reduced first (:mod:`modalift.loading.reduction`); a store may have done so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.loading.framing import Augment, Framing
from modalift.loading.low_light import enhance
from modalift.loading.reduction import Reduction
from modalift.loading.sampling import BLANK, Clock, Positions, TemporalDraw, positions
from modalift.loading.transforms import Geometry, Region, photometric, pixel_map, transform_signal, valid_box, warp
from modalift.modalities import Modality

Array = NDArray[Any]
#: x0, y0, x1, y1 in normalized coordinates (-1..1).
Box = tuple[float, float, float, float]
Affine = tuple[float, float, float, float, float, float]
#: Number of evenly spaced frames from which the bounding box of ``region="valid"`` is computed.
BOX_FRAMES = 24


class Frames(Protocol):
    """Frames that are read on demand; an array ``(T, H, W, C)`` can be used instead."""

    def __len__(self) -> int:
        """Number of frames."""
        ...  # a protocol has no body

    def read(self, indices: Sequence[int]) -> Array:
        """The frames at these indices, ``(len(indices), H, W, C)``."""
        ...  # a protocol has no body


@dataclass(frozen=True)
class Placement:
    """Where a recording's image lies in its space (the coordinate system that several views share).

    Attributes:
        aspect: width over height of the space's image; None: that of this image.
        affine: 2 x 3 matrix from this image's normalized coordinates to the space's; None: identity.
        box: bounding box of the valid readings, in the space's normalized coordinates; for ``region="valid"``.
    """

    aspect: float | None = None
    affine: Affine | None = None
    box: Box | None = None


class Framer:
    """Turns one sensor's frames into a network's clip: selects frames, crops and resizes them.

    Args:
        modality: the sensor's modality.
        framing: the clip's length and size, and how they are obtained.

    Raises:
        ModaliftError: low-light enhancement of a modality that does not have 8-bit images.

    Example:
        >>> from modalift.loading.sampling import centered
        >>> from modalift.modalities import modality
        >>> framer = Framer(modality("depth"), Framing(frames=4, size=32))
        >>> clip, valid = framer(np.full((10, 60, 80, 1), 1500, np.uint16), centered(), Geometry())
        >>> clip.shape, valid.shape
        ((1, 4, 32, 32), (1, 4, 32, 32))
    """

    def __init__(self, modality: Modality, framing: Framing) -> None:
        if framing.low_light != "none" and modality.kind == "video" and modality.dtype != "uint8":
            raise ModaliftError(f"low_light={framing.low_light}: '{modality.name}' does not have 8-bit images - set"
                                " data.per_view.VIEW.low_light=none for it")
        self.modality, self.framing = modality, framing
        self.reduction = Reduction.of(framing, modality)

    def __call__(self, frames: Frames | Array, when: TemporalDraw, geometry: Geometry, *, clock: Clock | None = None,
                 placement: Placement | None = None, augment: Augment | None = None,
                 rng: np.random.Generator | None = None) -> tuple[Array, Array | None]:
        """Makes one clip.

        Args:
            frames: the recording.
            when: the temporal window.
            geometry: the crop, rotation and flip of its images; ignored for signals.
            clock: at which times of the event its frames were recorded; by default evenly spaced.
            placement: where its images lie in their space; by default :meth:`locate` of these frames.
            augment, rng: random photometric changes, or random changes of a signal; None: no change.

        Returns:
            The clip ``(C, T, H, W)``, uint8 for 8-bit modalities, else float32 (signals: ``(C, T, 1, 1)``), and
            a mask of valid readings ``(1, T, H, W)`` bool for modalities that mark invalid ones, else None.

        Raises:
            ModaliftError: frames that cannot be read.
        """
        where = positions(len(frames), self.framing, when, clock)
        numbers, inverse = np.unique(where[where != BLANK], return_inverse=True)
        source = _read(frames, numbers)
        valid = None
        if self.modality.kind == "signal":
            clip = _gather(source.transpose(3, 0, 1, 2).astype(np.float32, copy=False), inverse)
            if augment is not None and rng is not None:
                clip = transform_signal(clip, self.modality, augment, rng)
        else:
            clip, valid = self._transform_images(source, geometry, self.locate(frames) if placement is None else placement)
            clip, valid = _gather(clip, inverse), None if valid is None else _gather(valid, inverse)
            if augment is not None and rng is not None:
                clip = photometric(clip, valid, self.modality, augment, rng)
        return _with_blanks(clip, valid, where, self.modality)

    def locate(self, frames: Frames | Array, affine: Affine | None = None) -> Placement:
        """The placement of a recording that shares its space with no other: the space is its own image.

        Raises:
            ModaliftError: ``region="valid"`` of a modality that does not mark invalid readings.
        """
        if self.modality.kind == "signal" or self.framing.region == "whole":
            return Placement(affine=affine)
        return Placement(affine=affine, box=map_box(find_box(frames, self.modality), affine))

    def _transform_images(self, source: Array, geometry: Geometry, placement: Placement) -> tuple[Array, Array | None]:
        """Reduces, crops, transforms and resizes frames ``(T, H, W, C)``, and applies low-light enhancement."""
        source = self.reduction.images(source, self.modality, placement.affine)
        framing, aspect = self.framing, placement.aspect
        if aspect is None:
            aspect = source.shape[2] / source.shape[1]
        region = Region(0.0, 0.0, 2.0 * aspect, 2.0)
        if framing.region == "valid":
            if placement.box is None:
                raise ModaliftError(f"region 'valid' of '{self.modality.name}' needs the bounding box of its valid readings")
            x0, y0, x1, y1 = placement.box
            side = max((x1 - x0) * aspect, y1 - y0) * (1.0 + framing.margin)
            region = Region((x0 + x1) / 2 * aspect, (y0 + y1) / 2, side, side)
        matrix = pixel_map(geometry.matrix(region, framing), aspect, placement.affine, source.shape[2], source.shape[1],
                           framing.size)
        clip, valid = warp(source, matrix, framing.size, self.modality)
        return enhance(clip, framing.low_light, framing.low_light_strength), valid


def find_box(frames: Frames | Array, modality: Modality) -> Box:
    """The bounding box of a recording's valid readings, in its own normalized coordinates.

    Raises:
        ModaliftError: a modality that does not mark invalid readings.
    """
    if modality.invalid is None:
        raise ModaliftError(f"region 'valid' needs a sensor that marks missing readings (depth), '{modality.name}' does not"
                            " - use region: whole")
    length = len(frames)
    some = np.unique(np.linspace(0, length - 1, min(length, BOX_FRAMES)).round().astype(np.int64))
    return valid_box(_read(frames, some), modality)


def map_box(box: Box, affine: Affine | None) -> Box:
    """Maps an image's box into its space: the axis-aligned bounding box of the mapped corners."""
    if affine is None:
        return box
    corners = np.array([[box[0], box[2], box[0], box[2]], [box[1], box[1], box[3], box[3]], [1.0] * 4])
    x, y = np.asarray(affine).reshape(2, 3) @ corners
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _read(frames: Frames | Array, numbers: NDArray[np.int64]) -> Array:
    return frames[numbers] if isinstance(frames, np.ndarray) else frames.read(numbers.tolist())


def _gather(clip: Array, inverse: Array) -> Array:
    """Puts unique frames into the clip's order, repeating those that occur more than once."""
    same = len(inverse) == clip.shape[1] and bool((inverse == np.arange(len(inverse))).all())
    return clip if same else np.ascontiguousarray(clip[:, inverse])


def _with_blanks(clip: Array, valid: Array | None, where: Positions, modality: Modality) -> tuple[Array, Array | None]:
    """Inserts the clip's blank frames."""
    kept = where != BLANK
    if kept.all():
        return clip, valid
    full = np.full((clip.shape[0], len(where), *clip.shape[2:]), modality.invalid or 0, clip.dtype)
    full[:, kept] = clip
    if valid is not None:
        padded = np.zeros((1, len(where), *valid.shape[2:]), bool)
        padded[:, kept] = valid
        valid = padded
    return full, valid
