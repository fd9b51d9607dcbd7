"""Jester's layout and byte form: semicolons, no header, hidden test labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import images, noise, text

LISTS = {"train": b"34870;Drumming Fingers\n56557;Sliding Two Fingers Right\n8;Swiping Left\n",
         "validation": b"9223;Thumb Up\n107090;Pushing Two Fingers Away\n", "test": b"109621\n145149\n"}


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    for split, lines in LISTS.items():
        text(root / f"jester-v1-{split}.csv", lines)
        for line in lines.splitlines():
            clip = line.split(b";")[0].decode()
            images(root / "20bn-jester-v1" / clip, noise(3, seed=int(clip)), "{:05d}.jpg")
    return {}
