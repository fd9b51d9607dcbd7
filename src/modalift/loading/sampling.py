"""Temporal sampling: which frames of a recording a network receives.

One :class:`TemporalDraw` is sampled per clip, in fractions of the event, and every view maps it to its own frames. So
views of different rates and lengths (80 frames of color, 93 of infrared, 190 inertial samples) stay synchronized, and
the frames of one view do not depend on which other views are read, except in a dense window, whose stride counts frames
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

#: The position that stands for a frame of zeros.
BLANK = -1


@dataclass(frozen=True)
class TemporalDraw:
    r"""The random parameters of temporal sampling, shared by all views of a clip.

    The fraction :math:`f \in [0, 1)` of the clip shows the fraction of the event

    .. math:: e(f) = a + s\,(f + \frac{w}{2\pi}\sin 2\pi f)

    where :math:`s` is ``speed``, :math:`w` is ``warp`` and :math:`a = (1 - s)\,p` with :math:`p` the ``window_position`.

    Attributes:
        within_segment: position of each frame in its segment, ``(S,)`` fractions in [0, 1); a view of T frames uses the
            first T, or a single number for all frames.
        window_position: position of the window in the event, from 0 (earliest) to 1 (latest).
        pad_before: fraction of a short clip's padding that comes before it.
        speed: fraction of the event that the clip covers; above 1 the first and last frames repeat.
        warp: relative change of the playback speed within the clip, in (-1, 1); its ends stay fixed.
    """

    within_segment: NDArray[np.float64]
    window_position: float = 0.5
    pad_before: float = 0.5
    speed: float = 1.0
    warp: float = 0.0

    def event(self, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Maps fractions of the clip to fractions of the event."""
        if self.warp:
            fraction = fraction + self.warp / (2.0 * math.pi) * np.sin(2.0 * math.pi * fraction)
        if self.speed != 1.0:
            fraction = (1.0 - self.speed) * self.window_position + self.speed * fraction
        return fraction


def centered(crop: int = 0, crops: int = 1) -> TemporalDraw:
    """The ``crop``-th of ``crops`` evenly spaced temporal crops, without randomness.

    A single crop takes the center of each segment, or of the recording; the k-th of K crops the fraction (k + 1/2)/K.

    Example:
        >>> float(centered(0, 2).within_segment[0]), centered(1, 2).window_position
        (0.25, 0.75)
    """
    position = (crop + 0.5) / crops
    return TemporalDraw(np.array([position]), window_position=position)


def sample(frames: int, rng: np.random.Generator, speed: tuple[float, float] = (1.0, 1.0),
           warp: float = 0.0) -> TemporalDraw:
    """Samples a random draw for clips of up to ``frames`` frames; ``warp`` is the largest absolute warp."""
    window_position, pad_before, speed_fraction, warp_fraction = rng.random(4)
    within_segment = rng.random(frames)  # drawn last, so that its first values do not depend on its length
    return TemporalDraw(within_segment, float(window_position), float(pad_before),
                        speed[0] + float(speed_fraction) * (speed[1] - speed[0]), warp * (2.0 * float(warp_fraction) - 1.0))


@dataclass(frozen=True, eq=False)
class Clock:
    """When a recording's frames were taken, relative to the event that all views of a clip recorded.

    Attributes:
        reference: number of frames of the view in whose frames a dense window is counted; None: this recording's.
        shift: by how much this sensor's clock is ahead, in frames, or in seconds where ``times`` are given.
        times: time of each frame in seconds, ``(N,)``; None: frames are evenly spaced.
    """

    reference: int | None = None
    shift: float = 0.0
    times: NDArray[np.float64] | None = None


def clock_of(track: Track, length: int, reference: int | None = None) -> Clock:
    """The clock of a track whose window has ``length`` frames.

    Raises:
        ModaliftError: the track has an offset in milliseconds but no rate.
    """
    times = np.asarray(track.timestamps) if len(track.timestamps) == length else None
    shift = track.offset_ms / 1000.0
    if shift and times is None:
        if track.rate is None:
            raise ModaliftError(f"{track.path}: has offset_ms {track.offset_ms:g} but no rate - give its rate too")
        shift *= track.rate
    return Clock(reference, shift, times)


def positions(length: int, framing: Framing, when: TemporalDraw, clock: Clock | None = None) -> Positions:
    """Frame positions of one view, relative to its window, for one temporal draw.

    Args:
        length: number of frames in the view's window.
        framing: sampler, frames, stride and padding.
        when: the draw shared by the clip's views.
        clock: at which times of the event the frames were taken; by default evenly spaced.

    Returns:
        ``(T,)`` frame indices in ``[0, length)``; :data:`BLANK` where a short clip is padded with zeros.

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
        one_each = when.within_segment.size >= framing.frames
        within_segment = when.within_segment[: framing.frames if one_each else 1]
        fraction = when.event((np.arange(framing.frames) + within_segment) / framing.frames)
        return _frames_at(fraction, length, clock)
    return _dense(length, framing, when, clock)


def _dense(length: int, framing: Framing, when: TemporalDraw, clock: Clock) -> Positions:
    """Positions of a dense window of frames, counted in the clock's ``reference`` frames."""
    reference = clock.reference or length
    stride = framing.stride * when.speed
    span = round((framing.frames - 1) * stride) + 1
    steps = np.floor(np.arange(framing.frames) * stride + 0.5).astype(np.int64)
    room = reference - span
    if room >= 0:
        # floor((room + 1) u) is uniform over the window positions; the middle one at u = 1/2.
        wanted = steps + min(room, int((room + 1) * when.window_position))
    elif framing.pad == "loop":
        wanted = steps % reference
    else:
        wanted = steps - min(-room, int((1 - room) * when.pad_before))
    outside = (wanted < 0) | (wanted >= reference)
    if reference != length or clock.shift or clock.times is not None:
        found = _frames_at((np.clip(wanted, 0, reference - 1) + 0.5) / reference, length, clock)
    else:
        found = np.clip(wanted, 0, length - 1)
    if framing.pad == "zeros":
        found[outside] = BLANK
    return found


def _frames_at(fraction: NDArray[np.float64], length: int, clock: Clock) -> Positions:
    """The frame that shows each fraction of the event; beyond its ends the first or last frame."""
    times = clock.times
    if times is not None and length > 1:
        # Each frame lasts until the next one; the last one as long as the average frame.
        duration = (times[-1] - times[0]) * length / (length - 1)
        found = np.searchsorted(times, times[0] + fraction * duration + clock.shift, side="right") - 1
    else:
        found = np.floor(fraction * length + clock.shift).astype(np.int64)
    return np.clip(found, 0, length - 1).astype(np.int64)
