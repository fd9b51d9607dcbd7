"""From hits to sensor inputs: radiance (color), amplitude (depth and near-infrared) and temperature (thermal)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalift.darkroom.backdrop import Backdrop, radiance
from modalift.darkroom.body import FACE, SHIRT, Capsules, Subject
from modalift.darkroom.camera import F32, SAMPLES, Camera, Hits
from modalift.darkroom.scene import Lighting, Mover, Place
from modalift.darkroom.sensors import ThermalSensor


@dataclass
class Actors:
    """Everything that moves, in world coordinates. The first capsules are the person's, the very first is the head.

    Attributes:
        start, end: segments ``(N, M, 3)``.
        radius: ``(M, 2)``.
        albedo: ``(M, 3)``.
        nir: reflectance at 850 nm, ``(M,)``.
        celsius: ``(M,)``.
        shirt: which capsules are the shirt, ``(M,)``.
        head: the head's axes (rows right, up, forward), ``(N, 3, 3)``.
        chest, top: positions of the chest and of the top of the head, ``(3,)``.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: F32
    albedo: F32
    nir: F32
    celsius: F32
    shirt: NDArray[np.bool_]
    head: NDArray[np.float64]
    chest: NDArray[np.float64]
    top: NDArray[np.float64]


def actors(subject: Subject, capsules: Capsules, to_world: NDArray[np.float64], origin: NDArray[np.float64],
           head: NDArray[np.float64], mover: Mover | None, share: NDArray[np.float64], t: NDArray[np.float64],
           air: float) -> Actors:
    """The person, and the moving object if there is one, in world coordinates.

    Skin has 33.3 degrees Celsius in the face, ``hand_celsius`` on the hands and 32 on the arms; clothes are between skin
    and air: ``0.55 * 30 + 0.45 air``.
    """
    cloth = 0.55 * 30.0 + 0.45 * air
    kinds = np.array([32.0, 33.3, subject.hand_celsius, cloth, cloth - 0.8, 0.4 * 28 + 0.6 * air, air, air])
    start, end = capsules.start @ to_world + origin, capsules.end @ to_world + origin
    m = capsules.material
    albedo, nir, celsius, radius = subject.albedo[m], subject.nir[m], kinds[m], capsules.radius
    shirt = m == SHIRT
    if mover is not None:
        a, b = mover.at(share, t)
        start, end = np.concatenate([start, a], 1), np.concatenate([end, b], 1)
        radius = np.concatenate([radius, mover.radius])
        albedo, nir = np.concatenate([albedo, mover.albedo]), np.concatenate([nir, mover.nir])
        celsius = np.concatenate([celsius, mover.celsius])
        shirt = np.concatenate([shirt, np.zeros(len(mover.nir), bool)])
    assert m[0] == FACE
    k = subject.height / 1.75
    chest = np.array([0.0, 1.28 * k, 0.0]) @ to_world + origin
    top = np.array([0.0, subject.height, 0.0]) @ to_world + origin
    return Actors(start, end, radius.astype(np.float32), albedo.astype(np.float32), nir.astype(np.float32),
                  celsius.astype(np.float32), shirt, head @ to_world, chest, top)


def head_axes(hits: Hits, actors: Actors, camera: Camera) -> tuple[NDArray[np.int64], list[F32]]:
    """The hits on the head, and their directions from its center: right, up, forward (cosines)."""
    on = np.flatnonzero(hits.capsule == 0)
    axes = camera.turn(actors.head)[hits.moment[on]]                     # (R, 3, 3)
    n = [c[on] for c in hits.normal]
    return on, [axes[:, i, 0] * n[0] + axes[:, i, 1] * n[1] + axes[:, i, 2] * n[2] for i in range(3)]


def _hair(place: list[F32], subject: Subject) -> NDArray[np.bool_]:
    right, up, forward = place
    return (up > subject.hairline + 0.25 * right * right) & (forward < 0.85) | ((forward < -0.05) & (up > -0.6))


