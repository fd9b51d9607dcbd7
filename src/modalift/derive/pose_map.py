"""Joints as heat maps: pose as a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from modalift.derive.registry import derived
from modalift.derive.writing import source_view, write_view
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Row, Table, modality
from modalift.signatures import Positive

#: Groups of the first Kinect's 20 joints: left arm; right arm; head, trunk and legs.
KINECT_PARTS = ((4, 5, 6, 7), (8, 9, 10, 11), (0, 1, 2, 3, 12, 13, 14, 15, 16, 17, 18, 19))


@derived("pose_map")
def derive_pose_map(table: Table, view: str | None, out: Path, *, size: Annotated[int, Ge(8)] = 64,
                    sigma: Positive = 1.5, parts: Literal["one", "three"] | Sequence[Sequence[int]] = "one",
                    up: Literal["+y", "-y"] = "+y", focal: Positive | None = None,
                    name: str = "pose_map", progress: Callable[[int, int], None] | None = None) -> Table:
    """Joints as Gaussian heat maps: an 8-bit video of as many frames as the joints have.

    .. math:: M_c(p) = 255 \\max_{j \\in c} \\exp(-|p - p_j|^2 / 2 \\sigma^2)

    where p_j is joint j in the image and c a group of joints, one per channel. Without ``focal`` the image is the square
    around all positions of the clip, seen along z and enlarged by 10 %; with it, the image of a pinhole camera at the
    origin. Joints that are not finite are not drawn. Files are lossless (FFV1): gray for one group, RGB for three.

    Args:
        table: the clips.
        view: the view of joints ``(T, 1, 1, 3 J)`` in meters; by default the first.
        out: a new folder.
        size: height and width in pixels.
        sigma: standard deviation of the Gaussians in pixels.
        parts: ``one`` (all joints in one channel), ``three`` (arms and the rest, of the Kinect's 20 joints), or one or
            three lists of joint numbers.
        up: the direction of y in the recording: ``+y`` upwards (Kinect), ``-y`` downwards (cameras, the simulator).
        focal: focal length in image widths, of a camera at the origin that looks along z; None: see above.
        name: name of the new view.
        progress: called with (clips done, clips).

    Returns:
        The table with the new view, read back from ``out``.

    Raises:
        ModaliftError: a number of channels that is not a multiple of three, groups that do not fit the joints, or an ``out``
            that is not empty.
    """
    source = source_view(table, view, ("pose",), "pose_map")
    kind = table.modality(source)
    if kind.channels % 3:
        raise ModaliftError(f"view '{source}' has {kind.channels} numbers per frame, not three per joint")
    groups = _groups(parts, kind.channels // 3)

    def make(row: Row, file: Path) -> None:
        joints = reading.read(row.tracks[source], kind).reshape(-1, kind.channels // 3, 3)
        places = project(joints, size, up, focal)
        write_lossless(file, heat_maps(places, groups, size, sigma))

    return write_view(table, out, source, name, modality("pose_map").with_channels(len(groups)), ".mkv", make,
                      keep_space=False, progress=progress)


def _groups(parts: Literal["one", "three"] | Sequence[Sequence[int]], joints: int) -> list[list[int]]:
    if parts == "one":
        return [list(range(joints))]
    if parts == "three":
        if joints != 20:
            raise ModaliftError(f"pose_map parts 'three' is for the Kinect's 20 joints, not {joints} - give three lists"
                                " of joint numbers")
        return [list(group) for group in KINECT_PARTS]
    groups = [[int(j) for j in group] for group in parts]
    if len(groups) not in (1, 3):
        raise ModaliftError(f"pose_map has {len(groups)} parts - use one or three, as a video has one or three channels")
    if bad := [j for group in groups for j in group if not 0 <= j < joints]:
        raise ModaliftError(f"pose_map parts name joint {bad[0]}, but joints are numbered 0 to {joints - 1}")
    return groups


def project(joints: np.ndarray, size: int, up: str, focal: float | None) -> np.ndarray:
    """Joints ``(T, J, 3)`` in meters to pixels ``(T, J, 2)``; NaN if a joint is unknown or behind the camera."""
    x, y, z = np.moveaxis(joints.astype(np.float64), -1, 0)
    y = -y if up == "+y" else y
    if focal is not None:
        z = np.where(z > 0, z, np.nan)
        return np.stack([(0.5 + focal * x / z) * size, (0.5 + focal * y / z) * size], axis=-1) - 0.5
    flat = np.stack([x, y], axis=-1)
    if not np.isfinite(flat).any():
        return np.full_like(flat, np.nan)
    low, high = np.nanmin(flat, axis=(0, 1)), np.nanmax(flat, axis=(0, 1))
    side = max(float((high - low).max()) * 1.1, 1e-6)
    return ((flat - (low + high) / 2) / side + 0.5) * size - 0.5


def heat_maps(places: np.ndarray, groups: Sequence[Sequence[int]], size: int, sigma: float) -> np.ndarray:
    """Gaussians around pixels ``(T, J, 2)``: ``(T, size, size, groups)`` uint8, 255 at a joint.

    Example:
        >>> heat_maps(np.array([[[4.0, 2.0]]]), [[0]], 8, 1.0)[0, 2, 4]
        array([255], dtype=uint8)
    """
    grid = np.arange(size)
    along = np.exp(-(((grid - places[..., None]) / sigma) ** 2) / 2)  # (T, J, 2, size): a Gaussian is separable
    along = np.nan_to_num(along)
    maps = np.zeros((len(places), size, size, len(groups)))
    for c, group in enumerate(groups):
        for j in group:
            np.maximum(maps[..., c], along[:, j, 1, :, None] * along[:, j, 0, None, :], out=maps[..., c])
    return np.rint(maps * 255).astype(np.uint8)


def write_lossless(file: Path, frames: np.ndarray, rate: int = 30) -> None:
    """``(T, H, W, 1 or 3)`` uint8 as FFV1 in Matroska, gray or RGB."""
    import av

    given, stored = ("gray", "gray") if frames.shape[3] == 1 else ("rgb24", "bgr0")
    with av.open(str(file), "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=rate, options={"flags": "+bitexact", "level": "3", "g": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], stored
        stream.codec_context.thread_count = 1
        for image in frames:
            image = np.ascontiguousarray(image[..., 0] if given == "gray" else image)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=given)))
        container.mux(stream.encode(None))
