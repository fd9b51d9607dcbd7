"""LD-ConGR's byte form, and the layout of decoded images that its authors' code expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import images, noise, text

TRAIN = b"002/g_s1_l1_00001,1 4 0,6 9 9\n003/g_s1_l1_00001,2 8 1\n"
TEST = b"004/g_s1_l1_00001,1 5 0,6 8 3,6 10 0\n"  # 6..8 is shorter than four frames


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    text(root / "train_labels.txt", TRAIN)
    text(root / "test_labels.txt", TEST)
    for subject in (2, 3, 4):
        for kind in ("color", "depth"):
            if (subject, kind) != (3, "depth"):
                images(root / "frames" / f"{subject:03d}" / f"g_s1_l1_00001_{kind}_all",
                       noise(10, color=kind == "color", seed=subject), "{:05d}.png")
    return {}
