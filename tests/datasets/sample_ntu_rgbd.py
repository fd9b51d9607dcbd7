"""NTU RGB+D's layout and byte form, with made-up recordings: performers 1 and 2 train, 3 tests; camera 1 tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import recordings

NAMES = [f"S001C{camera:03d}P{performer:03d}R00{replication}A{action:03d}"
         for camera in (1, 2) for performer in (1, 2, 3) for replication in (1, 2) for action in (1, 60)]


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    for name in NAMES:
        clip(root, name)
    (root / "NTU_RGBD_samples_with_missing_skeletons.txt").write_bytes(
        b'1 of the captured samples in the "NTU RGB+D" dataset have missing or incomplete skeleton data.\n'
        b"If you are working on skeleton-based analysis, please ignore these files in your training and testing procedures.\n\n"
        + NAMES[0].encode() + b"\n")
    return {}


def clip(root: Path, name: str) -> None:
    """All recordings of a clip, of 4 frames."""
    rng = np.random.default_rng(len(name))
    for kind in ("rgb", "ir"):
        path = root / f"nturgb+d_{kind}" / f"{name}_{kind}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        recordings.write(path, "mjpeg", "yuvj420p", frames=4, size=16)
    depth = root / "nturgb+d_depth_masked" / name
    depth.mkdir(parents=True)
    for t in range(4):
        cv2.imwrite(str(depth / f"MDepth-{t + 1:08d}.png"), rng.integers(0, 4000, (10, 12)).astype(np.uint16))
    path = root / "nturgb+d_skeletons" / f"{name}.skeleton"
    path.parent.mkdir(exist_ok=True)
    path.write_text(skeleton([{"72057594037931101": rng.normal(size=(25, 3))} for _ in range(4)]))


def skeleton(frames: list[dict[str, np.ndarray]]) -> str:
    """A ``.skeleton`` file: per frame body id -> (25, 3) positions, with CRLF as in the download."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, joints in bodies.items():
            lines += [f"{body} 0 1 1 1 1 0 0.02764709 0.05745083 2", str(len(joints))]
            lines += [f"{x:.7g} {y:.7g} {z:.7g} 277.419 191.8218 1036.233 519.1677 -0.2059419 0.05349901 0.9692109 -0.1239193 2"
                      for x, y, z in joints]
    return "\r\n".join(lines) + "\r\n"
