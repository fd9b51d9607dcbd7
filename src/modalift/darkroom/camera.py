"""Cameras and the rasterizer: which surface each ray hits, for many moments at once.

A pixel has four rays (a rotated grid), each with its own offset inside the pixel *and* its own moment of the exposure,
so that the same four samples give anti-aliasing and motion blur. Arrays are ordered ``(4, T, H, W)``.

Camera coordinates are x right, y down, z along the optical axis, in meters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

SAMPLES = 4
#: Offsets (x, y) of the four rays inside a pixel, and the share of the exposure time at which each is taken.
OFFSETS = np.array([[0.125, 0.625], [0.375, 0.125], [0.625, 0.875], [0.875, 0.375]], np.float32)
MOMENTS = np.array([0.125, 0.625, 0.375, 0.875])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        height, width: pixels.
        fov: horizontal field of view in degrees.
        position: ``(3,)`` in the world (x right, y up, z away from the cameras).
        axes: ``(3, 3)``, rows are the camera's x, y, z in the world.
    """

    height: int
    width: int
    fov: float
    position: NDArray[np.float64]
    axes: NDArray[np.float64]

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.width / (2.0 * float(np.tan(np.radians(self.fov) / 2)))

    def into(self, points: NDArray[np.float64]) -> F32:
        """World points ``(..., 3)`` in camera coordinates."""
        return ((points - self.position) @ self.axes.T).astype(np.float32)

    def turn(self, vectors: NDArray[np.float64]) -> F32:
        """World directions ``(..., 3)`` in camera coordinates."""
        return (vectors @ self.axes.T).astype(np.float32)

    def columns(self) -> F32:
        """x of the rays at depth 1, ``(4, W)``."""
        x = np.arange(self.width, dtype=np.float32) + OFFSETS[:, :1]
        return ((x - self.width / 2) / self.focal).astype(np.float32)

    def rows(self) -> F32:
        """y of the rays at depth 1, ``(4, H)``."""
        y = np.arange(self.height, dtype=np.float32) + OFFSETS[:, 1:]
        return ((y - self.height / 2) / self.focal).astype(np.float32)


def look_at(position: NDArray[np.float64], target: NDArray[np.float64], roll: float = 0.0) -> NDArray[np.float64]:
    """Axes of a camera at ``position`` that looks at ``target``, rolled by ``roll`` radians."""
    z = target - position
    z = z / np.linalg.norm(z)
    x = np.array([z[2], 0.0, -z[0]]) / np.hypot(z[0], z[2])
    # y points down: the negative of the world's up, without its component along z.
    y = -(np.array([0.0, 1.0, 0.0]) - z[1] * z)
    y /= np.linalg.norm(y)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * x + s * y, -s * x + c * y, z])


@dataclass
class Hits:
    """The rays that hit a capsule.

    Attributes:
        index: ``(R,)`` flat index into ``(4, T, H, W)``.
        moment: ``(R,)`` index into the N moments.
        capsule: ``(R,)`` index of the capsule.
        along: ``(R,)`` position along its axis, 0 at its start .. 1 at its end.
        z: ``(R,)`` depth in meters.
        normal: three arrays ``(R,)``: the surface's outward normal in the camera frame.
        facing: ``(R,)`` cosine between the normal and the ray back to the camera.
    """

    index: NDArray[np.intp]
    moment: NDArray[np.int32]
    capsule: NDArray[np.int32]
    along: F32
    z: F32
    normal: tuple[F32, F32, F32]
    facing: F32


def rasterize(camera: Camera, start: F32, end: F32, radius: F32, depth: F32) -> Hits:
    """Which capsule each ray hits first.

    A capsule is a ball that moves along its segment while its radius changes linearly. For a ray ``t d``
    (``d = (x, y, 1)``, so t is depth) the ball is placed where the axis is closest to the ray,

        s = (d.e * d.a - d.d * a.e) / (d.d * e.e - (d.e)^2),   e = b - a,   s in [0, 1],

    and the ray is intersected with that ball. The silhouette is exact for a constant radius; on a limb that points at the
    camera, depth is wrong by a fraction of its radius.

    Args:
        camera: the camera.
        start, end: ends of the capsules in its coordinates, ``(N, M, 3)``, N = 4 T, ordered ``(4, T)``.
        radius: ``(M, 2)`` in meters.
        depth: ``(4, H, W)`` depth of the static scene in meters, which hides what is behind it.
    """
    N, M, _ = start.shape
    H, W, T = camera.height, camera.width, N // SAMPLES
    nearest = np.repeat(depth.reshape(SAMPLES, 1, H * W), T, axis=1).reshape(-1)
    owner = np.full(nearest.shape, -1, np.int16)
    place = np.empty(nearest.shape, np.float32)
    columns = np.repeat(camera.columns(), T, axis=0)                     # (N, W)
    rows = np.repeat(camera.rows(), T, axis=0)
    windows = _windows(camera, start, end, radius)
    first = (np.arange(N, dtype=np.int32) * (H * W))[:, None, None]
    moments = np.arange(N)[:, None]
    for m in range(M):
        x0, y0, w, h = windows[0][m], windows[1][m], int(windows[2][m]), int(windows[3][m])
        if w <= 0 or h <= 0:
            continue
        xi = x0[:, None] + np.arange(w, dtype=np.int32)                  # (N, w)
        yi = y0[:, None] + np.arange(h, dtype=np.int32)
        u, v = columns[moments, xi][:, None, :], rows[moments, yi][:, :, None]
        hit, s, z = _intersect(u, v, start[:, m], end[:, m] - start[:, m], float(radius[m, 0]), float(radius[m, 1]))
        if not hit.size:
            continue
        where = (first + yi[:, :, None] * np.int32(W) + xi[:, None, :]).reshape(-1)[hit]
        wins = z < nearest[where]
        where = where[wins]
        nearest[where] = z[wins]
        owner[where] = m
        place[where] = s[wins]
    return _surface(camera, start, end, radius, nearest, owner, place)


