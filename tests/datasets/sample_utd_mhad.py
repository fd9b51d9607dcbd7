"""UTD-MHAD's layout and byte form, with made-up recordings of two actions by subjects 1 and 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import recordings
from matlab_files import matlab

FRAMES, SAMPLES = 6, 11


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with. One clip has no inertial recording."""
    for folder in ("RGB-part1", "RGB-part2", "Depth", "Skeleton", "Inertial"):
        (root / folder).mkdir(parents=True)
    for action in (1, 27):
        for subject in (1, 2):
            name = f"a{action}_s{subject}_t1"
            recordings.write(root / ("RGB-part1" if action == 1 else "RGB-part2") / f"{name}_color.avi", "mjpeg", "yuvj420p",
                             frames=FRAMES, size=16)
            (root / "Depth" / f"{name}_depth.mat").write_bytes(matlab("d_depth", depth()))
            (root / "Skeleton" / f"{name}_skeleton.mat").write_bytes(matlab("d_skel", joints()))
            if (action, subject) != (27, 2):
                (root / "Inertial" / f"{name}_inertial.mat").write_bytes(matlab("d_iner", inertial()))
    return {}


def depth() -> np.ndarray:
    """(H, W, T), millimeters."""
    return np.random.default_rng(0).integers(0, 4000, (12, 16, FRAMES)).astype(np.uint16)


def joints() -> np.ndarray:
    """(20, 3, T), meters."""
    return np.random.default_rng(1).normal(size=(20, 3, FRAMES))


def inertial() -> np.ndarray:
    """(N, 6)."""
    return np.random.default_rng(2).normal(size=(SAMPLES, 6))
