"""ARID's layout and byte form, with made-up clips: the lists say .avi, the videos are .mp4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import recordings

LISTS = {"train": b"0\t0\tDrink/Drink_11_1.avi\n1\t0\tDrink/Drink_11_2.avi\n2\t10\tWave/Wave_3_1.avi\n",
         "test": b"0\t0\tDrink/Drink_2_1.avi\n1\t10\tWave/Wave_4_1.avi\n", "other": b"0\t10\tWave/Wave_5_1.avi\n"}


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    (root / "list_cvt").mkdir(parents=True)
    for part, lines in LISTS.items():
        (root / "list_cvt" / f"ARID_split1_{part}.txt").write_bytes(lines)
        for line in lines.decode().splitlines():
            path = (root / "clips_v1" / line.split("\t")[2]).with_suffix(".mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            recordings.write(path, "mpeg4", "yuv420p", frames=4, size=16)
    (root / "list_cvt" / "mapping_table.txt").write_bytes(b"0\tDrink\n10\tWave\n")
    return {}