def tint(hits: Hits, subject: Subject, actors: Actors, camera: Camera) -> list[F32]:
    """Albedo of each hit, three arrays: cloth with stripes, a face with hair, eyes, brows and mouth."""
    albedo = [np.take(actors.albedo[:, i], hits.capsule) for i in range(3)]
    if subject.stripes:
        on = np.flatnonzero(actors.shirt[hits.capsule])
        dark = 1 - np.float32(subject.stripes) * ((hits.along[on] * 7) % 2 < 1)
        for c in albedo:
            c[on] *= dark
    on, (right, up, forward) = head_axes(hits, actors, camera)
    front = forward > 0.3
    eye = front & (np.abs(np.abs(right) - 0.36) < 0.15) & (np.abs(up - 0.10) < 0.08)
    brow = front & (np.abs(np.abs(right) - 0.36) < 0.2) & (np.abs(up - 0.30) < 0.06)
    mouth = front & (np.abs(right) < 0.28) & (np.abs(up + 0.42) < 0.07)
    hair = _hair([right, up, forward], subject)
    cheek = 1 + 0.12 * np.exp(-((np.abs(right) - 0.5) ** 2 + (up + 0.15) ** 2) / 0.06)
    for i, c in enumerate(albedo):
        face = c[on] * (cheek if i == 0 else 1.0)
        face = np.where(mouth, face * (0.75, 0.45, 0.45)[i], face)
        face = np.where(eye, face * 0.25, np.where(brow, 0.5 * face, face))
        c[on] = np.where(hair, np.float32(subject.hair[i]), face)
    return albedo


def color(hits: Hits, albedo: list[F32], scene: Backdrop, glow: F32, lighting: Lighting, actors: Actors,
           camera: Camera, frames: int) -> F32:
    """Radiance ``(T, H, W, 3)`` under the given lighting.

    On the person a lamp's light is parallel, with its strength at the chest; on the background it falls off as 1/d^2 and
    the person casts a shadow.
    """
    nx, ny, nz = hits.normal
    up = camera.turn(np.array([0.0, 1.0, 0.0]))
    # Ambient light: more from above, less from below; silhouettes are a little darker.
    hemisphere = np.float32(0.75) + np.float32(0.25) * (nx * up[0] + ny * up[1] + nz * up[2])
    hemisphere *= np.float32(0.7) + np.float32(0.3) * hits.facing
    light = [hemisphere * np.float32(a) for a in lighting.ambient]
    for lamp in lighting.lamps:
        way = lamp.position - actors.chest
        d = float(np.linalg.norm(way))
        to = camera.turn(way / d)
        lambert = np.maximum(nx * to[0] + ny * to[1] + nz * to[2], 0) * np.float32(lamp.strength / d**2)
        for i in range(3):
            light[i] += lambert * np.float32(lamp.color[i])
    behind = radiance(scene, lighting, glow, actors.top)
    image = np.empty((frames, camera.height * camera.width, 3), np.float32)
    for i in range(3):
        image[:, :, i] = composite(behind[i], hits, albedo[i] * light[i], frames).mean(0)
    return image.reshape(frames, camera.height, camera.width, 3)


def composite(behind: F32, hits: Hits, values: F32, frames: int) -> F32:
    """Samples ``(4, T, H W)``: the static scene, with the hits' values in front."""
    flat = np.repeat(behind.reshape(SAMPLES, 1, -1), frames, axis=1)
    flat.reshape(-1)[hits.index] = values
    return flat


def active(hits: Hits, scene: Backdrop, subject: Subject, actors: Actors, camera: Camera,
           frames: int) -> tuple[F32, F32]:
    """Depth in meters and amplitude ``rho cos(theta) / z^2`` of the depth camera's own light, ``(4, T, H, W)``."""
    reflects = np.take(actors.nir, hits.capsule)
    on, place = head_axes(hits, actors, camera)
    reflects[on] = np.where(_hair(place, subject), np.float32(0.16), reflects[on])
    shape = (SAMPLES, frames, camera.height, camera.width)
    z = composite(scene.depth, hits, hits.z, frames).reshape(shape)
    amplitude = composite(scene.nir * scene.facing / scene.depth**2, hits, reflects * hits.facing / hits.z**2, frames)
    return z, amplitude.reshape(shape)


def heat(hits: Hits, scene: Backdrop, subject: Subject, actors: Actors, place: Place, camera: Camera, frames: int,
         sensor: ThermalSensor) -> F32:
    """Apparent temperature ``(T, H, W)`` in degrees Celsius."""
    warm = np.take(actors.celsius, hits.capsule)
    on, spot = head_axes(hits, actors, camera)
    warm[on] = np.where(_hair(spot, subject), np.float32(0.5 * 31.0 + 0.5 * place.ambient_celsius), warm[on])
    seen = sensor.apparent(warm, place.ambient_celsius, hits.facing)
    return composite(scene.celsius, hits, seen, frames).mean(0).reshape(frames, camera.height, camera.width)
