"""Folders of clips: a split, a class, a clip, and in it a file or a folder of images for each sensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    rng = np.random.default_rng(0)
    for clip in ("training/wave/s01_1", "training/wave/s02_1", "training/stop/s01_2", "training/unlabeled/x", "val/stop/s03_1",
                 "testing/wave/s10_1"):
        (root / clip).mkdir(parents=True)
        np.savez(root / clip / "depth.npz", frames=rng.integers(500, 4000, (3, 12, 16), dtype=np.uint16))
        if not clip.endswith("x"):  # of that one the camera was absent
            (root / clip / "rgb").mkdir()
            for t in range(3):
                cv2.imwrite(str(root / clip / "rgb" / f"{t}.png"), rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    (root / "README.md").write_text("who recorded this, and where")
    return {"mirrored": {"others": "same"}, "spaces": [["rgb", "depth"]], "rate": 30.0}
