"""The static scene as a camera sees it, computed once per clip for the four samples of each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalift.darkroom.camera import F32, SAMPLES, Camera, rasterize
from modalift.darkroom.scene import BANDS, PANES, PLANKS, Lighting, Place


@dataclass
class Backdrop:
    """The static scene per ray.

    Attributes:
        depth: meters, ``(4, H, W)``.
        facing: cosine between normal and ray, ``(4, H, W)``.
        nir: reflectance at 850 nm, ``(4, H, W)``.
        celsius: ``(4, H, W)``.
        point, normal, albedo: three arrays each, ``(4 H W,)``, in world coordinates.
        occlusion: share of the ambient light that arrives, ``(4 H W,)``.
        night_glow, day_glow: emitted radiance, ``(4 H W, 3)``.
    """

    depth: F32
    facing: F32
    nir: F32
    celsius: F32
    point: tuple[F32, F32, F32]
    normal: tuple[F32, F32, F32]
    albedo: tuple[F32, F32, F32]
    occlusion: F32
    night_glow: F32
    day_glow: F32


#: Shades of bands and books, indexed by a hash.
_SHADES = np.random.default_rng(7).random(1024, np.float32)


def _rays(camera: Camera, turn: NDArray[np.float64]) -> list[F32]:
    """Ray directions at depth 1 in the place's frame, three arrays ``(4 H W,)``."""
    u, v = camera.columns()[:, None, :], camera.rows()[:, :, None]
    axes = (camera.axes @ turn.T).astype(np.float32)
    return [(u * axes[0, i] + v * axes[1, i] + axes[2, i]).reshape(-1) for i in range(3)]


def _turn(place: Place) -> NDArray[np.float64]:
    c, s = np.cos(place.yaw), np.sin(place.yaw)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def backdrop(camera: Camera, place: Place) -> Backdrop:
    """Casts rays into the static scene: boxes by the slab method, balls by :func:`~modalift.darkroom.camera.rasterize`."""
    turn = _turn(place)
    rays = _rays(camera, turn)
    origin = ((camera.position - place.pivot) @ turn.T + place.pivot).astype(np.float32)
    inverse: list[F32] = [(1 / np.where(np.abs(d) < 1e-6, np.float32(1e-6), d)).astype(np.float32) for d in rays]
    boxes = place.boxes
    low, high = boxes["low"].astype(np.float32), boxes["high"].astype(np.float32)
    depth, owner = _walls(inverse, low[0] - origin, high[0] - origin), np.zeros(rays[0].shape, np.int16)
    for b in range(1, len(low)):
        enter = np.full(depth.shape, 0.2, np.float32)
        leave = depth.copy()
        for i in range(3):
            a, c = inverse[i] * (low[b, i] - origin[i]), inverse[i] * (high[b, i] - origin[i])
            np.maximum(enter, np.minimum(a, c), out=enter)
            np.minimum(leave, np.maximum(a, c), out=leave)
        hit = np.flatnonzero(enter < leave)
        depth[hit] = enter[hit]
        owner[hit] = b
    return _dress(camera, place, turn, rays, origin, depth, owner)


def _walls(inverse: list[F32], low: F32, high: F32) -> F32:
    far = [np.maximum(inverse[i] * low[i], inverse[i] * high[i]) for i in range(3)]
    return np.minimum(np.minimum(far[0], far[1]), far[2])


