"""Places: rooms and outdoor scenes of boxes and capsules, their lighting by night and by day, and moving objects.

World coordinates are x right, y up, z away from the cameras, in meters, with the floor at y = 0 and the cameras near
x = z = 0. The place may be rotated about the vertical axis; its boxes are axis-aligned in its own frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Patterns of a box: plain, vertical bands (books, curtains), panes (windows), horizontal planks.
PLAIN, BANDS, PANES, PLANKS = range(4)


@dataclass
class Lamp:
    """A lamp: position ``(3,)`` in the world, color ``(3,)`` and strength (illuminance at 1 m)."""

    position: Array
    color: Array
    strength: float


@dataclass
class Lighting:
    """Lamps and ambient light, scaled so that the person's chest receives an illuminance of 1.

    Attributes:
        lamps: point lamps.
        ambient: ``(3,)`` ambient light per color channel.
        glow: factor on emitted light (lamp shades, windows by day).
    """

    lamps: list[Lamp]
    ambient: Array
    glow: float


@dataclass
class Place:
    """A static scene.

    Attributes:
        outdoor: whether there are no walls.
        yaw: rotation of the place about the vertical axis through ``pivot``, in radians.
        ambient_celsius: air temperature in degrees Celsius.
        floor, ceiling: albedo ``(3,)``.
        boxes: name -> one row per box: ``low``, ``high`` ``(B, 3)`` corners in meters (box 0 encloses everything: walls,
            floor and ceiling, or sky and ground, seen from inside); ``albedo``, ``second`` ``(B, 3)`` the pattern's two
            colors; ``pattern`` ``(B,)``; ``pitch`` ``(B,)`` its period in meters; ``glow``, ``day_glow`` ``(B, 3)`` emitted
            radiance at night (lamps, lit windows) and by day; ``nir`` ``(B,)`` reflectance at 850 nm; ``celsius`` ``(B,)``.
        balls: the same for static capsules (leaves, poles, lamp shades), in world coordinates: ``start``, ``end``
            ``(C, 3)``, ``radius`` ``(C, 2)``, ``albedo``, ``glow`` ``(C, 3)``, ``nir``, ``celsius`` ``(C,)``.
        night, day: lighting.
    """

    outdoor: bool
    yaw: float
    pivot: Array
    ambient_celsius: float
    floor: Array
    ceiling: Array
    boxes: dict[str, Array] = field(default_factory=dict)
    balls: dict[str, Array] = field(default_factory=dict)
    night: Lighting = field(default_factory=lambda: Lighting([], np.ones(3), 1.0))
    day: Lighting = field(default_factory=lambda: Lighting([], np.ones(3), 1.0))


class _Stock:
    """Rows of named columns."""

    def __init__(self) -> None:
        self.rows: list[dict[str, ArrayLike]] = []

    def add(self, **columns: ArrayLike) -> None:
        self.rows.append(columns)

    def columns(self) -> dict[str, Array]:
        return {k: np.array([r[k] for r in self.rows], float) for k in (self.rows[0] if self.rows else {})}


def _paint(rng: np.random.Generator, low: float = 0.25, high: float = 0.7, color: float = 0.06) -> Array:
    return np.clip(rng.uniform(low, high) * (1 + rng.normal(0.0, color, 3) * np.array([1.2, 0.6, 1.4])), 0.02, 0.9)


def _wood(rng: np.random.Generator) -> Array:
    return rng.uniform(0.4, 1.3) * np.array([0.34, 0.22, 0.13])


def _box(stock: _Stock, center: ArrayLike, half: ArrayLike, albedo: Array, celsius: float, *,
         second: Array | None = None, pattern: int = PLAIN, pitch: float = 0.1, glow: ArrayLike = (0, 0, 0),
         day_glow: ArrayLike = (0, 0, 0), nir: float = 0.45) -> None:
    c, h = np.asarray(center, float), np.asarray(half, float)
    stock.add(low=c - h, high=c + h, albedo=albedo, second=albedo if second is None else second, pattern=pattern,
              pitch=pitch, glow=glow, day_glow=day_glow, nir=nir, celsius=celsius)


def _ball(stock: _Stock, a: ArrayLike, b: ArrayLike, ra: float, rb: float, albedo: Array, celsius: float, *,
          glow: ArrayLike = (0, 0, 0), nir: float = 0.5) -> None:
    stock.add(start=a, end=b, radius=(ra, rb), albedo=albedo, glow=glow, nir=nir, celsius=celsius)


WARM, WHITE, COLD = np.array([1.35, 0.98, 0.55]), np.array([1.0, 1.0, 1.0]), np.array([0.82, 1.0, 1.25])
SODIUM, MOON = np.array([1.6, 0.9, 0.3]), np.array([0.7, 0.95, 1.4])


def sample_place(rng: np.random.Generator, chest: Array) -> Place:
    """A random place around a person whose chest is at ``chest (3,)``: indoors in 70 % of cases."""
    return _room(rng, chest) if rng.random() < 0.7 else _outdoors(rng, chest)


def _room(rng: np.random.Generator, chest: Array) -> Place:
    air = float(rng.uniform(17.0, 24.0))
    stock, balls = _Stock(), _Stock()
    wall = _paint(rng, 0.3, 0.7, 0.08)
    left, right = -rng.uniform(1.6, 3.0), rng.uniform(1.6, 3.0)
    back = chest[2] + rng.uniform(0.8, 2.8)
    top = rng.uniform(2.4, 2.9)
    _box(stock, ((left + right) / 2, top / 2, (back - 1.5) / 2), ((right - left) / 2, top / 2, (back + 1.5) / 2), wall,
         air, second=wall * rng.uniform(0.9, 1.0), pattern=BANDS if rng.random() < 0.25 else PLAIN,
         pitch=rng.uniform(0.08, 0.25), nir=float(rng.uniform(0.35, 0.7)))
    slots = list(rng.permutation(np.linspace(-1.05, 1.05, 5)))
    window = slots.pop()
    curtain = _paint(rng, 0.15, 0.6, 0.25)
    _box(stock, (window, 1.5, back - 0.02), (0.42, 0.55, 0.03), np.full(3, 0.05), air - rng.uniform(3, 8),
         second=np.full(3, 0.6), pattern=PANES, pitch=0.42, glow=rng.uniform(0.0, 0.06) * MOON,
         day_glow=rng.uniform(0.8, 1.6) * COLD, nir=0.08)
    for side in (-1, 1):
        _box(stock, (window + side * 0.52, 1.25, back - 0.07), (0.13, 0.95, 0.05), curtain, air, second=curtain * 0.7,
             pattern=BANDS, pitch=0.06, nir=0.6)
    for _ in range(int(rng.integers(2, 5))):
        _furniture(rng, stock, balls, float(slots.pop()), float(back), air)
    lamp = np.array([rng.choice([-1, 1]) * rng.uniform(0.45, 0.9), rng.uniform(1.25, 1.75),
                     chest[2] + rng.uniform(0.1, 0.6)])
    lit = rng.random() < 0.5
    if rng.random() < 0.65:
        _ball(balls, lamp * (1, 0, 1), lamp - (0, 0.1, 0), 0.015, 0.012, np.full(3, 0.1), air, nir=0.3)
        _ball(balls, lamp - (0, 0.06, 0), lamp - (0, -0.06, 0), 0.12, 0.075, np.array([0.7, 0.6, 0.45]),
              air + (11.0 if lit else 0.0), glow=3.0 * WARM * lit)
    else:
        lit = False
    yaw = float(rng.normal(0.0, 0.22))
    place = Place(False, yaw, np.array([0.0, 0.0, chest[2]]), air, _wood(rng) * 1.3, _paint(rng, 0.6, 0.8, 0.03),
                  stock.columns(), balls.columns())
    lamps = [_lamp(rng, chest, WARM, front=True)]
    if lit:
        lamps.append(Lamp(lamp, WARM, float(rng.uniform(0.1, 0.3))))
    elif rng.random() < 0.5:
        lamps.append(_lamp(rng, chest, COLD, front=rng.random() < 0.6, strength=0.5))
    place.night = _scaled(lamps, rng.uniform(0.12, 0.3) * (0.5 + 0.5 * WARM), chest, 1.0)
    sky = Lamp(np.array([window, 1.6, chest[2] - rng.uniform(0.8, 1.6)]), COLD, 1.0)
    ceiling = Lamp(np.array([0.3, top - 0.2, chest[2] - rng.uniform(0.6, 1.4)]), WHITE, 2.0)
    place.day = _scaled([sky, ceiling], 0.45 * WHITE, chest, 1.0)
    return place


def _furniture(rng: np.random.Generator, stock: _Stock, balls: _Stock, x: float, back: float, air: float) -> None:
    """Adds one piece of furniture before the back wall."""
    kind = str(rng.choice(["shelf", "picture", "sofa", "cabinet", "radiator", "plant", "door", "screen"]))
    if kind == "shelf":
        h = rng.uniform(1.4, 2.0)
        _box(stock, (x, h / 2, back - 0.16), (0.38, h / 2, 0.15), _wood(rng), air, second=_paint(rng, 0.1, 0.5, 0.4),
             pattern=PLANKS, pitch=rng.uniform(0.26, 0.36))
        _box(stock, (x, h * 0.5, back - 0.19), (0.34, h * 0.5 - 0.1, 0.15), _paint(rng, 0.1, 0.4, 0.5), air,
             second=_paint(rng, 0.1, 0.5, 0.5), pattern=PLANKS, pitch=rng.uniform(0.26, 0.36))
    elif kind == "picture":
        y, w, h = rng.uniform(1.4, 1.7), rng.uniform(0.18, 0.36), rng.uniform(0.14, 0.3)
        _box(stock, (x, y, back - 0.02), (w, h, 0.02), _wood(rng), air)
        _box(stock, (x, y, back - 0.03), (w - 0.04, h - 0.04, 0.02), _paint(rng, 0.2, 0.7, 0.4), air,
             second=_paint(rng, 0.1, 0.5, 0.5), pattern=BANDS, pitch=rng.uniform(0.06, 0.2))
    elif kind == "sofa":
        cloth = _paint(rng, 0.08, 0.5, 0.3)
        _box(stock, (x, 0.42, back - 0.5), (0.8, 0.42, 0.18), cloth, air)
        for side in (-1, 1):
            _box(stock, (x + side * 0.38, 0.66, back - 0.72), (0.3, 0.2, 0.08), cloth * rng.uniform(0.7, 1.3), air)
    elif kind == "cabinet":
        h = rng.uniform(0.7, 1.2)
        _box(stock, (x, h / 2, back - 0.22), (0.42, h / 2, 0.2), _wood(rng), air, second=_wood(rng), pattern=PANES,
             pitch=0.42)
        _ball(balls, (x, h + 0.06, back - 0.2), (x, h + 0.2, back - 0.2), 0.07, 0.04, _paint(rng, 0.2, 0.7, 0.4), air)
    elif kind == "radiator":
        hot = air + (rng.uniform(4, 12) if rng.random() < 0.6 else 0.0)
        _box(stock, (x, 0.55, back - 0.06), (0.45, 0.3, 0.05), _paint(rng, 0.6, 0.75, 0.02), hot,
             second=np.full(3, 0.4), pattern=BANDS, pitch=0.05)
    elif kind == "plant":
        _box(stock, (x, 0.25, back - 0.3), (0.15, 0.25, 0.15), _wood(rng), air)
        for _ in range(6):
            p = np.array([x, 0.8, back - 0.3]) + rng.normal(0.0, [0.16, 0.25, 0.1])
            _ball(balls, p, p + rng.normal(0.0, 0.1, 3), 0.09, 0.05, rng.uniform(0.5, 1.2) * np.array([0.1, 0.2, 0.06]),
                  air - 1.0, nir=0.6)
    elif kind == "door":
        _box(stock, (x, 1.02, back - 0.02), (0.42, 1.02, 0.03), _wood(rng) * 1.5, air, second=_wood(rng), pattern=PANES,
             pitch=0.42)
    else:
        on = rng.random() < 0.4
        _box(stock, (x, 1.15, back - 0.08), (0.42, 0.26, 0.03), np.full(3, 0.03), air + (9.0 if on else 1.0),
             glow=rng.uniform(0.1, 0.4) * COLD * on, day_glow=0.2 * COLD * on, nir=0.05)


def _outdoors(rng: np.random.Generator, chest: Array) -> Place:
    air = float(rng.uniform(4.0, 18.0))
    stock, balls = _Stock(), _Stock()
    back = chest[2] + rng.uniform(2.5, 7.0)
    sky = np.array([0.02, 0.03, 0.06])
    _box(stock, (0, 20.0, back), (40.0, 20.0, 40.0), sky, air - rng.uniform(12, 25), day_glow=(0.75, 0.95, 1.2),
         glow=rng.uniform(0.0, 0.02) * MOON, nir=0.0)
    for x in np.cumsum(rng.uniform(2.2, 3.6, 4)) - 7.0:
        h, wall = rng.uniform(2.2, 6.0), _paint(rng, 0.2, 0.6, 0.15)
        z = back + rng.uniform(0.0, 2.0)
        _box(stock, (x, h / 2, z), (1.25, h / 2, 0.6), wall, air + rng.uniform(0, 3), second=wall * 0.8, pattern=PLANKS,
             pitch=rng.uniform(0.15, 0.5))
        for dx in (-0.6, 0.6):
            on = rng.random() < 0.35
            _box(stock, (x + dx, 1.7, z - 0.62), (0.3, 0.42, 0.04), np.full(3, 0.06), air + rng.uniform(-1, 4),
                 second=np.full(3, 0.5), pattern=PANES, pitch=0.3, glow=0.6 * WARM * on,
                 day_glow=np.full(3, 0.15), nir=0.1)
    green = rng.uniform(0.5, 1.2) * np.array([0.10, 0.19, 0.06])
    for side in rng.choice([-1.0, 1.0], int(rng.integers(1, 3))):
        x, z = side * rng.uniform(0.5, 1.6), chest[2] + rng.uniform(0.7, 2.2)
        tall = rng.random() < 0.5
        if tall:
            _ball(balls, (x, 0, z), (x, 2.2, z), 0.10, 0.07, np.array([0.15, 0.1, 0.07]), air)
        for _ in range(9):
            p = np.array([x, 2.1 if tall else 0.55, z]) + rng.normal(0.0, [0.3, 0.22, 0.2])
            _ball(balls, p, p + rng.normal(0.0, 0.12, 3), 0.17, 0.12, green * rng.uniform(0.7, 1.3), air - 0.5, nir=0.6)
    post = np.array([rng.choice([-1, 1]) * rng.uniform(0.4, 1.0), rng.uniform(1.9, 2.4), chest[2] + rng.uniform(1, 2)])
    lit = rng.random() < 0.6
    _ball(balls, post * (1, 0, 1), post, 0.035, 0.03, np.full(3, 0.12), air, nir=0.2)
    _ball(balls, post, post - (0, -0.05, 0), 0.11, 0.09, np.full(3, 0.5), air + 8.0 * lit, glow=4.0 * SODIUM * lit)
    place = Place(True, float(rng.normal(0.0, 0.15)), np.array([0.0, 0.0, chest[2]]), air,
                  _paint(rng, 0.12, 0.35, 0.1), sky, stock.columns(), balls.columns())
    lamps = [_lamp(rng, chest, SODIUM if rng.random() < 0.6 else COLD, front=True, far=2.0)]
    if lit:
        lamps.append(Lamp(post, SODIUM, float(rng.uniform(0.3, 0.8))))
    place.night = _scaled(lamps, rng.uniform(0.1, 0.25) * MOON, chest, 1.0)
    sun = np.array([rng.uniform(-14, 14), rng.uniform(8, 18), chest[2] - rng.uniform(4, 14)])
    place.day = _scaled([Lamp(sun, np.array([1.08, 1.0, 0.88]), 200.0)], 0.5 * COLD, chest, 1.0)
    return place


def _lamp(rng: np.random.Generator, chest: Array, color: Array, *, front: bool, strength: float = 1.0,
          far: float = 1.0) -> Lamp:
    """A lamp outside the image; with ``front`` it lights the person mostly from the front."""
    away = far * rng.uniform(0.9, 2.2) * (-1.0 if front else 0.5)
    position = chest + np.array([far * rng.uniform(-1.7, 1.7), far * rng.uniform(0.1, 1.2), away])
    square = float(((position - chest) ** 2).sum())
    return Lamp(position, 0.35 + 0.65 * color * rng.uniform(0.8, 1.2, 3), strength * square)


def _scaled(lamps: list[Lamp], ambient: Array, chest: Array, glow: float) -> Lighting:
    """Scales lamps and ambient light so that the mean illuminance of the chest (half on a plane that faces the cameras,
    half from all sides) is 1; the ``lux`` of a clip multiplies it."""
    total = float(ambient.mean())
    for lamp in lamps:
        way = lamp.position - chest
        d = float(np.linalg.norm(way))
        total += lamp.strength / d**2 * float(lamp.color.mean()) * (0.5 * max(0.0, -way[2] / d) + 0.25)
    for lamp in lamps:
        lamp.strength /= total
    return Lighting(lamps, ambient / total, glow)


@dataclass
class Mover:
    """An object that moves behind or beside the person: its capsules at rest and the path of its origin.

    Attributes:
        start, end: ``(C, 3)`` meters, about its origin.
        radius: ``(C, 2)``.
        celsius: ``(C,)``.
        albedo: ``(C, 3)``; nir: ``(C,)``.
        path: ``(2, 3)`` world positions of its origin at the start and the end of the clip.
        swing: ``(3,)`` amplitude in meters of an oscillation about the path, at ``hertz`` with ``phase``.
    """

    start: Array
    end: Array
    radius: Array
    celsius: Array
    albedo: Array
    nir: Array
    path: Array
    swing: Array
    hertz: float
    phase: float

    def at(self, share: Array, t: Array) -> tuple[Array, Array]:
        """Segments ``(N, C, 3)`` after a ``share (N,)`` of the clip, at ``t (N,)`` seconds."""
        origin = self.path[0] + share[:, None] * (self.path[1] - self.path[0])
        origin = origin + np.sin(2 * np.pi * self.hertz * t + self.phase)[:, None] * self.swing
        return origin[:, None] + self.start, origin[:, None] + self.end


def sample_mover(rng: np.random.Generator, chest: Array, air: float) -> Mover:
    """A passer-by, a balloon or a swinging hanging lamp."""
    kind = str(rng.choice(["passer", "balloon", "pendulum"]))
    side = float(rng.choice([-1.0, 1.0]))
    if kind == "passer":
        bones = [((0, 1.62, 0), (0, 1.57, 0), 0.10, 0.08, 33.0), ((0, 1.3, 0), (0, 1.0, 0), 0.17, 0.16, 26.0),
                 ((-0.2, 1.38, 0), (-0.22, 0.85, 0), 0.05, 0.045, 26.5), ((0.2, 1.38, 0), (0.22, 0.85, 0), 0.05, 0.045,
                                                                           26.5),
                 ((0, 0.95, 0), (0.08, 0.1, 0), 0.11, 0.07, 25.5)]
        z = chest[2] + rng.uniform(0.6, 1.4)
        path = np.array([[side * rng.uniform(0.6, 1.3), 0, z], [-side * rng.uniform(0.1, 1.2), 0, z]])
        swing = np.array([0.0, 0.03, 0.0])
    elif kind == "balloon":
        bones = [((0, 0, 0), (0, 0.06, 0), 0.13, 0.14, air)]
        path = np.array([side * rng.uniform(0.5, 0.8), rng.uniform(1.0, 1.8), chest[2] + rng.uniform(-0.2, 0.6)])
        path = path + np.stack([np.zeros(3), rng.normal(0.0, 0.2, 3)])
        swing = rng.normal(0.0, [0.08, 0.06, 0.02])
    else:
        bones = [((0, 0, 0), (0, -0.1, 0), 0.05, 0.11, air + 3.0), ((0, 0, 0), (0, 0.7, 0), 0.01, 0.01, air)]
        path = np.array([side * rng.uniform(0.4, 0.8), rng.uniform(1.5, 1.9), chest[2] + rng.uniform(0.2, 0.8)])
        path = np.stack([path, path])
        swing = np.array([rng.uniform(0.08, 0.25), 0.0, 0.0])
    radius = np.array([b[2:4] for b in bones], float)
    color = _paint(rng, 0.08, 0.6, 0.4)
    albedo = np.tile(color, (len(bones), 1))
    if kind == "passer":
        albedo[0] = rng.uniform(0.4, 1.0) * np.array([0.6, 0.42, 0.33])
    return Mover(np.array([b[0] for b in bones], float), np.array([b[1] for b in bones], float), radius,
                 np.array([b[4] for b in bones], float), albedo, np.full(len(bones), rng.uniform(0.3, 0.6)), path,
                 swing, float(rng.uniform(0.4, 1.1)), float(rng.uniform(0, 2 * np.pi)))
