"""VIVA's layout: no lists, everything is in the names of the files. Two subjects, as driver and as passenger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import noise, video


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    data = root / "LISA_HG_Data" / "dynamic_gestures" / "data"
    for k, name in enumerate(("01_01_01", "02_70_01", "03_01_01", "04_32_02", "04_05_01")):  # the code 5 is not used
        video(data / f"{name}.avi", noise(4, seed=k))
        if name != "02_70_01":
            video(data / "depth" / f"{name}.avi", noise(4, color=False, seed=k))
    return {}
