"""NVGesture: 25 gestures in a car, seen by a color, a depth and a stereo infrared camera."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from modalift.datasets.download import Download, lines, number, some, table_of
from modalift.datasets.naming import shared_spaces
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import is_file, is_folder, name_text, read_text
from modalift.modalities import Row, Table, Track

#: Names of the lists, the one with the latest labels first. ``nvgesture_<split>_correct.lst`` is equal to the first.
NAMES = ("nvgesture_{}_correct_cvpr2016_v2.lst", "nvgesture_{}_correct.lst", "nvgesture_{}_correct_cvpr2016.lst")
EARLIER = NAMES[2]
#: View -> stem of its recordings (empty: the one in the lists), key of its window in the lists, frames per second.
VIEWS = {"rgb": ("", "color", 30.0), "depth": ("", "depth", 30.0), "ir_left": ("", "duo_left", 35.0),
         "ir_right": ("duo_right", "duo_left", 35.0)}
RELEASE = Release(
    {"rgb": "rgb", "depth": "depth_gray", "ir_left": "nir", "ir_right": "nir"}, tuple(str(n) for n in range(1, 26)),
    {"train": 1050, "test": 482},
    "Molchanov et al., Online Detection and Classification of Dynamic Hand Gestures with Recurrent 3D CNNs, CVPR 2016",
    "the 7-zip parts nvGesture_v1.7z.001, ... of NVIDIA's page of the paper")


@dataclass(frozen=True)
class Sample:
    """A line of a list.

    Attributes:
        folder: the folder of its recordings, such as ``Video_data/class_01/subject3_r0``.
        label: class index; the list counts from 1.
        windows: key (``color``, ``depth``, ``duo_left``) -> stem of the recording, first frame (from 0), end (exclusive).
    """

    folder: str
    label: int
    windows: Mapping[str, tuple[str, int, int]]

    @property
    def id(self) -> str:
        """Class folder and sample folder: ``class_01/subject3_r0``."""
        return "/".join(self.folder.split("/")[-2:])


def parse_list(file: Path) -> list[Sample]:
    """The samples of a list. A line holds blank-separated fields ``key:value[:start:end]``.

    Raises:
        ModaliftError: names the line that is none.
    """
    return [_sample(line, where) for where, line in lines(file)]


def _sample(line: str, where: str) -> Sample:
    fields = dict(field.split(":", 1) for field in line.split() if ":" in field)
    if len(fields) != len(line.split()) or "path" not in fields or "label" not in fields:
        raise ModaliftError(f"{where}: is not 'path:... depth:sk_depth:start:end color:... label:1' - use the file of the"
                            " download")
    windows = {}
    for key, value in fields.items():
        parts = value.split(":")
        if key in ("path", "label"):
            continue
        if len(parts) != 3:
            raise ModaliftError(f"{where}: '{key}' has no window start:end - use the file of the download")
        start = number(parts[1], where, f"the first frame of '{key}'")
        windows[key] = (parts[0], start, number(parts[2], where, f"the end of '{key}'", start + 1))
    folder = "/".join(part for part in fields["path"].split("/") if part not in ("", "."))
    return Sample(folder, number(fields["label"], where, "the label", 1, len(RELEASE.classes)) - 1, windows)


def log_times(file: Path, end: int) -> list[int]:
    """The Unix times in nanoseconds of the first ``end`` frames in a frame log (``img00000.png 1440454708434336170``).

    Raises:
        ValueError: with the reason why the log does not tell them.
    """
    times = []
    for n, line in enumerate(read_text(file).rstrip().split("\n")[:end]):
        found = re.fullmatch(r"\s*img([0-9]{1,9})\.\w+\s+([0-9]{1,19})\s*", line, re.ASCII)
        if found is None or int(found[1]) != n:
            raise ValueError(f"line {n + 1} is not of frame {n}")
        times.append(int(found[2]))
    if len(times) < end:
        raise ValueError(f"{len(times)} frames, but the window ends at {end}")
    if any(b <= a for a, b in pairwise(times)):
        raise ValueError("times do not increase")
    return times


def is_nvgesture(root: Path) -> bool:
    """Whether a folder has one of the lists, or the folder of the recordings."""
    return any(is_file(root / name.format(split)) for name in NAMES for split in ("train", "test")) \
        or is_folder(root / "Video_data" / "class_01")


@dataset("nvgesture", recognize=is_nvgesture, release=RELEASE)
def read_nvgesture(root: Path, *, nucleus: bool = False, logs: bool = True, aligned: bool = False,
                   spaces: Sequence[Sequence[str]] = (), mirrored: Mapping[str, str] | None = None) -> Table:
    """NVGesture as it is downloaded: the views ``rgb``, ``depth`` (8-bit gray), ``ir_left`` and ``ir_right``.

    Layout: ``nvgesture_train_correct_cvpr2016_v2.lst`` and ``nvgesture_test_correct_cvpr2016_v2.lst`` beside
    ``Video_data/class_01/subject3_r0/{sk_color,sk_depth,duo_left,duo_right}.avi`` and their frame logs ``<name>_log.txt``.
    The splits are those of the lists, by subject. A clip is the window of the list: 80 frames at 30 per second, 93 at 35.

    How ambiguous files are read:

    - Labels come from the lists, never from the folder: the second version of the lists corrected 23 of them.
    - ``color`` and ``depth`` have windows of their own, which differ by a frame in four training clips. ``duo_right`` has
      that of ``duo_left``.
    - Infrared is paired with color by the times of the frame logs; where they are absent or damaged, by frame rate.
    - No two cameras are pixel-aligned; infrared looks from above, and a mirror image is not known to be the mirrored gesture.
    - Depth is not in millimeters. Classes have no names in the download, so they are the numbers of the lists.

    Source: Molchanov et al., CVPR 2016.

    Args:
        root: the folder with the two lists.
        nucleus: use only the core of the gesture where ``nucleus.txt`` tells it (in color frames, within the window).
        logs: read the frame logs; False pairs all views by frame rate, and opens faster.
        aligned: read ``rgb`` from ``sk_wrapped.avi``, which is color warped onto depth, with the window of depth; the two
            then share a space.
        spaces: groups of views that share geometric augmentation although they are not aligned, such as ``[[rgb, depth]]``.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs. Public lists of class
            names agree on the pairs 1 and 2, 5 and 6, 20 and 21.

    Raises:
        ModaliftError: a list is missing, a line is damaged, or no recording is there.
    """
    download = Download(root)
    views = {**VIEWS, "rgb": ("sk_wrapped", "depth", 30.0)} if aligned else VIEWS
    space_of = shared_spaces("data.options.spaces", [["rgb", "depth"]] if aligned and not spaces else spaces, RELEASE.views)
    rows, notes, unlogged, whole = [], [], [], []
    for split in ("train", "test"):
        file = download.list_file([name.format(split) for name in NAMES], "beside Video_data in the unpacked nvGesture_v1.7z")
        if file.name.casefold() == EARLIER.format(split):
            notes.append(f"{file.name} is the first version of the list, whose labels were corrected later (15 of train, 8 of"
                         f" test): put {NAMES[0].format(split)} beside it")
        for sample in parse_list(file):
            tracks, reason = _tracks(download, sample, views, space_of, logs, nucleus)
            if reason:
                unlogged.append(f"{sample.id}: {reason}")
            if tracks and nucleus and download.find(f"{sample.folder}/nucleus.txt") is None:
                whole.append(sample.id)
            subject = re.match(r"(subject[0-9]+)_", sample.folder.split("/")[-1], re.ASCII)
            rows.append(Row(sample.id, sample.label, subject[1] if subject else "", split, tracks))
    notes += _notes(rows)
    if unlogged:
        notes.append(f"{len(unlogged)} clips have no usable frame logs, so their views are paired by frame rate"
                     f" ({some(unlogged)})")
    if whole:
        notes.append(f"{len(whole)} clips have no nucleus.txt, and keep the window of the list ({some(whole)})")
    return table_of("nvgesture", root, RELEASE, rows, "Video_data", mirrored=mirrored, notes=notes)


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    folders = [r.id for r in rows if r.tracks and r.label is not None
               and (found := re.match(r"class_0*([0-9]+)/", r.id, re.ASCII)) and int(found[1]) != r.label + 1]
    if folders:
        notes.append(f"{len(folders)} clips lie in the folder of another class than their label's ({some(folders)}): the label"
                     " of the list counts")
    apart = [r.id for r in rows if {"rgb", "depth"} <= r.tracks.keys() and r.tracks["rgb"].start != r.tracks["depth"].start]
    if apart:
        notes.append(f"color and depth start at different frames in {len(apart)} clips ({some(apart)}): each keeps its window")
    if any(view.startswith("ir") for r in rows for view in r.tracks):
        notes.append("infrared looks from another place than color and depth: there is no pixel correspondence")
    return notes


def _tracks(download: Download, sample: Sample, views: Mapping[str, tuple[str, str, float]], space_of: Mapping[str, str],
            logs: bool, nucleus: bool) -> tuple[dict[str, Track], str]:
    """The recordings of a sample that are there, and why their frame logs were not used."""
    tracks, files = {}, {}
    core = _nucleus(download, sample) if nucleus else None
    for view, (stem, key, rate) in views.items():
        if key not in sample.windows:
            continue
        listed, start, end = sample.windows[key]
        name = stem or listed
        path = download.find(f"{sample.folder}/{name}.avi")
        if path is None:
            continue
        if core is not None:
            start, end = start + round(core[0] * (end - start)), max(start + 1, start + round(core[1] * (end - start)))
        tracks[view] = Track(path, start=start, end=end, rate=rate, space=space_of.get(view, ""))
        files[view] = f"{sample.folder}/{name}_log.txt"
    if not logs or not tracks:
        return tracks, ""
    try:
        return _timed(tracks, {view: _logged(download, files[view], track) for view, track in tracks.items()}), ""
    except ValueError as reason:
        return tracks, str(reason)


def _logged(download: Download, path: str, track: Track) -> list[int]:
    """The times of the frames of a track's window in nanoseconds; a ValueError tells why they are not known."""
    file = download.find(path)
    name = name_text(path.split("/")[-1])
    if file is None:
        raise ValueError(f"{name} is absent")
    try:
        return log_times(file, track.end or 0)[track.start:]
    except (ValueError, ModaliftError) as error:
        raise ValueError(f"{name}: {error}" if isinstance(error, ValueError) else str(error)) from None


