"""IPN Hand: 13 gestures to point, click and command, in continuous videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalift.datasets.download import VIDEOS, Download, lines, number, some, table_of
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import is_file
from modalift.modalities import Row, Table, Track

#: Codes of the classes, in the order of the ids in the lists, which count from 1.
CODES = ("D0X", "B0A", "B0B", *(f"G{n:02d}" for n in range(1, 12)))
NO_GESTURE = CODES[0]
LISTS = {"train": "Annot_TrainList.txt", "test": "Annot_TestList.txt"}
COUNTS = {True: {"train": 4039, "test": 1610}, False: {"train": 3117, "test": 1101}}


@dataclass(frozen=True)
class Gesture:
    """A gesture in a video: its code, first frame (from 0) and end (exclusive); ``frames`` is the length in the list."""

    video: str
    code: str
    start: int
    end: int
    frames: int


def parse_list(file: Path) -> list[Gesture]:
    """The rows of a list (``1CM1_4_R_#229,D0X,1,1,17,17``): video, code, id, first and last frame from 1, and their number.

    ``Annot_List.txt`` has a header and lines that end in CRLF; the two lists of the splits have neither.

    Raises:
        ModaliftError: names the line that is none.
    """
    found = []
    for k, (where, line) in enumerate(lines(file)):
        cells = [cell.strip() for cell in line.split(",")]
        if k == 0 and cells[:2] == ["video", "label"]:
            continue
        if len(cells) != 6 or not cells[0]:
            raise ModaliftError(f"{where}: is not 'video,label,id,t_start,t_end,frames' - use the file of the download")
        id = number(cells[2], where, "the id", 1, len(CODES))
        if cells[1] != CODES[id - 1]:
            raise ModaliftError(f"{where}: the id {id} is of {CODES[id - 1]}, not of '{cells[1][:40]}' - use the file of the"
                                " download")
        start = number(cells[3], where, "t_start", 1)
        found.append(Gesture(cells[0], cells[1], start - 1, number(cells[4], where, "t_end", start),
                             number(cells[5], where, "the number of frames")))
    return found


def release(options: Mapping[str, Any]) -> Release:
    return Release({"rgb": "rgb"}, CODES if options["non_gesture"] else CODES[1:], COUNTS[bool(options["non_gesture"])],
                   "Benitez-Garcia et al., IPN Hand: A Video Dataset and Benchmark for Real-Time Continuous Hand Gesture"
                   " Recognition, ICPR 2020", "the archives of videos or frames, and of annotations, of the dataset's page")


def is_ipn_hand(root: Path) -> bool:
    """Whether a folder has one of the lists, beside the videos or in ``annotations``."""
    return any(is_file(root / place / name) for place in (".", "annotations") for name in (*LISTS.values(), "Annot_List.txt"))


@dataset("ipn_hand", recognize=is_ipn_hand, release=release)
def read_ipn_hand(root: Path, *, non_gesture: bool = False, mirrored: Mapping[str, str] | None = None) -> Table:
    """IPN Hand as it is downloaded: the view ``rgb``, gestures cut from continuous videos by their windows.

    Layout: ``annotations/Annot_TrainList.txt`` and ``Annot_TestList.txt`` beside ``frames/<video>/<video>_000001.jpg`` or
    ``videos/<video>.avi``; frames are used where both are there. Names of videos hold ``#``. Who performs a clip is not in the
    lists. Classes have codes: two to point (B0A, B0B), eleven gestures (G01 to G11).

    How ambiguous files are read: the last frame of a row belongs to the clip; the numbers of frames in
    ``Video_TrainList.txt`` and ``Video_TestList.txt`` are not used, as they are one too large in 14 videos. The lists in the
    authors' code repository are of an earlier pass, with fewer gestures.

    Source: Benitez-Garcia et al., ICPR 2020.

    Args:
        root: the folder with ``annotations``.
        non_gesture: keep the clips without a gesture (D0X) as a class of their own, the first; papers report 13 classes.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs.

    Raises:
        ModaliftError: a list is missing, a line is damaged, or no recording is there.
    """
    download = Download(root)
    given = release({"non_gesture": non_gesture})
    rows, unlike = [], []
    for split, name in LISTS.items():
        file = download.list_file([f"annotations/{name}", name], "in the folder annotations of the download")
        for gesture in parse_list(file):
            if gesture.code == NO_GESTURE and not non_gesture:
                continue
            path = download.find(f"frames/{gesture.video}", *(f"videos/{gesture.video}{ending}" for ending in VIDEOS))
            id = f"{gesture.video}/{gesture.start + 1}"
            if gesture.frames != gesture.end - gesture.start:
                unlike.append(id)
            rows.append(Row(id, given.classes.index(gesture.code), "", split,
                            {} if path is None else {"rgb": Track(path, start=gesture.start, end=gesture.end)}))
    notes = [f"{len(unlike)} rows have another number of frames than from t_start to t_end ({some(unlike)}): t_start and t_end"
             " count"] if unlike else []
    return table_of("ipn_hand", root, given, rows, "the folder frames or videos", mirrored=mirrored, notes=notes)
