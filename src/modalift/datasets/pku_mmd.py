"""PKU-MMD, phase 1: long recordings of actions by three Kinect v2, and the windows of the actions in them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from modalift.datasets import download, scanning
from modalift.datasets.download import Download
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError, nearest
from modalift.modalities import Row, Table, Track, build_table, modality
from modalift.signatures import Count

Split = Literal["cross_subject", "cross_view"]

CLASSES = tuple(name for line in """
bow|brushing hair|brushing teeth|check time (from watch)|cheer up|clapping|cross hands in front (say stop)|drink water|drop
eat meal/snack|falling|giving something to other person|hand waving|handshaking|hopping (one foot jumping)
hugging other person|jump up|kicking other person|kicking something|make a phone call/answer phone
pat on back of other person|pickup|playing with phone/tablet|point finger at the other person
pointing to something with finger|punching/slapping other person|pushing other person|put on a hat/cap
put something inside pocket|reading|rub two hands together|salute|sitting down|standing up|take off a hat/cap
take off glasses|take off jacket|take out something from pocket|taking a selfie|tear up paper|throw|touch back (backache)
touch chest (stomachache/heart pain)|touch head (headache)|touch neck (neckache)|typing on a keyboard
use a fan (with hand or paper)/feeling warm|wear jacket|wear on glasses|wipe face|writing""".strip().split("\n")
                for name in line.split("|"))

VIEWS = ("rgb", "ir", "depth", "pose")
RATE = 30.0
#: Clips of train and test. One of the 21,545 rows, in a training recording of both splits, ends before it starts.
COUNTS = {"cross_subject": (18840, 2704), "cross_view": (14356, 7188)}
LABELS = ("Label/Train_Label_PKU_final", "Label", "Train_Label_PKU_final", "Label/Label")

_RECORDING = re.compile(r"(\d{4}-[LMR])(?:-(infrared|depth))?\.(?:avi|mp4)", re.ASCII | re.IGNORECASE)
_TEXT = re.compile(r"(\d{4}-[LMR])\.txt", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"\d{4}-[LMR]", re.ASCII)
_CAMERAS = {"L": "left", "M": "middle", "R": "right"}
_DEPTH = 4  # folders: PKUMMD/Data/RGB_VIDEO/<file>


class Window(NamedTuple):
    """An action in a recording: its line in the file of labels, its class from 0, its frames from 0, the end exclusive."""

    line: int
    label: int
    start: int
    end: int


def _release(options: Mapping[str, Any]) -> Release:
    train, test = COUNTS[options["split"]]
    return Release({"rgb": "rgb", "ir": "nir", "depth": options["depth"], "pose": "pose"}, CLASSES,
                   {"train": train, "test": test}, "Liu et al., PKU-MMD, arXiv:1703.07475",
                   "on request from the STRUCT group of Peking University")


def _is_pku(root: Path) -> bool:
    """Whether a folder has PKU-MMD's labels: files of such names in one of their places."""
    return any(_TEXT.fullmatch(path.name) for place in LABELS for path in scanning.some(root / place, 1))


