"""Ten gestures as key poses of one arm with their timing, independent of a body.

Positions are in the *torso frame* ``(right, up, forward)`` of a right-handed person, relative to the moving arm's
shoulder, in arm lengths. A left-handed person is the mirror image (:mod:`modalift.darkroom.body`), whose *turn left* is
the mirror image of *turn right*.

Between key poses everything moves with minimum jerk (Flash and Hogan 1985, *The coordination of arm movements*),

    s(x) = 10 x^3 - 15 x^4 + 6 x^5,

where x runs from 0 to 1 between two keys. `backward`, `upward` and `turn_right` are `forward`, `keep_down` and
`turn_left` played backwards, including the idle motion of the body: a single frame cannot distinguish them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: The classes in the order of their labels (after MGR-Dark; *rally* is a circle of the raised arm).
GESTURES = ("forward", "backward", "stop", "keep_down", "turn_left", "turn_right", "upward", "look_for", "quiet",
            "rally")
#: Classes that are another class played backwards -> that class, whose key poses they use.
REVERSED = {"backward": "forward", "upward": "keep_down", "turn_right": "turn_left"}
#: Class -> class of its mirror image.
MIRRORED = {name: {"turn_left": "turn_right", "turn_right": "turn_left"}.get(name, name) for name in GESTURES}
#: Duration of a clip in seconds. A gesture takes 1.1 to 1.8 s of it, including raising and lowering the arm.
DURATION = 2.0

#: How far each finger is closed (0 straight, 1 in the palm): index, middle, ring, little, thumb.
SHAPES = {
    "open": (0.0, 0.0, 0.0, 0.0, 0.1),
    "flat": (0.05, 0.05, 0.05, 0.05, 0.6),
    "index": (0.0, 1.0, 1.0, 1.0, 1.0),
    "fist": (1.0, 1.0, 1.0, 1.0, 1.0),
    "thumb": (1.0, 1.0, 1.0, 1.0, 0.0),
    "relaxed": (0.35, 0.4, 0.45, 0.5, 0.4),
}
WRIST, FINGERS, PALM, CURL, SWIVEL = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 14), 14
#: Channels of the trunk: head yaw, head pitch, torso yaw, torso lean (radians), circle and scan envelopes (0..1).
HEAD_YAW, HEAD_PITCH, TORSO_YAW, LEAN, CIRCLE, SCAN = range(6)


def key(wrist: ArrayLike, fingers: ArrayLike, palm: ArrayLike, shape: str, swivel: float = 0.5) -> Array:
    """One pose of an arm as 15 numbers: wrist, finger direction, palm normal, five curls, elbow swivel (radians)."""
    return np.concatenate([wrist, fingers, palm, SHAPES[shape], [swivel]]).astype(float)


#: Key poses of each gesture; the arm is raised from rest to the first and lowered to rest from the last.
KEY_POSES: dict[str, tuple[Array, ...]] = {
    "forward": (key((0.28, 0.42, 0.10), (0.0, 1.0, -0.2), (-0.2, 0.0, 1.0), "flat", 0.9),
                key((-0.08, -0.24, 0.92), (0.0, -0.15, 1.0), (0.0, -1.0, -0.1), "flat", 0.3)),
    "keep_down": (key((0.46, 0.28, 0.66), (0.4, 0.1, 0.9), (0.0, -1.0, 0.1), "open", 0.7),
                  key((0.42, -0.64, 0.46), (0.4, -0.1, 0.9), (0.0, -1.0, 0.1), "open", 0.7)),
    "turn_left": (key((0.90, 0.10, 0.25), (1.0, 0.1, 0.3), (-0.2, 0.0, 1.0), "flat", 0.4),
                  key((-0.68, 0.10, 0.56), (-0.9, 0.1, 0.5), (0.0, 0.1, -1.0), "flat", 0.7)),
    "stop": (key((0.20, 0.30, 0.74), (0.0, 1.0, 0.1), (0.0, 0.1, 1.0), "open", 0.4),),
    "look_for": (key((-0.02, 0.44, 0.30), (-1.0, 0.15, 0.25), (0.0, -1.0, 0.3), "flat", 1.2),),
    "quiet": (key((-0.30, 0.12, 0.42), (-0.1, 1.0, 0.1), (-1.0, 0.0, -0.3), "index", 0.25),),
    "rally": (key((0.32, 0.62, 0.22), (0.0, 1.0, 0.1), (-0.3, 0.0, 1.0), "index", 0.8),),
}

#: Rest poses of an arm.
RESTS: dict[str, Array] = {
    "hang": key((0.13, -0.95, 0.08), (0.0, -1.0, 0.35), (-1.0, 0.0, 0.1), "relaxed", 0.8),
    "belly": key((-0.26, -0.60, 0.36), (-0.9, -0.1, 0.35), (0.2, 0.1, -1.0), "relaxed", 0.8),
    "hip": key((0.20, -0.60, 0.06), (-0.5, -0.7, 0.5), (0.1, -0.2, -1.0), "fist", 1.3),
    "bent": key((0.14, -0.55, 0.55), (-0.1, 0.1, 1.0), (-1.0, -0.2, 0.0), "relaxed", 0.5),
}

#: What the other arm may do meanwhile.
DISTRACTIONS: dict[str, Array] = {
    "scratch": key((-0.12, 0.40, 0.18), (-0.6, 0.8, 0.1), (-0.6, -0.2, -0.7), "relaxed", 0.7),
    "phone": key((-0.10, -0.28, 0.52), (-0.2, 0.7, 0.6), (0.0, 0.5, -0.8), "fist", 0.3),
    "collar": key((-0.28, -0.10, 0.26), (-0.8, 0.5, 0.1), (0.0, 0.2, -1.0), "relaxed", 0.5),
    "reach": key((0.50, -0.45, 0.45), (0.5, -0.4, 0.7), (-0.6, -0.6, 0.0), "relaxed", 0.6),
}


@dataclass(frozen=True)
class Keyed:
    """Channels given at some times, with minimum jerk between, constant before and after.

    Attributes:
        times: ``(K,)`` seconds, ascending.
        values: ``(K, C)``.
    """

    times: Array
    values: Array

    def at(self, t: Array) -> Array:
        """Values ``(N, C)`` at times ``(N,)``."""
        right = np.clip(np.searchsorted(self.times, t, side="right"), 1, len(self.times) - 1)
        before, after = self.times[right - 1], self.times[right]
        x = np.clip((t - before) / np.maximum(after - before, 1e-6), 0.0, 1.0)
        s = x * x * x * (10.0 + x * (6.0 * x - 15.0))
        return self.values[right - 1] + s[:, None] * (self.values[right] - self.values[right - 1])


@dataclass(frozen=True)
class Motion:
    """What one person does in one clip; evaluate it with :meth:`at`."""

    arm: Keyed                #: the gesturing arm, 15 channels
    idle: Keyed               #: the other arm, 15 channels
    trunk: Keyed              #: 6 channels
    turns: float              #: revolutions of the circle per second
    sweeps: float             #: head scans per second
    phase: float              #: radians, of circle and scan
    radius: float             #: of the circle, in arm lengths
    sway: Array               #: (4, 3): amplitude, frequency (Hz), phase of yaw, lean, tilt and side step
    backwards: bool           #: whether the clip is played backwards

    def at(self, t: Array) -> tuple[Array, Array, Array]:
        """Arm ``(N, 15)``, idle arm ``(N, 15)`` and trunk ``(N, 6)`` = head yaw, head pitch, torso yaw, lean, tilt
        (radians) and side step (meters), at times ``(N,)`` in seconds from the start of the clip."""
        if self.backwards:
            t = DURATION - t
        arm, idle, trunk = self.arm.at(t), self.idle.at(t), self.trunk.at(t)
        turn = 2 * np.pi * self.turns * t + self.phase
        circle = trunk[:, CIRCLE] * self.radius
        # The circle's plane is inclined toward the camera, so that it is a circle seen from the front too.
        arm[:, WRIST] += circle[:, None] * (np.cos(turn)[:, None] * np.array([1.0, 0.0, 0.0])
                                            + np.sin(turn)[:, None] * np.array([0.0, 0.75, 0.66]))
        scan = trunk[:, SCAN] * np.sin(2 * np.pi * self.sweeps * t + self.phase)
        sway = self.sway[:, 0] * np.sin(2 * np.pi * self.sway[:, 1] * t[:, None] + self.sway[:, 2])
        body = np.stack([trunk[:, HEAD_YAW] + 0.75 * scan, trunk[:, HEAD_PITCH],
                         trunk[:, TORSO_YAW] + 0.22 * scan + sway[:, 0], trunk[:, LEAN] + sway[:, 1], sway[:, 2],
                         sway[:, 3]], axis=1)
        return arm, idle, body


@dataclass(frozen=True)
class Style:
    """How one person moves, in all clips.

    Attributes:
        tempo: factor on speed.
        amplitude: factor on the distance between the key poses of a gesture.
        elbow: radians added to the elbow's swivel.
        rest, idle_rest: names in :data:`RESTS`, for the gesturing and the other arm.
        offset: ``(3,)`` offset of the hand, in arm lengths.
    """

    tempo: float
    amplitude: float
    elbow: float
    rest: str
    idle_rest: str
    offset: Array


def sample_style(rng: np.random.Generator) -> Style:
    """The style of one person."""
    rests = ("hang", "hang", "belly", "hip", "bent")
    return Style(float(rng.uniform(0.88, 1.2)), float(rng.uniform(0.85, 1.15)), float(rng.normal(0.0, 0.2)),
                 str(rng.choice(rests)), str(rng.choice(rests)), rng.normal(0.0, 0.04, 3))


def _jitter(rng: np.random.Generator, pose: Array, style: Style, size: float) -> Array:
    pose = pose.copy()
    pose[WRIST] += rng.normal(0.0, size, 3)
    pose[FINGERS] += rng.normal(0.0, 2 * size, 3)
    pose[PALM] += rng.normal(0.0, 2 * size, 3)
    pose[SWIVEL] += style.elbow + rng.normal(0.0, 0.08)
    return pose


def _timing(rng: np.random.Generator, poses: int, tempo: float) -> Array:
    """Times in seconds: start of raising, arrival at and departure from each key pose, end of lowering."""
    long = 0.62 if poses == 1 else 0.10
    steps = [rng.uniform(0.30, 0.42)]
    for n in range(poses):
        if n:
            steps.append(rng.uniform(0.42, 0.58))
        steps.append(rng.uniform(0.8, 1.25) * long)
    steps.append(rng.uniform(0.30, 0.42))
    length = np.cumsum([0.0, *steps]) / tempo
    length *= min(1.0, 0.94 * DURATION / length[-1])
    return length + rng.uniform(0.2, 0.8) * (DURATION - length[-1])


def _distraction(rng: np.random.Generator, style: Style) -> Keyed:
    rest = _jitter(rng, RESTS[style.idle_rest], style, 0.02)
    if rng.random() > 0.3:
        return Keyed(np.array([0.0, DURATION]), np.stack([rest, rest]))
    there = _jitter(rng, DISTRACTIONS[str(rng.choice(list(DISTRACTIONS)))], style, 0.05)
    start, rise, hold, fall = rng.uniform(-0.4, 1.1), *rng.uniform(0.35, 0.8, 3)
    return Keyed(np.cumsum([start, rise, hold, fall]), np.stack([rest, there, there, rest]))


def sample_motion(rng: np.random.Generator, gesture: str, style: Style, left_handed: bool = False) -> Motion:
    """The motion of one clip. The random numbers depend on the gesture only through its key poses, so that with the same
    generator state a class and its reversal are exact time reversals: ``a.at(t)`` equals ``b.at(DURATION - t)``.
    """
    name = MIRRORED[gesture] if left_handed else gesture
    base = REVERSED.get(name, name)
    poses = np.stack(KEY_POSES[base])
    rest = _jitter(rng, RESTS[style.rest], style, 0.02)
    middle = poses[:, WRIST].mean(axis=0)
    poses[:, WRIST] = middle + style.amplitude * (poses[:, WRIST] - middle)
    # A hand at forehead or lips has a fixed place; elsewhere people differ.
    at_head = base in ("look_for", "quiet")
    if not at_head:
        poses[:, WRIST] += style.offset
    poses = np.stack([_jitter(rng, s, style, 0.015 if at_head else 0.03) for s in poses])
    times = _timing(rng, len(poses), style.tempo)
    arm = Keyed(times, np.stack([rest, *np.repeat(poses, 2, axis=0), rest]))
    trunk = np.zeros((len(times), 6))
    trunk[1:-1, HEAD_PITCH] = rng.normal(0.0, 0.05)
    trunk[1:-1, LEAN] = rng.normal(0.03, 0.03)
    trunk[:, HEAD_YAW] = rng.normal(0.0, 0.12)
    trunk[1:-1, CIRCLE] = base == "rally"
    trunk[1:-1, SCAN] = base == "look_for"
    sway = np.stack([np.abs(rng.normal(0.0, [0.04, 0.025, 0.02, 0.012])), rng.uniform(0.2, 0.8, 4),
                     rng.uniform(0.0, 2 * np.pi, 4)], axis=1)
    return Motion(arm, _distraction(rng, style), Keyed(times, trunk), float(rng.uniform(1.5, 2.1)) * style.tempo,
                  float(rng.uniform(0.8, 1.15)) * style.tempo, float(rng.uniform(0.0, 2 * np.pi)),
                  float(rng.uniform(0.20, 0.28)) * style.amplitude, sway, name in REVERSED)
