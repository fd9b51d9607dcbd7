"""The Framer: from a recording's frames to a network's clip, alike in training, evaluation, prediction and streaming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.loading.framing import Augment, Framing
from modalift.loading.low_light import enhance
from modalift.loading.sampling import BLANK, Clock, Positions, TemporalDraw, positions
from modalift.loading.transforms import Geometry, Region, photometric, pixel_map, transform_signal, valid_box, warp
from modalift.modalities import Modality

Array = NDArray[Any]
#: x0, y0, x1, y1 in normalized coordinates (-1..1).
Box = tuple[float, float, float, float]
Affine = tuple[float, float, float, float, float, float]
#: Frames, evenly spread, in which the box of ``region="valid"`` is looked for.
BOX_FRAMES = 24


class Frames(Protocol):
    """Frames that are read when they are asked for; an array ``(T, H, W, C)`` serves as well."""

    def __len__(self) -> int:
        """How many there are."""
        ...  # a protocol has no body

    def read(self, indices: Sequence[int]) -> Array:
        """The frames of these numbers, ``(len(indices), H, W, C)``."""
        ...  # a protocol has no body


@dataclass(frozen=True)
class Place:
    """Where a recording's picture lies in its space (the frame of reference that several views share).

    Attributes:
        aspect: width over height of the space's picture; None: of this picture.
        affine: 2 x 3 matrix from this picture's normalized coordinates to the space's; None: they are the same.
        box: around the valid readings, in the space's normalized coordinates; for ``region="valid"``.
    """

    aspect: float | None = None
    affine: Affine | None = None
    box: Box | None = None


class Framer:
    """Makes a network's clip of one sensor's frames: which frames, which part of the picture, and at what size.

    Args:
        modality: what the sensor's readings mean.
        framing: what the network receives.

    Raises:
        ModaliftError: low-light enhancement of a modality that is not an 8-bit picture.

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
            raise ModaliftError(f"low_light={framing.low_light}: '{modality.name}' is not an 8-bit picture - set"
                                " data.per_view.VIEW.low_light=none for it")
        self.modality, self.framing = modality, framing

    def __call__(self, frames: Frames | Array, when: TemporalDraw, geometry: Geometry, *, clock: Clock | None = None,
                 place: Place | None = None, augment: Augment | None = None,
                 rng: np.random.Generator | None = None) -> tuple[Array, Array | None]:
        """One clip.

        Args:
            frames: the recording.
            when: which part of its time.
            geometry: which part of its picture; signals have none.
            clock: how its frames lie in the event's time; by default they span it evenly.
            place: where its picture lies in its space; by default :meth:`locate` of these frames.
            augment, rng: random photometric changes, or those of a signal; None: no change.

        Returns:
            The clip ``(C, T, H, W)``, uint8 for 8-bit modalities, else float32 (signals: ``(C, T, 1, 1)``), and
            ``(1, T, H, W)`` bool, where its readings are valid, for modalities that mark invalid ones, else None.

        Raises:
            ModaliftError: frames that cannot be read.
        """
        where = positions(len(frames), self.framing, when, clock)
        numbers, back = np.unique(where[where != BLANK], return_inverse=True)
        source = _read(frames, numbers)
        valid = None
        if self.modality.kind == "signal":
            clip = _spread(source.transpose(3, 0, 1, 2).astype(np.float32, copy=False), back)
            if augment is not None and rng is not None:
                clip = transform_signal(clip, self.modality, augment, rng)
        else:
            clip, valid = self._pictures(source, geometry, self.locate(frames) if place is None else place)
            clip, valid = _spread(clip, back), None if valid is None else _spread(valid, back)
            if augment is not None and rng is not None:
                clip = photometric(clip, valid, self.modality, augment, rng)
        return _with_blanks(clip, valid, where, self.modality)

    def locate(self, frames: Frames | Array, affine: Affine | None = None) -> Place:
        """The place of a recording that shares its space with no other: its own picture, and the box in it.

        Raises:
            ModaliftError: ``region="valid"`` of a modality that does not mark invalid readings.
        """
        if self.modality.kind == "signal" or self.framing.region == "whole":
            return Place(affine=affine)
        return Place(affine=affine, box=moved(find_box(frames, self.modality), affine))

    def _pictures(self, source: Array, geometry: Geometry, place: Place) -> tuple[Array, Array | None]:
        """Frames ``(T, H, W, C)`` seen through the region, the crop and the geometry, and enhanced."""
        framing, aspect = self.framing, place.aspect
        if aspect is None:
            aspect = source.shape[2] / source.shape[1]
        region = Region(0.0, 0.0, 2.0 * aspect, 2.0)
        if framing.region == "valid":
            if place.box is None:
                raise ModaliftError(f"region 'valid' of '{self.modality.name}' needs the box of its valid readings")
            x0, y0, x1, y1 = place.box
            side = max((x1 - x0) * aspect, y1 - y0) * (1.0 + framing.margin)
            region = Region((x0 + x1) / 2 * aspect, (y0 + y1) / 2, side, side)
        matrix = pixel_map(geometry.matrix(region, framing), aspect, place.affine, source.shape[2], source.shape[1],
                           framing.size)
        clip, valid = warp(source, matrix, framing.size, self.modality)
        return enhance(clip, framing.low_light, framing.low_light_strength), valid


def find_box(frames: Frames | Array, modality: Modality) -> Box:
    """The box around the valid readings of a recording, in its own normalized coordinates.

    Raises:
        ModaliftError: a modality that does not mark invalid readings.
    """
    if modality.invalid is None:
        raise ModaliftError(f"region 'valid' needs a sensor that marks missing readings (depth), '{modality.name}' does not"
                            " - use region: whole")
    length = len(frames)
    some = np.unique(np.linspace(0, length - 1, min(length, BOX_FRAMES)).round().astype(np.int64))
    return valid_box(_read(frames, some), modality)


def moved(box: Box, affine: Affine | None) -> Box:
    """A box of a picture in its space: the upright box around the moved corners."""
    if affine is None:
        return box
    corners = np.array([[box[0], box[2], box[0], box[2]], [box[1], box[1], box[3], box[3]], [1.0] * 4])
    x, y = np.asarray(affine).reshape(2, 3) @ corners
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _read(frames: Frames | Array, numbers: NDArray[np.int64]) -> Array:
    return frames[numbers] if isinstance(frames, np.ndarray) else frames.read(numbers.tolist())


def _spread(clip: Array, back: Array) -> Array:
    """Frames in the order in which they are shown, repeated where they are shown more than once."""
    same = len(back) == clip.shape[1] and bool((back == np.arange(len(back))).all())
    return clip if same else np.ascontiguousarray(clip[:, back])


def _with_blanks(clip: Array, valid: Array | None, where: Positions, modality: Modality) -> tuple[Array, Array | None]:
    """The clip with its blank frames put in."""
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
