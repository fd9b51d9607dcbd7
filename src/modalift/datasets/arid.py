"""ARID: actions recorded in the dark by a color camera."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from modalift.datasets import download, scanning
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import name_text
from modalift.modalities import Row, Table, Track

CLASSES = ("Drink", "Jump", "Pick", "Pour", "Push", "Run", "Sit", "Stand", "Turn", "Walk", "Wave")

_LIST = re.compile(r"ARID_split(\d)_(train|test|others?)\.txt", re.ASCII | re.IGNORECASE)
_CLIP = re.compile(rf"(?:{'|'.join(CLASSES)})_(\d{{1,4}})_(\d{{1,4}})", re.ASCII)
_VIDEO = (".mp4", ".avi")  # as released, and after conversion
_DEPTH = 4  # folders: ARID/clips/<class>/<clip>


RELEASE = Release({"rgb": "rgb"}, CLASSES, {"train": 2288, "test": 823},
                  "Xu et al., ARID, IJCAI workshop 2020, arXiv:2006.03876 (version 1, split 1)",
                  "from the page of its authors, xuyu0010.github.io/arid")


def _release(options: Mapping[str, Any]) -> Release | None:
    if options["split"] != 1:
        return None  # its counts are not confirmed
    return replace(RELEASE, clips={"train": 2288 + 673, "test": 823}) if options["others"] else RELEASE


def _is_arid(root: Path) -> bool:
    """Whether a list of ARID's splits is here."""
    return any(_LIST.fullmatch(path.name) for path in scanning.some(root, _DEPTH))


@dataset("arid", recognize=_is_arid, release=_release)
def read_arid(root: Path, *, split: int = 1, others: Literal["", "train"] = "") -> Table:
    """ARID, version 1, as downloaded: 11 actions, one view, ``rgb``.

    Layout; the folders may have other names and lie up to three folders deep::

        clips_v1/Drink/Drink_11_1.mp4
        list_cvt/ARID_split1_train.txt       lines `index<tab>class<tab>Drink/Drink_11_1.avi`; also `_test`, `_other`
        list_cvt/mapping_table.txt           lines `class<tab>name`, not needed

    The released videos are ``.mp4`` while the lists say ``.avi``, as after their authors' conversion: both are looked for. The
    class of a clip is that of the list and has to be that of its folder. ``Drink_11_1`` is clip 1 of group 11; which person a
    group shows is not told, and numbers of groups are counted in every class anew.

    Source: Xu et al., arXiv:2006.03876; split 1 has 2288 and 823 clips, and 673 others that are in neither.

    Args:
        root: the folder with the clips and the lists.
        split: the number of the split, in the names of the lists.
        others: ``train`` adds the clips of the list of others to the training split.

    Raises:
        ModaliftError: a list is missing or wrong (names the line), or none of the recordings is there.
    """
    lists: dict[str, Path] = {}
    videos: dict[tuple[str, str], Path] = {}
    for path in scanning.below(root, _DEPTH):
        if found := _LIST.fullmatch(path.name):
            if int(found[1]) == split:
                scanning.add(lists, found[2].lower().rstrip("s"), path)
        elif path.suffix.lower() in _VIDEO and _CLIP.fullmatch(path.stem):
            scanning.add(videos, (path.stem, path.suffix.lower()), path)
    rows = []
    seen: dict[str, str] = {}
    for part in ("train", "test", *(("other",) if others else ())):
        if part not in lists:
            raise ModaliftError(f"{root}: the list ARID_split{split}_{part}.txt is not there - it is in the folder list_cvt"
                                " of the download; put it there, or choose data.options.split")
        for where, line in download.lines(lists[part]):
            name, label = _clip(where, line)
            if seen.setdefault(name, where) != where:
                raise ModaliftError(f"{where}: {name} is also in {seen[name]} - use the lists of the download")
            video = next((videos[name, suffix] for suffix in _VIDEO if (name, suffix) in videos), None)
            rows.append(Row(name, label, "", "test" if part == "test" else "train", {"rgb": Track(video)} if video else {},
                            {"group": float(name.split("_")[1])}))
    return download.table_of("arid", root, RELEASE, rows, "the folders of clips", mirrored={"others": "same"})


def _clip(where: str, line: str) -> tuple[str, int]:
    """Name and class of a line of a list."""
    cells = line.strip().split("\t") if "\t" in line else line.split()
    if len(cells) != 3:
        raise ModaliftError(f"{where}: has {len(cells)} cells and not 3, index, class and path - use the file of the download")
    label = download.number(cells[1], where, "the class", 0, len(CLASSES) - 1)
    path = Path(cells[2].strip().replace("\\", "/"))
    if not _CLIP.fullmatch(path.stem) or path.stem.split("_")[0] != CLASSES[label]:
        raise ModaliftError(f"{where}: '{name_text(cells[2])[:60]}' is not a clip of class {label}, {CLASSES[label]} - use the"
                            " file of the download")
    return path.stem, label