def _dress(camera: Camera, place: Place, turn: NDArray[np.float64], rays: list[F32], origin: F32, depth: F32,
           owner: NDArray[np.int16]) -> Backdrop:
    """Materials, normals and emitted light of the boxes that the rays hit, then the balls over them."""
    boxes = {k: v.astype(np.float32) for k, v in place.boxes.items()}
    point = [origin[i] + depth * rays[i] for i in range(3)]
    half = (boxes["high"] - boxes["low"]) / 2
    middle = (boxes["high"] + boxes["low"]) / 2
    local = [point[i] - middle[:, i][owner] for i in range(3)]
    share = [np.abs(local[i]) * (1 / half[:, i])[owner] for i in range(3)]
    axis = np.where(share[0] > np.maximum(share[1], share[2]), 0, np.where(share[1] > share[2], 1, 2))
    inside = np.where(owner == 0, np.float32(-1), np.float32(1))
    normal = [np.where(axis == i, np.sign(local[i]), np.float32(0)) * inside for i in range(3)]
    pattern, pitch = boxes["pattern"].astype(np.int16)[owner], boxes["pitch"][owner]
    across, upward = np.where(axis == 0, local[2], local[0]), local[1]
    mix = _pattern(pattern, pitch, across, upward, owner)
    floor, ceiling = (owner == 0) & (point[1] < 0.01), (owner == 0) & (axis == 1) & (point[1] > 1)
    first, second = boxes["albedo"][owner], boxes["second"][owner]
    albedo = first + mix[:, None] * (second - first)
    albedo[floor] = place.floor * (1 - 0.25 * (np.floor(5 * point[0][floor]) % 2))[:, None]
    albedo[ceiling] = place.ceiling if not place.outdoor else first[ceiling]
    # Corners receive less ambient light: a cheap approximation of ambient occlusion.
    gap = [half[0, i] - np.abs(local[i]) for i in range(3)]              # to the walls of box 0; one of them is 0
    edge = np.maximum(np.minimum(gap[0], gap[1]), np.minimum(np.maximum(gap[0], gap[1]), gap[2]))
    occlusion = 1 - 0.35 * np.exp(-np.maximum(edge, 0) / 0.25) * (owner == 0)
    occlusion -= 0.25 * np.exp(-np.maximum(point[1], 0) / 0.2)
    lit = (1 - mix * (pattern == PANES))[:, None]
    night, day = boxes["glow"][owner] * lit, boxes["day_glow"][owner] * lit
    if place.outdoor:
        night[floor], day[floor] = 0, 0
    celsius = boxes["celsius"][owner] + np.where(owner == 0, 0.6 * (point[1] - 1.2), 0).clip(-1.5, 1.5)
    if place.outdoor:
        celsius = np.where(floor, np.float32(place.ambient_celsius), celsius)
    length = np.sqrt(sum(r * r for r in rays))
    facing = (np.abs(sum(n * r for n, r in zip(normal, rays, strict=True))) / length).astype(np.float32)
    # To world coordinates, as those of lamps and balls.
    spot = np.stack(point, -1) - place.pivot
    world = (spot @ turn + place.pivot).astype(np.float32)
    up = (np.stack(normal, -1) @ turn).astype(np.float32)
    scene = Backdrop(depth, facing, boxes["nir"][owner].copy(), celsius.astype(np.float32),
                     (world[:, 0], world[:, 1], world[:, 2]), (up[:, 0], up[:, 1], up[:, 2]),
                     (albedo[:, 0], albedo[:, 1], albedo[:, 2]), occlusion.astype(np.float32), night, day)
    _balls(camera, place, scene)
    shape = (SAMPLES, camera.height, camera.width)
    scene.depth, scene.facing = scene.depth.reshape(shape), scene.facing.reshape(shape)
    scene.nir, scene.celsius = scene.nir.reshape(shape), scene.celsius.reshape(shape)
    return scene


def _pattern(pattern: NDArray[np.int16], pitch: F32, across: F32, upward: F32, owner: NDArray[np.int16]) -> F32:
    """Share (0..1) of the pattern's second color at each point."""
    mix = np.zeros(across.shape, np.float32)
    for kind in (BANDS, PANES, PLANKS):
        on = np.flatnonzero(pattern == kind)
        x, y = across[on] / pitch[on], upward[on] / pitch[on]
        if kind == PANES:
            mix[on] = (np.abs(x - np.round(x)) < 0.06) | (np.abs(y - np.floor(y) - np.float32(0.5)) > 0.44)
            continue
        # Each band has its own shade; planks are rows of books 5 cm wide.
        cell = np.floor(x if kind == BANDS else across[on] / np.float32(0.05)).astype(np.int64)
        row = 0 if kind == BANDS else np.floor(y).astype(np.int64)
        mix[on] = _SHADES[(cell * 7919 + row * 3571 + owner[on].astype(np.int64) * 1299709) & 1023]
    return mix


