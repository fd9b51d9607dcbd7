"""IsoGD's layout and byte form: lists beside the folders train, valid and test; the labels of the test clips are hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import noise, text, video

LISTS = {"train": {1: 26, 2: 19, 3: 1}, "valid": {1: 109, 2: 249}, "test": {1: 0, 2: 0}}


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    for folder, clips in LISTS.items():
        text(root / f"{folder}_list.txt", "".join(
            f"{folder}/001/M_{k:05d}.avi {folder}/001/K_{k:05d}.avi {label}\n" for k, label in clips.items()).encode())
        for k in clips:
            frames, seed = 2 if folder == "valid" else 4, 1000 * len(folder) + 10 * k + ord(folder[1])
            video(root / folder / "001" / f"M_{k:05d}.avi", noise(frames, seed=seed))
            video(root / folder / "001" / f"K_{k:05d}.avi", noise(frames, color=False, seed=seed))
    return {}
