"""ChaLearn LAP IsoGD: 249 gestures in color and depth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalift.datasets.download import Download, lines, number, some, table_of
from modalift.datasets.naming import shared_spaces
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import is_file, is_folder, read_bytes
from modalift.modalities import Row, Table, Track

CLASSES = tuple(str(n) for n in range(1, 250))
COUNTS = {"train": 35878, "val": 5784, "test": 6271}
#: Split -> its folder, and the first part of the name of its list.
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


@dataclass(frozen=True)
class Sample:
    """A line of a list: the recordings relative to the root, and the class index, None where it is hidden."""

    color: str
    depth: str
    label: int | None

    @property
    def id(self) -> str:
        """Split, folder and number: ``train/001/00001``."""
        folder, _, name = self.color.rpartition("/")
        return f"{folder}/{name.split('.')[0].removeprefix('M_')}"


def parse_list(file: Path) -> list[Sample]:
    """The samples of a list: ``train/001/M_00001.avi train/001/K_00001.avi 26``, classes from 1, 0 where they are hidden.

    Labels of test clips that were published later stand in lists ``test/001/M_00001 57 37``: path, frames, class from 0.

    Raises:
        ModaliftError: names the line that is neither.
    """
    found = []
    for where, line in lines(file):
        cells = line.split()
        if len(cells) != 3:
            raise ModaliftError(f"{where}: is not 'color.avi depth.avi class' - use the file of the download")
        color = "/".join(part for part in cells[0].split("/") if part not in ("", "."))
        if cells[1].isascii() and cells[1].isdigit():
            folder, _, name = color.rpartition("/")
            stem = name.split(".")[0].removeprefix("M_")
            label = number(cells[2], where, "the class", 0, len(CLASSES) - 1)
            found.append(Sample(f"{folder}/M_{stem}.avi", f"{folder}/K_{stem}.avi", label))
        else:
            label = number(cells[2], where, "the class", 0, len(CLASSES))
            found.append(Sample(color, cells[1], label - 1 if label else None))
    return found


def release(options: Mapping[str, Any]) -> Release:
    counts = {"train": COUNTS["train"], "test": COUNTS["val"]} if options["test_on_val"] else COUNTS
    return Release({"rgb": "rgb", "depth": "depth_gray"}, CLASSES, counts,
                   "Wan et al., ChaLearn Looking at People RGB-D Isolated and Continuous Datasets, CVPR Workshops 2016",
                   "the archives train, valid and test of IsoGD on the ChaLearn LAP page, each with its list")


def is_isogd(root: Path) -> bool:
    """Whether a folder has one of the lists (others have files of these names), or recordings where they belong."""
    return any(is_file(file) and re.match(rb"(?:\./)?(?:train|valid|test)/[0-9]+/M_[0-9]", read_bytes(file, most=40))
               for file in (root / f"{name}_list.txt" for name in FOLDERS.values())) \
        or any(is_folder(root / name / "001") and is_file(root / name / "001" / "M_00001.avi") for name in FOLDERS.values())


@dataset("isogd", recognize=is_isogd, release=release)
def read_isogd(root: Path, *, test_on_val: bool = False, test_labels: str | None = None,
               spaces: Sequence[Sequence[str]] = (), mirrored: Mapping[str, str] | None = None) -> Table:
    """ChaLearn IsoGD as it is downloaded: the views ``rgb`` and ``depth`` (8-bit gray).

    Layout: ``train_list.txt``, ``valid_list.txt`` and ``test_list.txt`` beside ``{train,valid,test}/001/M_00001.avi`` (color)
    and ``K_00001.avi`` (depth), 200 clips per numbered folder. Who performs a clip is not in the download.

    How ambiguous files are read: class 0 in ``test_list.txt`` means hidden, so these clips are unlabeled; depth is read as it
    is recorded, not in millimeters, and bright need not mean near as in EgoGesture's and NVGesture's images (the MSD paper
    reverses it for its figure 4, to look like theirs, and trains on it as it is). Clips have 2 frames and more; short ones
    are kept.

    Source: Wan et al., CVPR Workshops 2016.

    Args:
        root: the folder with the lists.
        test_on_val: the validation clips are the test split, as papers report, and the clips of ``test_list.txt`` are left
            out; there is then no validation split.
        test_labels: a list, relative to the root, with the labels of the test clips that were published later, to use
            instead of ``test_list.txt``.
        spaces: groups of views that share geometric augmentation, such as ``[[rgb, depth]]``.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs.

    Raises:
        ModaliftError: a list is missing, a line is damaged, or no recording is there.
    """
    download = Download(root)
    given = release({"test_on_val": test_on_val})
    space_of = shared_spaces("data.options.spaces", spaces, given.views)
    rows = []
    for split, folder in FOLDERS.items():
        if split == "test" and test_on_val:
            continue
        name = test_labels if split == "test" and test_labels else f"{folder}_list.txt"
        for sample in parse_list(download.list_file([name], f"in the archive of {folder}, beside the folder {folder}")):
            tracks = {view: Track(path, space=space_of.get(view, "")) for view, file in (
                ("rgb", sample.color), ("depth", sample.depth)) if (path := download.find(file)) is not None}
            rows.append(Row(sample.id, sample.label, "", "test" if split == "val" and test_on_val else split, tracks))
    return table_of("isogd", root, given, rows, "the folders train, valid and test", mirrored=mirrored, notes=_notes(rows))


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    hidden = [r.id for r in rows if r.label is None and r.tracks]
    if hidden:
        notes.append(f"the class of {len(hidden)} clips is 0 in the lists, which means hidden: they are"
                     f" unlabeled ({some(hidden)}); test_labels gives a list with their labels, test_on_val tests on the"
                     " validation clips")
    if any("depth" in r.tracks for r in rows):
        notes.append("depth is read as it is recorded: bright need not mean near, as in EgoGesture's and NVGesture's images"
                     " (the MSD paper reverses it for its figure 4)")
    return notes
