"""People made of capsules: proportions, skeleton by two-bone inverse kinematics, hands with fingers.

The body frame is the person's ``(right, up, forward)``, in meters, with its origin on the floor between the feet.
Proportions are those of a 1.75 m adult after Drillis and Contini (1966, *Body segment parameters*), rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modalift.darkroom.motions import CURL, FINGERS, PALM, SWIVEL, WRIST, Motion, Style, sample_style

Array = NDArray[np.float64]

#: Materials of capsules: indices into the rows of :attr:`Subject.albedo` and into the table of temperatures.
SKIN, FACE, HAND, SHIRT, TROUSERS, SHOES, THING, SECOND = range(8)
_SIDE = ("shoulder", "elbow", "wrist", "hand", "index_tip", "thumb_tip")
#: Joints of ``pose`` ``(J, 3)``; right and left are the person's.
JOINTS = ("head", "neck", "chest", "pelvis", *(f"right_{j}" for j in _SIDE), *(f"left_{j}" for j in _SIDE),
          "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle")


@dataclass(frozen=True)
class Subject:
    """One person.

    Attributes:
        height: meters.
        girth: factor on the width of trunk and limbs.
        left_handed: gestures with the left arm (20 % of subjects).
        albedo: ``(8, 3)`` reflectance per material in linear RGB, 0..1.
        nir: ``(8,)`` reflectance at 850 nm, where dyes are pale and all skin tones are similar.
        hair: ``(3,)`` reflectance of hair.
        hairline: its height on the forehead, -1 .. 1.
        long_sleeves: whether forearms are clothed.
        stripes: contrast of the shirt's stripes, 0..1.
        hand_celsius: temperature of the hands in degrees Celsius (31 +- 1.5).
        tilt: lateral tilt of the trunk in radians.
        style: how this person moves.
    """

    height: float
    girth: float
    left_handed: bool
    albedo: Array
    nir: Array
    hair: Array
    hairline: float
    long_sleeves: bool
    stripes: float
    hand_celsius: float
    tilt: float
    style: Style


def sample_subject(rng: np.random.Generator) -> Subject:
    """A random person."""
    tone = rng.uniform(0.0, 1.0)
    skin = (1 - tone) * np.array([0.62, 0.44, 0.35]) + tone * np.array([0.20, 0.12, 0.08])
    cloth, legs = _dye(rng), _dye(rng) * 0.6
    hair = np.array([0.05, 0.035, 0.025]) if rng.random() < 0.6 else np.array([0.30, 0.20, 0.11])
    hair = hair * rng.uniform(0.6, 1.3)
    thing = _dye(rng)
    albedo = np.stack([skin, skin, skin * 1.05, cloth, legs, np.full(3, rng.uniform(0.03, 0.3)), thing, _dye(rng)])
    nir = np.array([0.52, 0.52, 0.54, rng.uniform(0.35, 0.75), rng.uniform(0.25, 0.65), rng.uniform(0.1, 0.5),
                    rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.7)])
    return Subject(
        height=float(rng.uniform(1.56, 1.90)), girth=float(rng.uniform(0.86, 1.2)),
        left_handed=bool(rng.random() < 0.2), albedo=albedo, nir=nir, hair=hair,
        hairline=float(rng.uniform(0.15, 0.6)), long_sleeves=bool(rng.random() < 0.55),
        stripes=float(rng.uniform(0.2, 0.6)) if rng.random() < 0.3 else 0.0,
        hand_celsius=float(np.clip(rng.normal(31.0, 1.5), 27.5, 34.0)), tilt=float(rng.normal(0.0, 0.035)),
        style=sample_style(rng))


def _dye(rng: np.random.Generator) -> Array:
    """A random color of cloth: mostly muted, sometimes saturated."""
    gray = rng.uniform(0.05, 0.6)
    return np.clip(gray + rng.uniform(0.1, 0.6) * gray * rng.normal(0.0, 1.0, 3), 0.02, 0.8)


def two_bones(shoulder: Array, wrist: Array, upper: float, lower: float, pole: Array) -> tuple[Array, Array]:
    """Elbow and reached wrist of an arm of two bones.

    With the unit vector a to the wrist and its distance d, the elbow is ``x = (upper^2 - lower^2 + d^2) / 2 d`` along a and
    ``sqrt(upper^2 - x^2)`` away from it, on the side of ``pole``.

    Args:
        shoulder, wrist, pole: ``(N, 3)``; a wrist out of reach is moved along the same line.
        upper, lower: lengths of the bones in meters.
    """
    reach = wrist - shoulder
    d = np.linalg.norm(reach, axis=1, keepdims=True)
    a = reach / np.maximum(d, 1e-6)
    d = np.clip(d, 1.05 * abs(upper - lower) + 0.05, 0.985 * (upper + lower))
    side = pole - (pole * a).sum(1, keepdims=True) * a
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-6)
    x = (upper**2 - lower**2 + d**2) / (2 * d)
    elbow = shoulder + x * a + np.sqrt(np.maximum(upper**2 - x**2, 0.0)) * side
    return elbow, shoulder + d * a


@dataclass
class Capsules:
    """Capsules over time: segments from ``start`` to ``end`` ``(N, M, 3)``, radii ``(M, 2)`` at the two ends (a cone
    between), and materials ``(M,)``."""

    start: Array
    end: Array
    radius: Array
    material: NDArray[np.int64]


@dataclass
class Figure:
    """A person at N moments: capsules and joints ``(N, J, 3)`` in the body frame, and the axes ``(N, 3, 3)`` of the
    head (rows right, up, forward)."""

    capsules: Capsules
    joints: Array
    head: Array


class _Builder:
    def __init__(self, moments: int) -> None:
        self.n, self.start, self.end = moments, [], []  # type: ignore[var-annotated]
        self.radius: list[tuple[float, float]] = []
        self.material: list[int] = []

    def add(self, a: ArrayLike, b: ArrayLike, ra: float, rb: float, material: int) -> None:
        self.start.append(np.broadcast_to(a, (self.n, 3)))
        self.end.append(np.broadcast_to(b, (self.n, 3)))
        self.radius.append((ra, rb))
        self.material.append(material)

    def done(self) -> Capsules:
        return Capsules(np.stack(self.start, 1), np.stack(self.end, 1), np.array(self.radius), np.array(self.material))


def _axes(yaw: Array, lean: Array, tilt: Array) -> Array:
    """Axes (rows right, up, forward) ``(N, 3, 3)`` of a trunk with yaw (positive to its left), forward lean and tilt."""
    cy, sy, cl, sl, ct, st = np.cos(yaw), np.sin(yaw), np.cos(lean), np.sin(lean), np.cos(tilt), np.sin(tilt)
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    turn = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], 1).reshape(-1, 3, 3)
    pitch = np.stack([one, zero, zero, zero, cl, sl, zero, -sl, cl], 1).reshape(-1, 3, 3)
    roll = np.stack([ct, -st, zero, st, ct, zero, zero, zero, one], 1).reshape(-1, 3, 3)
    return roll @ pitch @ turn


def _unit(v: Array) -> Array:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-6)


def _hand(build: _Builder, wrist: Array, forearm: Array, pose: Array, axes: Array, side: float, k: float,
          simple: bool) -> tuple[Array, Array, Array]:
    """Adds palm, fingers and thumb; returns knuckle, index tip and thumb tip ``(N, 3)``."""
    local = np.stack([pose[:, FINGERS], pose[:, PALM]], 1) * np.array([side, 1.0, 1.0])
    turned = local @ axes
    f = _unit(_unit(turned[:, 0]) + 0.45 * forearm)     # a wrist bends only a little
    p = _unit(turned[:, 1] - (turned[:, 1] * f).sum(1, keepdims=True) * f)
    s = side * np.cross(p, f)                           # toward the thumb
    curl = pose[:, CURL]
    knuckles = [wrist + k * (0.088 * f + o * s) for o in (0.032, 0.011, -0.011, -0.031)]
    for knuckle, o in zip(knuckles[::3], (0.016, -0.016), strict=True):
        build.add(wrist + k * o * s, knuckle, 0.024 * k, 0.020 * k, HAND)
    tips = []
    for i, (knuckle, long) in enumerate(zip(knuckles, (0.92, 1.0, 0.95, 0.78), strict=True)):
        bend = curl[:, i, None]
        near = np.cos(1.6 * bend) * f + np.sin(1.6 * bend) * p
        far = np.cos(3.1 * bend) * f + np.sin(3.1 * bend) * p
        middle = knuckle + 0.048 * k * long * near
        tips.append(middle + 0.042 * k * long * far)
        if simple:
            build.add(knuckle, tips[-1], 0.012 * k, 0.010 * k, HAND)
        else:
            build.add(knuckle, middle, 0.0125 * k, 0.0115 * k, HAND)
            build.add(middle, tips[-1], 0.0115 * k, 0.0095 * k, HAND)
    base = wrist + k * (0.028 * f + 0.030 * s)
    bend = curl[:, 4, None]
    thumb = base + 0.075 * k * _unit((1 - bend) * (0.75 * s + 0.65 * f) + bend * (0.55 * f + 0.65 * p - 0.1 * s))
    build.add(base, thumb, 0.017 * k, 0.0115 * k, HAND)
    return wrist + 0.088 * k * f, tips[0], thumb


def figure(subject: Subject, motion: Motion, t: Array) -> Figure:
    """The person at times ``t (N,)`` seconds, in the body frame."""
    k, g, n = subject.height / 1.75, subject.girth, len(t)
    arm, idle, body = motion.at(t)
    axes = _axes(body[:, 2], body[:, 3], body[:, 4] + subject.tilt)
    zero = np.zeros(n)
    head_axes = _axes(body[:, 0], body[:, 1], zero) @ axes
    step = np.stack([body[:, 5], zero, zero], 1)
    pelvis = step + k * np.array([0.0, 0.95, 0.0])

    def up(r: float, u: float, f: float = 0.0) -> Array:
        """A point of the trunk, from its coordinates in an upright person of 1.75 m."""
        return pelvis + k * (np.array([r, u - 0.95, f]) @ axes)

    build = _Builder(n)
    head = up(0.0, 1.625, 0.02)
    build.add(head + k * (np.array([0.0, 0.018, -0.012]) @ head_axes),
              head + k * (np.array([0.0, -0.065, 0.022]) @ head_axes), 0.098 * k, 0.070 * k, FACE)
    build.add(head + k * (np.array([0.0, -0.005, 0.085]) @ head_axes),
              head + k * (np.array([0.0, -0.028, 0.106]) @ head_axes), 0.012 * k, 0.016 * k, SKIN)
    build.add(up(0, 1.56, -0.01), up(0, 1.42, -0.01), 0.052 * k, 0.060 * k * g, SKIN)
    for side in (-1.0, 1.0):
        build.add(up(0.085 * side * g, 1.345, 0.0), up(0.068 * side * g, 1.03, 0.0), 0.098 * k * g, 0.092 * k * g,
                  SHIRT)
    build.add(up(0, 1.37, 0.012), up(0, 1.0, 0.022 * g), 0.105 * k * g, 0.118 * k * g, SHIRT)
    build.add(up(-0.150, 1.405), up(0.150, 1.405), 0.064 * k, 0.064 * k, SHIRT)
    build.add(up(-0.075 * g, 0.94), up(0.075 * g, 0.94), 0.112 * k * g, 0.112 * k * g, TROUSERS)
    joints: dict[str, Array] = {"head": head, "neck": up(0, 1.47), "chest": up(0, 1.25), "pelvis": pelvis}
    for side, name in ((1.0, "right"), (-1.0, "left")):
        legs = [k * np.array([side * r, u, f]) for r, u, f in ((0.09, 0.92, 0.0), (0.105, 0.50, 0.02),
                                                              (0.115, 0.08, 0.0), (0.14, 0.04, 0.14))]
        build.add(legs[0] + step, legs[1] + step * 0.5, 0.086 * k * g, 0.060 * k * g, TROUSERS)
        build.add(legs[1] + step * 0.5, legs[2], 0.058 * k * g, 0.042 * k * g, TROUSERS)
        build.add(legs[2], legs[3], 0.045 * k, 0.035 * k, SHOES)
        joints |= {f"{name}_hip": legs[0] + step, f"{name}_knee": legs[1] + step * 0.5,
                   f"{name}_ankle": np.broadcast_to(legs[2], (n, 3))}
    for side, name, pose in ((1.0, "right", arm), (-1.0, "left", idle)):
        joints |= _arm(build, subject, side, name, pose, axes, up(0.185 * side, 1.405))
    capsules = build.done()
    points = np.stack([np.broadcast_to(joints[j], (n, 3)) for j in JOINTS], 1)
    if subject.left_handed:
        return _mirror(capsules, points, head_axes)
    return Figure(capsules, points, head_axes)


def _arm(build: _Builder, subject: Subject, side: float, name: str, pose: Array, axes: Array,
         shoulder: Array) -> dict[str, Array]:
    k, g = subject.height / 1.75, subject.girth
    upper, lower = 0.285 * k, 0.255 * k
    mirror = np.array([side, 1.0, 1.0])
    swivel = pose[:, SWIVEL]
    pole = np.stack([np.sin(swivel), -np.cos(swivel), np.full(len(pose), -0.3)], 1)
    target = shoulder + (upper + lower) * np.einsum("ni,nij->nj", pose[:, WRIST] * mirror, axes)
    # A raised arm raises its shoulder a little.
    shoulder = shoulder + np.clip(target - shoulder, 0.0, None) * np.array([0.0, 0.10, 0.0])
    elbow, wrist = two_bones(shoulder, target, upper, lower, np.einsum("ni,nij->nj", pole * mirror, axes))
    build.add(shoulder, elbow, 0.060 * k * g, 0.045 * k * g, SHIRT)
    build.add(elbow, wrist, 0.043 * k * g, 0.029 * k * g, SHIRT if subject.long_sleeves else SKIN)
    hand, index, thumb = _hand(build, wrist, _unit(wrist - elbow), pose, axes, side, k, simple=side < 0)
    return {f"{name}_{j}": p for j, p in zip(_SIDE, (shoulder, elbow, wrist, hand, index, thumb), strict=True)}


def _mirror(capsules: Capsules, joints: Array, head: Array) -> Figure:
    """The mirror image: left and right are exchanged, in space and in joint names."""
    flip = np.array([-1.0, 1.0, 1.0])
    swap = {"right": "left", "left": "right"}
    order = [JOINTS.index("_".join([swap.get(j.split("_")[0], j.split("_")[0]), *j.split("_")[1:]])) for j in JOINTS]
    mirrored = Capsules(capsules.start * flip, capsules.end * flip, capsules.radius, capsules.material)
    # The head's right is mirrored twice, so that (right, up, forward) keep their handedness.
    return Figure(mirrored, joints[:, order] * flip, head * flip * flip[:, None])
