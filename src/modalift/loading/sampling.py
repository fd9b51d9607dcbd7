"""Which frames of a recording a network receives: one draw per event first, then each view's own frames.

One :class:`TemporalDraw` is sampled per clip, in fractions of the event, and every view maps it to its own frames. So
views of different rates and lengths (80 frames of color, 93 of infrared, 190 inertial samples) stay synchronized, and
the frames of one view never depend on which other views are read, except in a dense window, whose stride counts frames
of the first view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.modalities import Track

Positions = NDArray[np.int64]

#: Stands among frame positions for a frame of zeros.
BLANK = -1


@dataclass(frozen=True)
class TemporalDraw:
    r"""What is random in time, shared by all views of a clip.

    A fraction of the clip :math:`f \in [0, 1)` shows the fraction of the event

    .. math:: e(f) = a + s\,(f + \frac{w}{2\pi}\sin 2\pi f)

    where :math:`s` is ``speed``, :math:`w` is ``warp`` and :math:`a = (1 - s)\,\text{begin}`.

    Attributes:
        inside: where in its segment each frame lies, ``(S,)`` fractions in [0, 1); a view of T frames takes the first T,
            or one number for all of them.
        begin: where a window lies among its possible places, from 0 (earliest) to 1.
        front: share of a short clip's padding that comes before it.
        speed: share of the event that the clip covers; above 1 the end frames repeat.
        warp: depth of slowing down and speeding up inside the clip, in (-1, 1); the ends stay.
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


def centered(crop: int = 0, crops: int = 1) -> TemporalDraw:
    """The ``crop``-th of ``crops`` evenly spread temporal crops, without randomness.

    One crop takes the center of each segment, or of the recording; the k-th of K takes the fraction (k + 1/2)/K.

    Example:
        >>> float(centered(0, 2).inside[0]), centered(1, 2).begin
        (0.25, 0.75)
    """
    place = (crop + 0.5) / crops
    return TemporalDraw(np.array([place]), begin=place)


def sample(frames: int, rng: np.random.Generator, speed: tuple[float, float] = (1.0, 1.0),
           warp: float = 0.0) -> TemporalDraw:
    """A random draw for clips of up to ``frames`` frames; ``warp`` is the largest depth of warping."""
    begin, front, pace, bend = rng.random(4)
    inside = rng.random(frames)  # last, and its first frames are the same whatever its length
    return TemporalDraw(inside, float(begin), float(front), speed[0] + float(pace) * (speed[1] - speed[0]),
                        warp * (2.0 * float(bend) - 1.0))


@dataclass(frozen=True, eq=False)
class Clock:
    """How a recording's frames lie in the time of the event that all views of a clip recorded.

    Attributes:
        reference: frames of the event in the view whose frames a dense window counts; None: in this recording.
        shift: by how much this sensor's clock is ahead, in frames; in seconds where there are ``times``.
        times: seconds of each frame, ``(N,)``, by which frames are found; None: they are evenly spaced.
    """

    reference: int | None = None
    shift: float = 0.0
    times: NDArray[np.float64] | None = None


def clock_of(track: Track, length: int, reference: int | None = None) -> Clock:
    """The clock of a track whose window has ``length`` frames.

    Raises:
        ModaliftError: an offset in milliseconds of a track without a rate.
    """
    times = np.asarray(track.timestamps) if len(track.timestamps) == length else None
    shift = track.offset_ms / 1000.0
    if shift and times is None:
        if track.rate is None:
            raise ModaliftError(f"{track.path}: has offset_ms {track.offset_ms:g} but no rate - give its rate too")
        shift *= track.rate
    return Clock(reference, shift, times)


def positions(length: int, framing: Framing, when: TemporalDraw, clock: Clock | None = None) -> Positions:
    """Frames of one view, relative to its window, for one draw of time.

    Args:
        length: frames of the view's window.
        framing: sampler, frames, stride and padding.
        when: the draw shared by the clip's views.
        clock: how the frames lie in the event's time; by default they span it evenly.

    Returns:
        ``(T,)`` frame numbers in ``[0, length)``; :data:`BLANK` where a short clip is padded by zeros.

    Example:
        >>> positions(10, Framing(frames=5, size=8), centered()).tolist()
        [1, 3, 5, 7, 9]
        >>> positions(4, Framing(frames=8, size=8, sampler="dense", pad="zeros"), centered()).tolist()
        [-1, -1, 0, 1, 2, 3, -1, -1]
    """
    clock = clock or Clock()
    if framing.sampler == "whole":
        return np.arange(length, dtype=np.int64)
    if framing.sampler == "segments":
        inside = when.inside[: framing.frames] if when.inside.size >= framing.frames else when.inside[:1]
        fraction = when.event((np.arange(framing.frames) + inside) / framing.frames)
        return _at(fraction, length, clock)
    return _dense(length, framing, when, clock)


def _dense(length: int, framing: Framing, when: TemporalDraw, clock: Clock) -> Positions:
    """A window of neighboring frames, counted in the clock's ``reference`` frames of the event."""
    reference = clock.reference or length
    stride = framing.stride * when.speed
    span = round((framing.frames - 1) * stride) + 1
    steps = np.floor(np.arange(framing.frames) * stride + 0.5).astype(np.int64)
    room = reference - span
    if room >= 0:
        # floor((room + 1) u) is uniform over the places; the middle one at u = 1/2.
        wanted = steps + min(room, int((room + 1) * when.begin))
    elif framing.pad == "loop":
        wanted = steps % reference
    else:
        wanted = steps - min(-room, int((1 - room) * when.front))
    outside = (wanted < 0) | (wanted >= reference)
    if reference != length or clock.shift or clock.times is not None:
        found = _at((np.clip(wanted, 0, reference - 1) + 0.5) / reference, length, clock)
    else:
        found = np.clip(wanted, 0, length - 1)
    if framing.pad == "zeros":
        found[outside] = BLANK
    return found


def _at(fraction: NDArray[np.float64], length: int, clock: Clock) -> Positions:
    """The frame that shows each fraction of the event; the edge frames beyond its ends."""
    times = clock.times
    if times is not None and length > 1:
        # Each frame is shown until the next one; the last one as long as the average frame.
        duration = (times[-1] - times[0]) * length / (length - 1)
        found = np.searchsorted(times, times[0] + fraction * duration + clock.shift, side="right") - 1
    else:
        found = np.floor(fraction * length + clock.shift).astype(np.int64)
    return np.clip(found, 0, length - 1).astype(np.int64)