@dataset("pku_mmd", recognize=_is_pku, release=_release)
def read_pku_mmd(root: Path, *, split: Split = "cross_subject", views: Sequence[str] | None = None,
                 depth: Literal["depth", "depth_gray"] = "depth", shortest: Count = 1) -> Table:
    """PKU-MMD phase 1 as downloaded: a clip is an annotated action, a window of a long recording.

    Layout; ``Data`` may be partial, and its folders may lie below the root directly::

        Data/RGB_VIDEO/0002-L.avi                      view rgb, 1920 x 1080, 30 frames per second
        Data/IR_VIDEO/0002-L-infrared.avi              view ir, near infrared, 512 x 424
        Data/DEPTH_VIDEO/0002-L-depth.avi              view depth, 512 x 424
        Data/PKU_Skeleton_Renew/0002-L.txt             view pose, (T, 150): two persons of 25 joints, in m
        Label/Train_Label_PKU_final/0002-L.txt         lines `action,start,end,confidence`; or in Label itself
        Split/cross-subject.txt, Split/cross-view.txt  or in Split/Split, as their archive unpacks

    A clip's name is its recording and the number of its line: ``0043-L/20``. Recordings that the split calls validation test
    here: labels of other test recordings are not public. ``L``, ``M`` and ``R`` are the left, middle and right cameras; the
    file of the cross-view split trains on L and R, although the paper's text says otherwise. The performers are not told.

    How the annotations are read:

    - ``start`` and ``end`` count from 0, and the end is not included. This is told nowhere; it is the reading under which
      actions that touch in 62 places do not overlap, and a start of 0 exists.
    - A window that ends after its video ends with it.
    - A window that ends before it starts is left out: the only one is line 21 of 0043-L, whose end is a copy of another one's.
    - Lines need not be in the order of time. Confidence (0, 1 or 2) is metadata.
    - Infrared and depth are of one lens and share a space. All views have the same frame numbers.

    Source: Liu et al., PKU-MMD, arXiv:1703.07475; labels and splits of its download.

    Args:
        root: the folder with the folders above.
        split: ``cross_subject`` or ``cross_view``.
        views: the views to read, of rgb, ir, depth and pose; by default all that are there.
        depth: what the depth videos hold: ``depth`` (millimeters) or ``depth_gray`` (copies with 8 bits).
        shortest: leave out actions of fewer frames; 75 of the release have fewer than 16.

    Raises:
        ModaliftError: lists or labels are missing or wrong (names the line), or none of the recordings is there.
    """
    for view in views or ():
        if view not in VIEWS:
            raise ModaliftError(f"data.options.views: there is no view '{view}' - {nearest(view, VIEWS)}")
    files = Download(root)
    wanted = split.replace("_", "-")
    of = _split(files.list_file([f"Split/{wanted}.txt", f"Split/Split/{wanted}.txt", f"{wanted}.txt"],
                                "in the archive of the splits"))
    labels = _label_files(root)
    found = _find(root, views)
    rows, missing, short = [], [], 0
    notes: list[str] = []
    without = [name for name in of if name not in labels]
    for name in sorted(of):
        for window in sorted(_windows(labels[name], notes), key=lambda w: (w.start, w.line)) if name in labels else ():
            clip = f"{name}/{window.line}"
            tracks = {view: Track(path, start=window.start, end=window.end, rate=RATE, clamp=True,
                                  space="kinect" if view in ("ir", "depth") else "")
                      for view in VIEWS if (path := found[name].get(view))}
            if window.end - window.start < shortest:
                short += 1
            elif tracks:
                rows.append(Row(clip, window.label, "", of[name], tracks, {"recording": name, "camera": _CAMERAS[name[-1]]}))
            else:
                missing.append(clip)
    if without:
        notes.append(f"{len(without)} recordings of the split have no labels here ('{without[0]}', ...)")
    if short:
        notes.append(f"{short} actions of fewer than {shortest} frames are left out")
    if unused := sorted(name for name in labels if name not in of):
        notes.append(f"{len(unused)} recordings with labels are not in the split and are left out ('{unused[0]}', ...)")
    kinds = {"rgb": modality("rgb"), "ir": modality("nir"), "depth": modality(depth), "pose": modality("pose", 150)}
    return build_table("pku_mmd", CLASSES, {v: kinds[v] for v in VIEWS if any(v in r.tracks for r in rows)}, rows,
                       {k: k for k in range(len(CLASSES))}, missing=missing, notes=notes)


def _split(path: Path) -> dict[str, str]:
    """Recording -> train or test. The file has four lines: a title and names with commas between, for training and for
    validation; the last name of a line may be followed by a comma."""
    of: dict[str, str] = {}
    titled = list(download.lines(path))
    if len(titled) != 4:
        raise ModaliftError(f"{path}: has {len(titled)} lines and not 4, titles and names of train and validation - use the"
                            " file of the download")
    for (where, line), part in zip(titled[1::2], ("train", "test"), strict=True):
        for name in filter(None, (cell.strip() for cell in line.split(","))):
            if not _NAME.fullmatch(name):
                raise ModaliftError(f"{where}: '{name[:40]}' is not the name of a recording, such as 0002-L - use the file of"
                                    " the download")
            if of.setdefault(name, part) != part:
                raise ModaliftError(f"{where}: {name} is in both parts - use the file of the download")
    return of


def _label_files(root: Path) -> dict[str, Path]:
    """Recording -> its file of labels, of the first place that has any."""
    for place in LABELS:
        found = {text[1].upper(): path for path in scanning.below(root / place, 1) if (text := _TEXT.fullmatch(path.name))}
        if found:
            return found
    raise ModaliftError(f"{root}: the labels {LABELS[0]}/0002-L.txt, ... are not there - they are in Label_PKUMMD.7z; put them"
                        " there, or give the folder that holds them")


def _windows(path: Path, notes: list[str]) -> Iterator[Window]:
    """The actions of a file of labels; those without frames are told in ``notes``."""
    for where, line in download.lines(path):
        cells = line.split(",")
        if len(cells) != 4:
            raise ModaliftError(f"{where}: has {len(cells)} cells and not 4, action,start,end,confidence - use the file of the"
                                " download")
        label, start, end, _ = (download.number(cell, where, what, low, high) for cell, what, low, high in zip(
            cells, ("the action", "the start", "the end", "the confidence"), (1, 0, 0, 0), (len(CLASSES), 10**9, 10**9, 2),
            strict=True))
        if start >= end:
            notes.append(f"{where.replace(str(path), path.name)}: the action ends at frame {end}, before it starts at {start};"
                         " it is left out")
        else:
            yield Window(int(where.rsplit(" ", 1)[1]), label - 1, start, end)


def _find(root: Path, views: Sequence[str] | None) -> dict[str, dict[str, Path]]:
    """Recording -> view -> file."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in scanning.below(root, _DEPTH):
        if video := _RECORDING.fullmatch(path.name):
            name, view = video[1], {"infrared": "ir", "depth": "depth", "": "rgb"}[(video[2] or "").lower()]
        elif (text := _TEXT.fullmatch(path.name)) and "skeleton" in path.parent.name.lower():
            name, view = text[1], "pose"
        else:
            continue
        if views is None or view in views:
            scanning.add(found[name.upper()], view, path)
    return found
