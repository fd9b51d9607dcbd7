"""LD-ConGR: ten gestures at up to four meters, in continuous color and depth videos."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from modalift.datasets.download import VIDEOS, Download, lines, number, some, table_of
from modalift.datasets.naming import shared_spaces
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import is_file, is_folder, read_bytes
from modalift.modalities import Row, Table, Track

CLASSES = ("palm", "fist", "thumb_up", "shift_right", "downward", "upward", "left", "right", "pinch", "click")
#: Split -> names of its list: of the download, and of the authors' code.
LISTS = {"train": ("train_labels.txt", "trainlistall_but_None.txt"), "test": ("test_labels.txt", "vallistall_but_None.txt")}
#: View -> endings of its folder of images or its video.
VIEWS = {"rgb": ("_color_all", "_color"), "depth": ("_depth_all", "_depth")}


@dataclass(frozen=True)
class Gesture:
    """A gesture in a video (``004/g_s1_l1_00001``): its class index, first frame (from 0) and end (exclusive)."""

    video: str
    label: int
    start: int
    end: int

    @property
    def id(self) -> str:
        """Video and first frame, counted from 1."""
        return f"{self.video}/{self.start + 1}"


def parse_list(file: Path) -> list[Gesture]:
    """The gestures of a list, in either form; frames count from 1, the last one belongs to the gesture.

    ``004/g_s1_l1_00001,26 36 0,78 89 0`` (a video: first, last, class from 0), or
    ``./frames/002/g_s1_l1_00001_color_all 1 14 35`` (a gesture: class from 1, where 11 is none; first, last).

    Raises:
        ModaliftError: names the line that is neither.
    """
    found: list[Gesture] = []
    for where, line in lines(file):
        if "," in line:
            video, *gestures = line.strip().split(",")
            cells = [gesture.split() for gesture in gestures if gesture.strip()]
            parts = [(video, label, low, high) for low, high, label in (three for three in cells if len(three) == 3)]
            first = 0
        else:
            cells = [line.split()]
            parts = [(c[0].removeprefix("./").removeprefix("frames/"), *c[1:]) for c in cells if len(c) == 4]  # type: ignore[misc]
            first = 1
        if len(parts) != len(cells):
            raise ModaliftError(f"{where}: is neither 'video,first last class,...' nor 'folder class first last' - use the file"
                                " of the download")
        for video, label, low, high in parts:
            k = number(label, where, "the class", first, first + len(CLASSES) - 1 + first) - first
            start = number(low, where, "the first frame", 1)
            if k < len(CLASSES):
                end = number(high, where, "the last frame", start)
                found.append(Gesture(re.sub(r"_(?:color|depth)(?:_all)?$", "", video), k, start - 1, end))
    return found


def release(options: Mapping[str, Any]) -> Release:
    return Release({"rgb": "rgb", "depth": "depth_gray"}, CLASSES, {"train": 34315, "test": 10572},
                   "Liu et al., LD-ConGR: A Large RGB-D Video Dataset for Long-Distance Continuous Gesture Recognition,"
                   " CVPR 2022",
                   "the archive that the authors send on a signed agreement")


def is_ld_congr(root: Path) -> bool:
    """Whether a folder has a list of the download, or decoded frames as the authors' code names them."""
    return any(is_file(root / name) and _is_list(root / name) for names in LISTS.values() for name in names) \
        or any(is_folder(root / place / "002" / "g_s1_l1_00001_color_all") for place in ("frames", "."))


def _is_list(file: Path) -> bool:
    return re.match(rb"(?:\./)?(?:frames/)?[0-9]{3}/g_s[0-9]", read_bytes(file, most=40)) is not None


@dataset("ld_congr", recognize=is_ld_congr, release=release)
def read_ld_congr(root: Path, *, shortest: Annotated[int, Ge(1)] = 4, spaces: Sequence[Sequence[str]] = (),
                  mirrored: Mapping[str, str] | None = None) -> Table:
    """LD-ConGR as it is downloaded: the views ``rgb`` (1280 x 720) and ``depth`` (640 x 576, 8-bit gray).

    Layout: ``train_labels.txt`` and ``test_labels.txt`` beside the videos ``004/g_s1_l1_00001_color.*`` and ``..._depth.*``, or
    beside images that were decoded as the authors' code expects them, ``frames/004/g_s1_l1_00001_color_all/00001.png`` and
    ``..._depth_all``. The lists of that code (``trainlistall_but_None.txt``, ``vallistall_but_None.txt``) serve instead of the
    label files; they are in its ``annotation_hciGesture/dataV3``. A clip is one gesture of a continuous video of 30 frames per
    second; its subject is the folder of the video, and the splits are by subject.

    How ambiguous files are read: classes count from 0 in the label files and from 1 in the lists, whose class 11 is none; the
    last frame belongs to the gesture. The names of videos that are not decoded are not documented: those with the stems above
    are found.

    Source: Liu et al., CVPR 2022.

    Args:
        root: the folder with the label files.
        shortest: fewest frames of a gesture that is kept; published figures leave out those under 4 (110 in the test split).
        spaces: groups of views that share geometric augmentation, such as ``[[rgb, depth]]``.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs.

    Raises:
        ModaliftError: a list is missing, a line is damaged, or no recording is there.
    """
    download = Download(root)
    given = release({})
    space_of = shared_spaces("data.options.spaces", spaces, given.views)
    rows, short = [], []
    for split, names in LISTS.items():
        file = download.list_file(names, "at the top of the download, beside the folders of the subjects")
        for gesture in parse_list(file):
            if gesture.end - gesture.start < shortest:
                short.append(gesture.id)
                continue
            tracks = {view: Track(path, start=gesture.start, end=gesture.end, rate=30.0, space=space_of.get(view, ""))
                      for view, endings in VIEWS.items()
                      if (path := download.find(*_places(gesture.video, endings))) is not None}
            rows.append(Row(gesture.id, gesture.label, gesture.video.split("/")[0], split, tracks))
    notes = [f"{len(short)} gestures are shorter than {shortest} frames, and left out ({some(short)}); the option shortest"
             " changes this"] if short else []
    return table_of("ld_congr", root, given, rows, "the folder frames, or the folders of the subjects,", mirrored=mirrored,
                    notes=notes)


def _places(video: str, endings: Sequence[str]) -> list[str]:
    """Where images or a video of a recording may be, relative to the root."""
    return [f"{parent}{video}{ending}{kind}" for kind in ("", *VIDEOS, ".mkv") for parent in ("frames/", "", "videos/")
            for ending in endings]
