"""Optical flow of a video view."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from modalift.derive.registry import derived
from modalift.derive.writing import source_view, write_view
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table, modality

SOURCES = ("rgb", "gray", "nir", "thermal", "pseudo_ir", "depth")
Method = Literal["dis", "farneback"]


@derived("flow")
def derive_flow(table: Table, view: str | None, out: Path, *, method: Method = "dis", name: str = "flow",
                progress: Callable[[int, int], None] | None = None) -> Table:
    """Optical flow between neighboring frames, in pixels per frame at the source's resolution.

    Each clip becomes ``<name>/<clip>.npz`` with one array ``flow``, ``(T, H, W, 2)`` float16 (x to the right, y down,
    limited to +-64 pixels per frame, rounded to at most 1/32). Frame t has the motion from frame t to t + 1; the last frame
    repeats the one before, so that the view is as long as its source. A clip of one frame has zero flow.

    Args:
        table: the clips.
        view: the video view; by default the first.
        out: a new folder.
        method: ``dis`` (dense inverse search, medium preset) or ``farneback`` (as MTUT used, Abavisani et al. 2019,
            section 4; about ten times slower).
        name: name of the new view.
        progress: called with (clips done, clips).

    Returns:
        The table with the flow view, read back from ``out``.

    Raises:
        ModaliftError: an unknown method, a view that is not a video, or an ``out`` that is not empty.
    """
    source = source_view(table, view, SOURCES, "flow")
    kind = table.modality(source)

    def make(row: Row, file: Path) -> None:
        np.savez_compressed(file, flow=flow_of(reading.read(row.tracks[source], kind), kind, method).astype(np.float16))

    return write_view(table, out, source, name, modality("flow"), ".npz", make, progress=progress)


def flow_of(frames: np.ndarray, kind: Modality, method: Method = "dis") -> np.ndarray:
    """Flow of a clip ``(T, H, W, C)``: ``(T, H, W, 2)`` float32, in pixels per frame, limited to +-64.

    Example:
        >>> still = np.zeros((3, 32, 32, 1), np.uint8)
        >>> flow_of(still, modality("gray")).shape
        (3, 32, 32, 2)
    """
    gray = _gray8(frames, kind)
    T, H, W = gray.shape
    flow = np.zeros((T, H, W, 2), np.float32)
    if min(H, W) < 16:
        raise ModaliftError(f"flow needs images of at least 16 x 16 pixels, not {W} x {H}")
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for t in range(T - 1):
        if method == "dis":
            flow[t] = search.calc(gray[t], gray[t + 1], None)  # type: ignore[call-overload]
        else:
            flow[t] = cv2.calcOpticalFlowFarneback(gray[t], gray[t + 1], None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
    if T > 1:
        flow[-1] = flow[-2]
    limit = modality("flow").high
    return np.clip(flow, -limit, limit)


def _gray8(frames: np.ndarray, kind: Modality) -> np.ndarray:
    """``(T, H, W)`` uint8: luma of color; 16-bit readings scaled from the 1st to the 99th percentile of valid ones."""
    if frames.shape[3] == 3:
        return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    gray = frames[..., 0]
    if gray.dtype == np.uint8:
        return np.ascontiguousarray(gray)
    valid = gray[gray != kind.invalid] if kind.invalid is not None else gray
    low, high = np.percentile(valid, [1, 99]) if valid.size else (0.0, 1.0)
    scaled = (gray.astype(np.float32) - low) * (254.0 / max(high - low, 1.0)) + 1.0
    return np.where(gray == kind.invalid, 0, np.clip(scaled, 1, 255)).astype(np.uint8)
