"""Small recordings in the containers of public downloads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np


def noise(frames: int, size: tuple[int, int] = (12, 16), *, color: bool = True, seed: int = 0) -> list[np.ndarray]:
    """Frames that all differ, ``(H, W, 3)`` or ``(H, W)``."""
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 255, (frames, *size, 3) if color else (frames, *size), dtype=np.uint8))


def video(path: Path, frames: Sequence[np.ndarray], rate: int = 30) -> Path:
    """A video without loss, of color (RGB) or gray frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = frames[0].ndim == 2
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "gray" if gray else "bgr0"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "gray" if gray else "rgb24")))
        out.mux(stream.encode())
    return path


def images(folder: Path, frames: Sequence[np.ndarray], name: str = "{:06d}.jpg") -> Path:
    """A folder of images, counted from 1; without loss if the name ends in .png."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / name.format(k)), frame if frame.ndim == 2 else frame[..., ::-1])
    return folder


def text(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