def _windows(camera: Camera, start: F32, end: F32, radius: F32) -> tuple[NDArray[np.int32], ...]:
    """The box of pixels that each capsule may cover: left ``(M, N)``, top ``(M, N)``, width ``(M,)``, height ``(M,)``.

    The size is the largest over time, so that all moments form one array.
    """
    r = radius.max(axis=1)
    f = camera.focal
    near = np.minimum(start[..., 2], end[..., 2]) - r
    # Capsules closer than 0.3 m to the camera plane are left out; there are none in practice.
    out = near.min(axis=0) < 0.3
    margin = f * r / np.maximum(near, 0.3) + 1.0
    boxes = []
    for axis, size in ((0, camera.width), (1, camera.height)):
        a = f * start[..., axis] / np.maximum(start[..., 2], 0.3) + size / 2
        b = f * end[..., axis] / np.maximum(end[..., 2], 0.3) + size / 2
        low = np.clip(np.floor(np.minimum(a, b) - margin), 0, size).astype(np.int32)
        high = np.clip(np.ceil(np.maximum(a, b) + margin), 0, size).astype(np.int32)
        extent = np.where(out, 0, (high - low).max(axis=0)).astype(np.int32)
        boxes.append((np.minimum(low, size - extent).T, extent))
    return boxes[0][0], boxes[1][0], boxes[0][1], boxes[1][1]


def _intersect(u: F32, v: F32, a: F32, e: F32, r0: float, r1: float) -> tuple[NDArray[np.int64], F32, F32]:
    """Flat indices of the rays ``(N, h, w)`` that hit the capsule, positions along its axis, and depths."""
    ax, ay, az = (a[:, i, None, None] for i in range(3))
    ex, ey, ez = (e[:, i, None, None] for i in range(3))
    aa, ae, ee = ((p * q).sum(1, dtype=np.float32)[:, None, None] for p, q in ((a, a), (a, e), (e, e)))
    dd = u * u + (v * v + 1)
    da = u * ax + (v * ay + az)
    de = u * ex + (v * ey + ez)
    below = dd * ee
    below -= de * de
    np.maximum(below, np.float32(1e-9), out=below)
    s = de * da
    s -= dd * ae
    s /= below
    np.clip(s, 0, 1, out=s)
    de *= s
    da += de                                        # d . center
    q = s * ee
    q += 2 * ae
    q *= s
    q += aa                                         # center . center
    r = s * np.float32(r1 - r0)
    r += np.float32(r0)
    r *= r
    q -= r
    q *= dd
    h = da * da
    h -= q
    hit = np.flatnonzero(h > 0)
    z = da.reshape(-1)[hit] - np.sqrt(h.reshape(-1)[hit])
    z /= dd.reshape(-1)[hit]
    return hit, s.reshape(-1)[hit], z


def _surface(camera: Camera, start: F32, end: F32, radius: F32, nearest: F32, owner: NDArray[np.int16],
             place: F32) -> Hits:
    N, M, _ = start.shape
    H, W, T = camera.height, camera.width, N // SAMPLES
    index = np.flatnonzero(owner >= 0)
    moment, pixel = np.divmod(index.astype(np.int32), np.int32(H * W))
    y, x = np.divmod(pixel, np.int32(W))
    sample = moment // T
    capsule, s, z = owner[index].astype(np.int32), place[index], nearest[index]
    u = camera.columns().reshape(-1)[sample * W + x]
    v = camera.rows().reshape(-1)[sample * H + y]
    entry = moment * M + capsule
    span = (end - start).reshape(-1, 3)
    base = start.reshape(-1, 3)
    r = radius[:, 0][capsule] + s * (radius[:, 1] - radius[:, 0])[capsule]
    scale = 1 / r
    nx, ny, nz = ((p - base[:, i][entry] - s * span[:, i][entry]) * scale for i, p in enumerate((u * z, v * z, z)))
    facing = -(u * nx + v * ny + nz) / np.sqrt(u * u + v * v + 1)
    return Hits(index, moment, capsule, s, z, (nx, ny, nz), np.maximum(facing, 0))
