"""20BN-Jester: 27 hand gestures before a webcam."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modalift.datasets.download import Download, lines, table_of
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError, nearest
from modalift.files import is_file, is_folder
from modalift.modalities import Row, Table, Track

FRAMES = "20bn-jester-v1"
LISTS = {"train": "jester-v1-train.csv", "val": "jester-v1-validation.csv", "test": "jester-v1-test.csv"}
LABELS = "jester-v1-labels.csv"
CLASSES = (
    "Swiping Left", "Swiping Right", "Swiping Down", "Swiping Up", "Pushing Hand Away", "Pulling Hand In",
    "Sliding Two Fingers Left", "Sliding Two Fingers Right", "Sliding Two Fingers Down", "Sliding Two Fingers Up",
    "Pushing Two Fingers Away", "Pulling Two Fingers In", "Rolling Hand Forward", "Rolling Hand Backward",
    "Turning Hand Clockwise", "Turning Hand Counterclockwise", "Zooming In With Full Hand", "Zooming Out With Full Hand",
    "Zooming In With Two Fingers", "Zooming Out With Two Fingers", "Thumb Up", "Thumb Down", "Shaking Hand", "Stop Sign",
    "Drumming Fingers", "No gesture", "Doing other things")
COUNTS = {"train": 118562, "val": 14787, "test": 14743}


def parse_list(file: Path) -> list[tuple[str, str, str]]:
    """Folder, class name (empty where it is hidden) and line of each clip: ``34870;Drumming Fingers``, or ``109621``.

    Copies that a spreadsheet saved are read too: quotes, empty cells at the end of a line, commas or tabs between cells.

    Raises:
        ModaliftError: names the line that is neither.
    """
    found = []
    for where, line in lines(file):
        cells = [cell.strip().strip('"').strip() for cell in re.split(r"[;,\t]", line)]
        while len(cells) > 1 and not cells[-1]:
            cells.pop()
        if len(cells) > 2 or not re.fullmatch(r"[0-9]{1,9}", cells[0], re.ASCII):
            raise ModaliftError(f"{where}: is not 'number;class' - use the file of the download, not one that a spreadsheet"
                                " saved")
        found.append((str(int(cells[0])), cells[1] if len(cells) > 1 else "", where))
    return found


def parse_labels(file: Path) -> list[str]:
    """The class names in ``jester-v1-labels.csv``, one per line.

    Raises:
        ModaliftError: a name stands twice.
    """
    names = [line.strip().strip(";,").strip('"').strip() for _, line in lines(file)]
    if len(set(names)) < len(names):
        raise ModaliftError(f"{file}: a class stands twice - use the file of the download")
    return names


def release(options: Mapping[str, Any]) -> Release:
    classes = tuple(options["classes"] or CLASSES)
    counts = {"train": COUNTS["train"], "test": COUNTS["val"]} if options["test_on_val"] else COUNTS
    return Release({"rgb": "rgb"}, classes, counts,
                   "Materzynska et al., The Jester Dataset: A Large-Scale Video Dataset of Human Gestures, ICCV Workshops 2019",
                   "the archives 20bn-jester-v1-00 to -22 and the four .csv files of the dataset's page")


def is_jester(root: Path) -> bool:
    """Whether a folder has one of the lists, or the folder of the images."""
    return any(is_file(root / name) for name in (*LISTS.values(), LABELS)) or is_folder(root / FRAMES)


@dataset("jester", recognize=is_jester, release=release)
def read_jester(root: Path, *, test_on_val: bool = False, classes: Sequence[str] | None = None,
                mirrored: Mapping[str, str] | None = None) -> Table:
    """20BN-Jester as it is downloaded: the view ``rgb``, images of 100 pixels in height at 12 per second.

    Layout: ``jester-v1-train.csv``, ``jester-v1-validation.csv``, ``jester-v1-test.csv`` and ``jester-v1-labels.csv`` beside
    ``20bn-jester-v1/34870/00001.jpg`` (or beside the folders ``34870``, ...). The labels of the test clips are
    hidden, so they are unlabeled; who performs a clip is not in the download.

    Class indices are the order of ``jester-v1-labels.csv``. Other public code numbers the classes alphabetically: give
    ``classes`` in its order to use its networks. The class names in the lists count, not the order of a copied label file.
    Copies of the lists that a spreadsheet saved are read (quotes, empty cells, commas).

    Source: Materzynska et al., ICCV Workshops 2019.

    Args:
        root: the folder with the lists.
        test_on_val: the validation clips are the test split, as papers report, and the clips without labels are left out;
            there is then no validation split.
        classes: class names in the order of class indices, instead of the release's.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs.

    Raises:
        ModaliftError: a list is missing, a line is damaged, or no image folder is there.
    """
    download = Download(root)
    given = release({"test_on_val": test_on_val, "classes": classes})
    index = {name: k for k, name in enumerate(given.classes)}
    if classes is not None and sorted(classes) != sorted(CLASSES):
        strange = next((name for name in classes if name not in CLASSES), None)
        reason = "not all 27 classes stand there once - name each once" if strange is None else \
            f"there is no class '{strange[:80]}' - {nearest(strange, CLASSES)}"
        raise ModaliftError(f"data.options.classes: {reason}")
    notes = _label_notes(download)
    rows = []
    for split, name in LISTS.items():
        if split == "test" and test_on_val:
            continue
        file = download.list_file([name], f"beside the folder {FRAMES}, from the dataset's page")
        for clip, label, where in parse_list(file):
            if label and label not in index:
                raise ModaliftError(f"{where}: there is no class '{label[:80]}' - {nearest(label, index)}")
            path = download.find(f"{FRAMES}/{clip}", clip)
            rows.append(Row(clip, index[label] if label else None, "", "test" if split == "val" and test_on_val else split,
                            {} if path is None else {"rgb": Track(path, rate=12.0)}))
    hidden = sum(row.label is None for row in rows if row.tracks)
    if hidden:
        notes.append(f"{hidden} clips have no class in their list, and are unlabeled; test_on_val tests on the validation"
                     " clips")
    return table_of("jester", root, given, rows, f"the folder {FRAMES}", mirrored=mirrored, notes=notes)


def _label_notes(download: Download) -> list[str]:
    """What is unusual in the file of class names, which may be absent: the names in the lists count."""
    file = download.find(LABELS)
    if file is None or not is_file(file):
        return []
    names = parse_labels(file)
    if names == list(CLASSES):
        return []
    if sorted(names) == sorted(CLASSES):
        name, usual = next((name, usual) for name, usual in zip(names, CLASSES, strict=True) if name != usual)
        return [f"{file.name} has the classes in another order than the release ('{name}' in the place of '{usual}'); class"
                " indices keep the release's, so that networks agree"]
    return [f"{file.name} does not hold the 27 classes of the release; the names in the lists count"]
