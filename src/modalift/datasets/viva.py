"""VIVA hand gestures: 19 gestures of drivers and passengers, in color and depth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from modalift.datasets.download import Download, some, table_of
from modalift.datasets.naming import assign_subjects, shared_spaces
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import is_folder
from modalift.modalities import Row, Table, Track

#: Codes in file names of the 19 gestures, in the order of classes; and second codes of two of them.
CODES = (1, 2, 3, 4, 6, 7, 8, 13, 14, 15, 16, 21, 23, 27, 28, 29, 30, 31, 32)
ALIASES = {70: 7, 80: 8}
#: Where the color videos may be, relative to the root; those of depth are in ``depth`` below.
PLACES = ("LISA_HG_Data/dynamic_gestures/data", "dynamic_gestures/data", "data")


@dataclass(frozen=True)
class Name:
    """What the name of a file tells, ``SS_GG_RR.avi``: the sequence, the code of the gesture, the repetition."""

    sequence: int
    code: int
    repetition: int


def parse_name(name: str) -> Name | None:
    """The parts of a file's name; None if it is not of a clip.

    Example:
        >>> parse_name("03_70_02.avi")
        Name(sequence=3, code=70, repetition=2)
        >>> parse_name("notes.txt")
    """
    found = re.fullmatch(r"([0-9]{1,3})_([0-9]{1,3})_([0-9]{1,3})\.(?:avi|mp4)", name, re.ASCII | re.IGNORECASE)
    return Name(*map(int, found.groups())) if found and int(found[1]) else None


def release(options: Mapping[str, Any]) -> Release:
    return Release({"rgb": "rgb", "depth": "depth_gray"}, tuple(str(code) for code in options["codes"]), {"total": 885},
                   "Ohn-Bar and Trivedi, Hand Gesture Recognition in Real Time for Automotive Interfaces, IEEE T-ITS 2014",
                   "LISA_HG_Data on the page of the VIVA hand gesture challenge")


def is_viva(root: Path) -> bool:
    """Whether a folder has that of the gestures."""
    return any(is_folder(root / place) for place in PLACES[:2])


@dataset("viva", recognize=is_viva, release=release)
def read_viva(root: Path, *, codes: Sequence[int] = CODES, aliases: Mapping[int, int] | None = None,
              sequences_per_subject: Annotated[int, Ge(1)] = 2, test_subjects: Sequence[str] = ("1",),
              spaces: Sequence[Sequence[str]] = (), mirrored: Mapping[str, str] | None = None) -> Table:
    """VIVA as it is downloaded: the views ``rgb`` and ``depth`` (8-bit gray), 250 x 115 pixels.

    Layout: ``LISA_HG_Data/dynamic_gestures/data/SS_GG_RR.avi`` (color) and ``.../data/depth/SS_GG_RR.avi``. SS is the sequence,
    1 to 16: every subject is recorded twice, as driver and as passenger, so SS 1 and 2 are of subject 1. GG is the code of one
    of 32 gestures, of which 19 are used; RR is the repetition. There are no lists.

    The protocol tests every subject once (``protocol.folds=8`` in a recipe), and averages the eight accuracies. Classes have
    no names in the download, so they are the codes. Public code mirrors 1 and 2, 13 and 14, 29 and 30.

    The rule of subjects, the codes and the aliases are known from one public reader only, hence the options.

    Source: Ohn-Bar and Trivedi, IEEE Transactions on Intelligent Transportation Systems 2014.

    Args:
        root: the folder that holds ``LISA_HG_Data``.
        codes: codes of the gestures that are used, in the order of classes.
        aliases: further code -> code of the same gesture; by default 70 is 7 and 80 is 8.
        sequences_per_subject: recordings of one subject in a row.
        test_subjects: subjects whose clips form the test split, for a training without folds.
        spaces: groups of views that share geometric augmentation, such as ``[[rgb, depth]]``.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs.

    Raises:
        ModaliftError: the folder of the recordings is missing, or holds none.
    """
    download = Download(root)
    given = release({"codes": codes})
    if len(set(codes)) < len(codes):
        raise ModaliftError("data.options.codes: a code is given twice - give each once")
    space_of = shared_spaces("data.options.spaces", spaces, given.views)
    place = next((place for place in PLACES if (found := download.find(place)) is not None and is_folder(found)), None)
    if place is None:
        raise ModaliftError(f"{root}: the folder {PLACES[0]} is not there - it is in the download; give the folder that holds"
                            " LISA_HG_Data")
    same = ALIASES if aliases is None else aliases
    folders = {"rgb": place, "depth": f"{place}/depth"}
    recordings: dict[Name, dict[str, Track]] = {}
    for view, folder in folders.items():
        held = download.find(folder)
        for path in sorted(set(download.names(held).values())) if held is not None else []:
            if name := parse_name(path.name):
                recordings.setdefault(name, {})[view] = Track(path, space=space_of.get(view, ""))
    index = {code: k for k, code in enumerate(codes)}
    rows, unused = [], []
    for name in sorted(recordings, key=lambda n: (n.sequence, n.code, n.repetition)):
        id = f"{name.sequence:02d}_{name.code:02d}_{name.repetition:02d}"
        code = same.get(name.code, name.code)
        if code not in index:
            unused.append(id)
            continue
        rows.append(Row(id, index[code], str((name.sequence - 1) // sequences_per_subject + 1), "train", recordings[name]))
    notes = [f"{len(unused)} recordings are of gestures that are not among `codes`, and left out"
             f" ({some(unused)})"] if unused else []
    if not rows:
        raise ModaliftError(f"{root}/{place}: holds no recording SS_GG_RR.avi of the gestures in `codes` - put those of the"
                            " download there")
    return table_of("viva", root, given, assign_subjects(str(root), rows, test_subjects, None), place, mirrored=mirrored,
                    notes=notes)