def _balls(camera: Camera, place: Place, scene: Backdrop) -> None:
    """Draws the static capsules over the boxes, in place."""
    balls = place.balls
    if not balls:
        return
    start, end = (np.broadcast_to(camera.into(balls[k]), (SAMPLES, *balls[k].shape)) for k in ("start", "end"))
    hits = rasterize(camera, start, end, balls["radius"].astype(np.float32),
                     scene.depth.reshape(SAMPLES, camera.height, camera.width))
    at, c = hits.index, hits.capsule
    scene.depth[at], scene.facing[at] = hits.z, hits.facing
    scene.nir[at], scene.celsius[at] = balls["nir"][c], balls["celsius"][c]
    u, v = camera.columns()[:, None, :], camera.rows()[:, :, None]
    u, v = (np.broadcast_to(a, (SAMPLES, camera.height, camera.width)).reshape(-1)[at] for a in (u, v))
    axes = camera.axes.astype(np.float32)
    for i in range(3):
        scene.point[i][at] = camera.position[i] + hits.z * (u * axes[0, i] + v * axes[1, i] + axes[2, i])
        scene.normal[i][at] = sum(hits.normal[j] * axes[j, i] for j in range(3))
        scene.albedo[i][at] = balls["albedo"][c, i]
    scene.occlusion[at] = 0.9
    scene.night_glow[at] = balls["glow"][c]
    scene.day_glow[at] = 0.15 * balls["glow"][c]


def radiance(scene: Backdrop, lighting: Lighting, glow: F32, person: NDArray[np.float64]) -> F32:
    """Radiance ``(3, 4 H W)`` of the static scene under the given lighting, with a person's soft shadow.

    A Lambertian surface of albedo rho under illuminance E has radiance ``rho E`` (the factor 1/pi is in the sensor's
    gain); the light of lamps falls off as 1/d^2.

    Args:
        person: ``(3,)`` top of the head; the shadow is that of a vertical axis below it, with 0.2 m radius and soft edges.
    """
    light = [scene.occlusion * np.float32(a) * (0.8 + 0.2 * scene.normal[1]) for a in lighting.ambient]
    for lamp in lighting.lamps:
        way = [np.float32(lamp.position[i]) - scene.point[i] for i in range(3)]
        square = way[0] * way[0] + way[1] * way[1] + way[2] * way[2]
        cosine = way[0] * scene.normal[0] + way[1] * scene.normal[1] + way[2] * scene.normal[2]
        falls = np.maximum(cosine, 0) * np.float32(lamp.strength) / (square * np.sqrt(square))
        falls *= _shadow(scene, way, person)
        for i in range(3):
            light[i] += falls * np.float32(lamp.color[i])
    return np.stack([scene.albedo[i] * light[i] + np.float32(lighting.glow) * glow[:, i] for i in range(3)]).astype(
        np.float32)


def _shadow(scene: Backdrop, way: list[F32], person: NDArray[np.float64]) -> F32:
    """1 in the light .. 0.15 in the shadow of the person."""
    dx, dz = scene.point[0] - np.float32(person[0]), scene.point[2] - np.float32(person[2])
    flat = way[0] * way[0] + way[2] * way[2] + np.float32(1e-6)
    s = np.clip(-(dx * way[0] + dz * way[2]) / flat, 0, 1)
    off = np.hypot(dx + s * way[0], dz + s * way[2])
    over = scene.point[1] + s * way[1] - np.float32(person[1])
    gap = np.maximum(off - 0.2, over)
    # The edge is softer the farther the wall is from the person.
    soft = 0.05 + 0.25 * s
    x = np.clip(gap / soft + 0.5, 0, 1)
    dark = np.where((s > 0.02) & (s < 0.98), 1 - x * x * (3 - 2 * x), 0)
    return (1 - 0.85 * dark).astype(np.float32)