def _timed(tracks: Mapping[str, Track], times: Mapping[str, Sequence[int]]) -> dict[str, Track]:
    """The tracks with the time of each frame from that of their first one, and by how much they start before color.

    A recording that starts before color shows the same moment later in its own window: its offset is positive.
    """
    first = times["rgb" if "rgb" in times else next(iter(times))][0]
    return {view: replace(track, timestamps=tuple((t - times[view][0]) / 1e9 for t in times[view]),
                          offset_ms=(first - times[view][0]) / 1e6) for view, track in tracks.items()}


def _nucleus(download: Download, sample: Sample) -> tuple[float, float] | None:
    """The core of a gesture as fractions of the window; None where no file tells it, or it is outside the window."""
    file = download.find(f"{sample.folder}/nucleus.txt")
    if file is None or "color" not in sample.windows:
        return None
    _, start, end = sample.windows["color"]
    found = re.fullmatch(r"\s*([0-9]{1,9}):([0-9]{1,9})\s*", read_text(file, "use the file of the download"), re.ASCII)
    if found is None:
        raise ModaliftError(f"{file}: is not 'first:end' - use the file of the download, or set data.options.nucleus to false")
    low, high = max(int(found[1]), start), min(int(found[2]), end)
    return ((low - start) / (end - start), (high - start) / (end - start)) if low < high else None
