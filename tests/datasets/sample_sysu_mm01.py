"""SYSU-MM01's layout and byte form, on made-up persons.

Persons 1 and 2 train, 4 val, 6 test, 9 is in no list; camera 6 never saw person 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    exp = root / "exp"
    exp.mkdir(parents=True)
    (exp / "train_id.txt").write_bytes(b"1,2")
    (exp / "val_id.txt").write_bytes(b"4")
    (exp / "test_id.txt").write_bytes(b"6")
    for camera in range(1, 7):
        for person in (1, 2, 4, 6, 9):
            for k in (1, 2):
                if (camera, person) != (6, 2):
                    image(root / f"cam{camera}" / f"{person:04d}" / f"{k:04d}.jpg", camera not in (3, 6))
    return {}


def image(path: Path, color: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (24, 10, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise if color else np.repeat(noise[..., :1], 3, 2))
