"""IPN Hand's layout and byte form: one video decoded into images, one not; names with a hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import images, noise, text, video

TRAIN = b"1CM1_4_R_#229,D0X,1,1,2,2\n1CM1_4_R_#229,G11,14,3,5,3\n1CM1_4_R_#229,B0B,3,6,8,3\n"
TEST = b"4CM11_7_R_#9,B0A,2,1,3,3\n4CM11_7_R_#9,D0X,1,4,4,1\n4CM11_7_R_#9,G01,4,5,8,4\n"


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    text(root / "annotations" / "Annot_TrainList.txt", TRAIN)
    text(root / "annotations" / "Annot_TestList.txt", TEST)
    text(root / "annotations" / "Annot_List.txt",
         b"video,label,id,t_start,t_end,frames\r\n" + (TRAIN + TEST).replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    text(root / "annotations" / "Video_TrainList.txt", b"1CM1_4_R_#229\t9")
    images(root / "frames" / "1CM1_4_R_#229", noise(8), "1CM1_4_R_#229_{:06d}.jpg")
    text(root / "frames" / "1CM1_4_R_#229" / "desktop.ini", b"")
    video(root / "videos" / "4CM11_7_R_#9.avi", noise(8, seed=1))
    return {}
