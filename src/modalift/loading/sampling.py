"""Which frames of a recording a network sees: parameters of an event first, then each view's own frames.

One :class:`Moment` is drawn for a clip, in fractions of the event, and every view maps it to its own frames. So views
of different rates and lengths (80 frames of color, 93 of infrared, 190 inertial samples) stay synchronized, and the
frames of one view never depend on which other views are read, except in a dense window, whose stride counts frames of
the first view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalift.loading.framing import Framing

Frames = NDArray[np.int64]

#: What stands for *no frame here: zeros* among frame positions.
BLANK = -1


@dataclass(frozen=True)
class Moment:
    r"""One draw of time, shared by all views of a clip.

    A fraction of the clip :math:`f \in [0, 1)` shows the fraction of the event

    .. math:: e(f) = a + s\,(f + \frac{w}{2\pi}\sin 2\pi f)

    where :math:`s` is ``speed``, :math:`w` is ``warp`` and :math:`a = (1 - s)\,\text{begin}`.

    Attributes:
        inside: where in its segment each frame lies, ``(S,)`` fractions in [0, 1); a view of T frames takes the
            first T, or all of them alike where one number stands there.
        begin: where a window stands among its possible places, 0 (earliest) to 1.
        front: share of a short clip's padding that stands before it.
        speed: share of the event that the clip covers; above 1 the clip holds still at its ends.
        warp: depth of the slowing and hurrying inside the clip, in (-1, 1); the ends stay.
    """

    inside: NDArray[np.float64]
    begin: float = 0.5
    front: float = 0.5
    speed: float = 1.0
    warp: float = 0.0

    def event(self, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
        """The event's fraction at fractions of the clip."""
        if self.warp:
            fraction = fraction + self.warp / (2.0 * math.pi) * np.sin(2.0 * math.pi * fraction)
        if self.speed != 1.0:
            fraction = (1.0 - self.speed) * self.begin + self.speed * fraction
        return fraction


def still(view: int = 0, views: int = 1) -> Moment:
    """The moment without chance, of the ``view``-th of ``views`` evenly spread views in time.

    One view looks at the center of each segment, or of the clip; K views look at (k + 1/2)/K.

    Example:
        >>> float(still(0, 2).inside[0]), still(1, 2).begin
        (0.25, 0.75)
    """
    place = (view + 0.5) / views
    return Moment(np.array([place]), begin=place)


def draw(frames: int, rng: np.random.Generator, speed: tuple[float, float] = (1.0, 1.0), warp: float = 0.0) -> Moment:
    """A random moment for clips of up to ``frames`` frames; ``warp`` is the largest depth of warping."""
    begin, front, pace, bend = rng.random(4)
    inside = rng.random(frames)  # last, and its first frames are the same whatever its length
    return Moment(inside, float(begin), float(front), speed[0] + float(pace) * (speed[1] - speed[0]),
                  warp * (2.0 * float(bend) - 1.0))


def positions(length: int, framing: Framing, moment: Moment, *, reference: int | None = None, shift: float = 0.0,
              times: NDArray[np.float64] | None = None) -> Frames:
    """Frames of one view, relative to its window, for one moment.

    Args:
        length: frames of the view's window.
        framing: sampler, frames, stride and padding.
        moment: the draw shared by the clip's views.
        reference: frames of the same event in the view whose frames a dense window counts; None: this view.
        shift: frames that this view's clock is ahead (``offset_ms / 1000 * rate``).
        times: seconds of each frame of the window (``shift`` is then in seconds): frames are found by time.

    Returns:
        ``(T,)`` frame numbers in ``[0, length)``; :data:`BLANK` where a short clip is padded by zeros.

    Example:
        >>> positions(10, Framing(frames=5, size=8), still()).tolist()
        [1, 3, 5, 7, 9]
        >>> positions(4, Framing(frames=8, size=8, sampler="dense", pad="zeros"), still()).tolist()
        [-1, -1, 0, 1, 2, 3, -1, -1]
    """
    if framing.sampler == "whole":
        return np.arange(length, dtype=np.int64)
    if framing.sampler == "segments":
        inside = moment.inside[: framing.frames] if moment.inside.size >= framing.frames else moment.inside[:1]
        fraction = moment.event((np.arange(framing.frames) + inside) / framing.frames)
        return _at(fraction, length, shift, times)
    return _dense(length, framing, moment, reference or length, shift, times)


def _dense(length: int, framing: Framing, moment: Moment, reference: int, shift: float,
           times: NDArray[np.float64] | None) -> Frames:
    """A window of neighboring frames, counted in ``reference`` frames of the event."""
    stride = framing.stride * moment.speed
    span = round((framing.frames - 1) * stride) + 1
    steps = np.floor(np.arange(framing.frames) * stride + 0.5).astype(np.int64)
    room = reference - span
    if room >= 0:
        # floor((room + 1) u) is uniform over the places; the middle one at u = 1/2.
        wanted = steps + min(room, int((room + 1) * moment.begin))
    elif framing.pad == "loop":
        wanted = steps % reference
    else:
        wanted = steps - min(-room, int((1 - room) * moment.front))
    outside = (wanted < 0) | (wanted >= reference)
    if reference != length or shift or times is not None:
        found = _at((np.clip(wanted, 0, reference - 1) + 0.5) / reference, length, shift, times)
    else:
        found = np.clip(wanted, 0, length - 1)
    if framing.pad == "zeros":
        found[outside] = BLANK
    return found


def _at(fraction: NDArray[np.float64], length: int, shift: float, times: NDArray[np.float64] | None) -> Frames:
    """The frame that shows each fraction of the event; the edge frames stand beyond the ends."""
    if times is not None and length > 1:
        # Each frame is shown until the next one; the last one as long as the average frame.
        duration = (times[-1] - times[0]) * length / (length - 1)
        found = np.searchsorted(times, times[0] + fraction * duration + shift, side="right") - 1
    else:
        found = np.floor(fraction * length + shift).astype(np.int64)
    return np.clip(found, 0, length - 1).astype(np.int64)
