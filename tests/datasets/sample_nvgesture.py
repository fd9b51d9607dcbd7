"""NVGesture's layout and byte form, with short windows: 8 color frames, 9 of infrared.

The label of ``class_01/subject4_r2`` is not that of its folder, ``class_02/subject3_r1`` has no frame logs, and color and
depth of ``class_02/subject13_r1`` start at different frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import noise, text, video

LINE = ("path:./Video_data/{folder} depth:sk_depth:{depth}:{depth_end} color:sk_color:4:12 duo_left:duo_left:5:14 "
        "label:{label} \n")
TRAIN = {"class_01/subject3_r0": (1, 4), "class_01/subject4_r2": (2, 4), "class_02/subject3_r1": (2, 4)}
TEST = {"class_01/subject13_r0": (1, 4), "class_02/subject13_r1": (2, 3)}
START = 1440454708434336170  # Unix time in nanoseconds


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    for split, clips in (("train", TRAIN), ("test", TEST)):
        text(root / f"nvgesture_{split}_correct_cvpr2016_v2.lst", "".join(
            LINE.format(folder=folder, label=label, depth=depth, depth_end=depth + 8)
            for folder, (label, depth) in clips.items()).encode())
    for k, folder in enumerate((*TRAIN, *TEST)):
        place = root / "Video_data" / folder
        for name, frames, rate in (("sk_color", 14, 30), ("sk_depth", 14, 30), ("duo_left", 16, 35), ("duo_right", 16, 35)):
            video(place / f"{name}.avi", noise(frames, color=name == "sk_color", seed=k), rate)
            if folder != "class_02/subject3_r1":
                write_log(place / f"{name}_log.txt", frames, rate)
    text(root / "Video_data" / "class_01" / "subject3_r0" / "nucleus.txt", b"6:10")
    return {}


def write_log(file: Path, frames: int, rate: int, start: int = START) -> None:
    """A frame log: a line per frame, evenly spaced."""
    text(file, "".join(f"img{k:05d}.png {start + k * 10**9 // rate}\n" for k in range(frames)).encode())
