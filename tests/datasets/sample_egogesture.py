"""EgoGesture's layout and byte form: archives unpacked beside each other, names in either case, a row that is junk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import images, noise, text

#: Subject (3 train, 1 val, 2 test) -> archive and gestures of its only group.
GROUPS = {3: (1, b"59,1,3\n63,4,6\n ,,"), 4: (1, b"1,2,5"), 1: (2, b"2,1,2\n1,3,6\n"), 2: (5, b"83,1,6")}


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    for subject, (archive, rows) in GROUPS.items():
        scene = root / f"images_320-240_{archive}" / f"Subject{subject:02d}" / "Scene1"
        images(scene / "Color" / "rgb1", noise(6, seed=subject))
        images(scene / "Depth" / "depth1", noise(6, color=False, seed=subject))
        name = "group1.csv" if subject == 4 else "Group1.csv"
        text(root / "labels-final-revised1" / f"subject{subject:02d}" / "Scene1" / name, rows)
    return {}
