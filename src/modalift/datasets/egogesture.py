"""EgoGesture: 83 gestures from the wearer's eyes, in color and depth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalift.datasets.download import Download, lines, number, some, table_of
from modalift.datasets.naming import shared_spaces
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import entries, is_folder
from modalift.loading.reading import natural
from modalift.modalities import Row, Table, Track

VAL = (1, 7, 12, 13, 24, 29, 33, 34, 35, 37)
TEST = (2, 9, 11, 14, 18, 19, 28, 31, 41, 47)
SUBJECTS = 50
LABELS = "labels-final-revised1"
#: View -> the folders of its images in a scene.
VIEWS = {"rgb": "Color/rgb", "depth": "Depth/depth"}
CLASSES = (
    "Scroll_hand_towards_right", "Scroll_hand_towards_left", "Scroll_hand_downward", "Scroll_hand_upward",
    "Scroll_hand_forward", "Scroll_hand_backward", "Cross_index_fingers", "Zoom_in_with_fists", "Zoom_out_with_fists",
    "Rotate_fists_clockwise", "Rotate_fists_counterclockwise", "Zoom_in_with_fingers", "Zoom_out_with_fingers",
    "Rotate_fingers_clockwise", "Rotate_fingers_counterclockwise", "Click_with_index_finger", "Sweep_diagonal",
    "Sweep_circle", "Sweep_cross", "Sweep_checkmark", "Static_fist", "Measure(distance)", "Photo_frame", "Number_0",
    "Number_1", "Number_2", "Number_3", "Number_4", "Number_5", "Number_6", "Number_7", "Number_8", "Number_9", "OK",
    "Another_number_3", "Pause", "Shape_C", "Make_a_phone_call", "Wave_hand", "Wave_finger", "Knock", "Beckon",
    "Palm_to_fist", "Fist_to_Palm", "Trigger_with_thumb", "Trigger_with_index_finger", "Hold_fist_in_the_other_hand", "Grasp",
    "Walk", "Gather_fingers", "Snap_fingers", "Applaud", "Dual_hands_heart", "Put_two_fingers_together",
    "Take_two_fingers_apart", "Turn_over", "Move_fist_upwards", "Move_fist_downward", "Move_fist_toward_left",
    "Move_fist_toward_right", "Bring_hand_close", "Push_away", "Thumb_upward", "Thumb_downward", "Thumb_toward_right",
    "Thumb_toward_left", "Thumbs_backward", "Thumbs_forward", "Move_hand_upward", "Move_hand_downward",
    "Move_hand_towards_left", "Move_hand_towards_right", "Draw_circle_with_hand_in_horizontal_surface", "Bent_number_2",
    "Bent_another_number_3", "Dual_fingers_heart", "Scroll_fingers_toward_left", "Scroll_fingers_toward_right",
    "Move_fingers_upward", "Move_fingers_downward", "Move_fingers_left", "Move_fingers_right", "Move_fingers_forward")
COUNTS = {"train": 14416, "val": 4768, "test": 4977}
#: Split -> list of Real-time-GesRec.
LISTS = {"train": "trainlistall_but_None.txt", "val": "vallistall_but_None.txt", "test": "testlistall_but_None.txt"}


@dataclass(frozen=True)
class Gesture:
    """A gesture in a video: its class index, first frame (from 0) and end (exclusive)."""

    subject: int
    scene: int
    group: int
    label: int
    start: int
    end: int


def parse_group(file: Path, subject: int, scene: int, group: int) -> tuple[list[Gesture], list[str]]:
    """The gestures of one ``.csv`` file (``class,start,end``, from 1, end inclusive), and the lines that are no gesture.

    A line without three numbers is left out: the download has one (``" ,,"``).

    Raises:
        ModaliftError: names the line with numbers that cannot be a gesture.
    """
    found, junk = [], []
    for where, line in lines(file):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 3 or not all(re.fullmatch(r"[0-9]+(\.[0-9]*)?", cell, re.ASCII) for cell in cells):
            junk.append(where)
            continue
        found.append(Gesture(subject, scene, group, *_window(cells, where)))
    return found, junk


def parse_list(file: Path) -> list[Gesture]:
    """The gestures of a list of Real-time-GesRec (``Subject02/Scene1/Color/rgb1 1 324 359``); its class 84 is none.

    Raises:
        ModaliftError: names the line that is wrong.
    """
    found = []
    for where, line in lines(file):
        cells = line.split()
        video = re.fullmatch(r"subject([0-9]{1,3})/scene([0-9]{1,3})/color/rgb([0-9]{1,3})", cells[0], re.ASCII | re.IGNORECASE)
        if video is None or len(cells) != 4:
            raise ModaliftError(f"{where}: is not 'Subject02/Scene1/Color/rgb1 class start end' - use the published list")
        if cells[1] != str(len(CLASSES) + 1):
            found.append(Gesture(int(video[1]), int(video[2]), int(video[3]), *_window(cells[1:], where)))
    return found


def _window(cells: Sequence[str], where: str) -> tuple[int, int, int]:
    label, start = number(cells[0], where, "the class", 1, len(CLASSES)), number(cells[1], where, "the first frame", 1)
    return label - 1, start - 1, number(cells[2], where, "the last frame", start)


def split_of(subject: int) -> str:
    """The split of a subject: 30 train, 10 val, 10 test."""
    return "val" if subject in VAL else "test" if subject in TEST else "train"


def release(options: Mapping[str, Any]) -> Release:
    counts = {"train": COUNTS["train"] + COUNTS["val"], "test": COUNTS["test"]} if options["train_on_val"] else COUNTS
    return Release({"rgb": "rgb", "depth": "depth_gray"}, CLASSES, counts,
                   "Zhang et al., EgoGesture: A New Dataset and Benchmark for Egocentric Hand Gesture Recognition, IEEE"
                   " Transactions on Multimedia 2018",
                   f"the archives images_320-240_1 to _5 and {LABELS} of the NLPR's page of the dataset")


def is_egogesture(root: Path) -> bool:
    """Whether a folder has the label files, or one of the archives of images."""
    return any(is_folder(root / name) for name in (LABELS, *(f"images_320-240_{k}" for k in range(1, 6)))) \
        or any(is_folder(root / place / "Subject01" / "Scene1" / "Color") for place in (".", "images"))


@dataset("egogesture", recognize=is_egogesture, release=release)
def read_egogesture(root: Path, *, train_on_val: bool = False, lists: str | None = None,
                    spaces: Sequence[Sequence[str]] = (), mirrored: Mapping[str, str] | None = None) -> Table:
    """EgoGesture as it is downloaded (images of 320 x 240): the views ``rgb`` and ``depth`` (8-bit gray).

    Layout: ``images_320-240_1`` to ``_5``, or all of them merged in ``images`` or in the root, each with
    ``Subject01/Scene1/{Color/rgb1,Depth/depth1}/000001.jpg``; and ``labels-final-revised1/subject01/Scene1/Group1.csv``, where
    Group1 is of ``rgb1`` and ``depth1``. Splits are by subject: 30, 10 and 10 of 50.

    How ambiguous files are read: the case of names does not matter (Scene5 and Scene6 of subject 33 have ``group1.csv``);
    lines without three numbers are left out; the last frame of a line belongs to the clip; depth is not in millimeters. A
    copy of the label files with 24,091 of the 24,161 gestures is about; the lists of Real-time-GesRec are complete.

    Source: Zhang et al., IEEE Transactions on Multimedia 2018.

    Args:
        root: the folder with the images and the labels.
        train_on_val: the validation subjects belong to the training split; there is then no validation split.
        lists: folder, relative to the root, of the lists of Real-time-GesRec (``trainlistall_but_None.txt``,
            ``vallistall_but_None.txt``, ``testlistall_but_None.txt``), to use instead of the ``.csv`` files.
        spaces: groups of views that share geometric augmentation, such as ``[[rgb, depth]]``.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs.

    Raises:
        ModaliftError: the labels are missing, a line is wrong, or no image folder is there.
    """
    download = Download(root)
    given = release({"train_on_val": train_on_val})
    space_of = shared_spaces("data.options.spaces", spaces, given.views)
    found, notes = _labels(download, root) if lists is None else _listed(download, lists)
    places = _places(download)
    rows = []
    for g in found:
        split = split_of(g.subject)
        scene = f"Subject{g.subject:02d}/Scene{g.scene}"
        tracks = {view: Track(path, start=g.start, end=g.end, rate=30.0, space=space_of.get(view, ""))
                  for view, folder in VIEWS.items()
                  if (path := download.find(*(f"{place}/{scene}/{folder}{g.group}" for place in places))) is not None}
        rows.append(Row(f"{scene}/{g.group}/{g.start + 1}", g.label, f"{g.subject:02d}",
                        "train" if split == "val" and train_on_val else split, tracks, {"scene": float(g.scene)}))
    return table_of("egogesture", root, given, rows, "images_320-240_1 to _5", mirrored=mirrored, notes=notes)


def _places(download: Download) -> list[str]:
    """Folders that may hold those of the subjects, relative to the root."""
    archives = [f"{parent}{path.name}" for parent in ("", "images/")
                for path in sorted(set(download.names(download.root / parent).values()), key=lambda p: natural(p.name))
                if re.fullmatch(r"images_320-240_[0-9]+", path.name, re.IGNORECASE)]
    return ["", "images", *archives]


def _listed(download: Download, folder: str) -> tuple[list[Gesture], list[str]]:
    found = []
    for split, name in LISTS.items():
        file = download.list_file([f"{folder}/{name}"], "in annotation_EgoGesture of the repository Real-time-GesRec")
        for gesture in parse_list(file):
            if split_of(gesture.subject) != split:
                raise ModaliftError(f"{file}: subject {gesture.subject} is not of the {split} split - use the published list")
            found.append(gesture)
    return found, []


def _labels(download: Download, root: Path) -> tuple[list[Gesture], list[str]]:
    """The gestures of all label files, and notes about them."""
    top = download.find(f"{LABELS}/{LABELS}", LABELS)
    if top is None or not is_folder(top):
        raise ModaliftError(f"{root}: the folder {LABELS} is not there - it is in the archive of that name in the download,"
                            " with subject01/Scene1/Group1.csv, ...; put it there, or give the option lists")
    found: list[Gesture] = []
    junk: list[str] = []
    for subject, person in _numbered(top, "subject"):
        for scene, place in _numbered(person, "scene"):
            for group, file in _numbered(place, "group"):
                gestures, left_out = parse_group(file, subject, scene, group)
                found += gestures
                junk += left_out
    notes = [f"{len(junk)} lines of the label files are no gesture, and left out ({some(junk)})"] if junk else []
    return found, notes


def _numbered(folder: Path, word: str) -> Iterable[tuple[int, Path]]:
    """The entries ``<word><number>`` of a folder in order of their numbers; their case does not matter."""
    if not is_folder(folder):
        return []
    pattern = re.compile(rf"{word}([0-9]{{1,3}})(\.csv)?", re.ASCII | re.IGNORECASE)
    named = ((pattern.fullmatch(path.name), path) for path in entries(folder))
    return sorted((int(found[1]), path) for found, path in named if found)
