"""PKU-MMD's layout and byte form, with made-up recordings and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import recordings

LABELS = {"0002-L": b"32,4,9,2\n4,9,14,2\n", "0002-M": b"32,4,9,1\n4,10,14,2\n", "0002-R": b"4,9,14,2\n32,0,9,0\n",
          "0043-L": b"1,2,8,2\n1,9,8,2\n", "0291-L": b"32,3,12,2\n", "0291-M": b"4,1,19,2\n"}


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with. The window of 0291-M ends after its video."""
    labels, split = root / "Label" / "Train_Label_PKU_final", root / "Split"
    for folder in (labels, split, *(root / "Data" / kind for kind in ("RGB_VIDEO", "IR_VIDEO", "DEPTH_VIDEO",
                                                                      "PKU_Skeleton_Renew"))):
        folder.mkdir(parents=True)
    (split / "cross-subject.txt").write_bytes(b"Training videos: \n0002-L, 0002-M, 0002-R, 0043-L, \n"
                                              b"Validataion videos: \n0291-L, 0291-M,\n")
    (split / "cross-view.txt").write_bytes(b"Training videos: \n0002-L, 0002-R, 0043-L, 0291-L, \n"
                                           b"Validataion videos: \n0002-M, 0291-M,\n")
    for name, rows in LABELS.items():
        (labels / f"{name}.txt").write_bytes(rows)
        recordings.write(root / "Data" / "RGB_VIDEO" / f"{name}.avi", "mjpeg", "yuvj420p", frames=16, size=16)
        recordings.write(root / "Data" / "IR_VIDEO" / f"{name}-infrared.avi", "mjpeg", "yuvj420p", frames=16, size=16)
        recordings.write(root / "Data" / "DEPTH_VIDEO" / f"{name}-depth.avi", "ffv1", "gray16le", frames=16, size=16)
        joints = np.random.default_rng(0).normal(size=(16, 150))
        joints[:, 75:] = 0  # no second person
        (root / "Data" / "PKU_Skeleton_Renew" / f"{name}.txt").write_text(
            "".join(" ".join(f"{x:.6f}" for x in row) + " \n" for row in joints))
    return {}
