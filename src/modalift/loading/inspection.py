"""Inspection of single recordings for `modalift check`: readability, length, brightness, duplicates."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table, Track

_MEASURED = 8   # number of frames per clip whose readings are averaged
_CHUNK = 64     # frames decoded at a time


@dataclass(frozen=True)
class TrackReport:
    """The result of inspecting one track.

    Attributes:
        problem: why it cannot be read, or an empty string.
        frames: number of frames in its window.
        size: (height, width), or None for signals and where nothing was decoded.
        mean: mean valid reading of a sample of frames, in the modality's unit; None where there is none.
        constant: whether all sampled readings are equal.
        holes: fraction of readings that are marked invalid.
        finite: whether all readings are finite.
        outside: fraction of valid readings outside the modality's range.
        blank: number of samples of a signal that are all zeros: no body was seen, or the sensor paused.
    """

    problem: str = ""
    frames: int = 0
    size: tuple[int, int] | None = None
    mean: float | None = None
    constant: bool = False
    holes: float = 0.0
    finite: bool = True
    outside: float = 0.0
    blank: int = 0


def inspect_track(track: Track, kind: Modality, decode: bool) -> TrackReport:
    """Counts a track's frames and, with ``decode``, reads all of them."""
    try:
        start, end = reading.window(track)
        if not decode:
            return TrackReport(frames=end - start)
        parts, size, finite, blank = [], None, True, 0
        every = max(1, (end - start) // _MEASURED)
        for at in range(0, end - start, _CHUNK):
            frames = reading.read(track, kind, range(at, min(at + _CHUNK, end - start)))
            size = (frames.shape[1], frames.shape[2]) if kind.kind == "video" else None
            finite = finite and (frames.dtype.kind != "f" or bool(np.isfinite(frames).all()))
            if kind.kind == "signal":
                blank += int((frames.reshape(len(frames), -1) == 0).all(1).sum())
            parts.append(frames[(-at) % every::every].reshape(-1))
    except ModaliftError as error:
        return TrackReport(problem=str(error))
    values = np.concatenate(parts)
    valid = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if kind.invalid is not None:
        valid = valid[valid != kind.invalid]
    return TrackReport("", end - start, size, float(valid.mean()) if valid.size else None,
                bool(values.size and (values == values[0]).all()), 1.0 - valid.size / max(1, values.size), finite,
                float(((valid < kind.low) | (valid > kind.high)).mean()) if valid.size else 0.0, blank)


def inspect_table(table: Table, decode: Callable[[int], bool]) -> Iterator[tuple[Row, dict[str, TrackReport]]]:
    """Inspects every clip's tracks in a few threads (decoding releases the GIL)."""
    def inspect(numbered: tuple[int, Row]) -> tuple[Row, dict[str, TrackReport]]:
        index, row = numbered
        return row, {v: inspect_track(t, table.views[v], decode(index)) for v, t in row.tracks.items()}

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(inspect, enumerate(table))


def duplicates(table: Table, readable: Mapping[str, set[str]]) -> dict[str, list[list[str]]]:
    """Groups of clips that hold the same recording, by view: their frames are the same bytes.

    Files are compared by size and then by SHA-256, arrays in archives by length and content; clips
    of different windows of one file are not duplicates.

    Args:
        table: the clips.
        readable: view -> ids of the clips that can be read.
    """
    found: dict[str, list[list[str]]] = {}
    for view in table.views:
        alike: dict[tuple[object, int, int | None], list[Row]] = defaultdict(list)
        for row in table:
            if view in row.tracks and row.id in readable[view]:
                track = row.tracks[view]
                alike[_bytes_of(track), track.start, track.end].append(row)
        groups: dict[object, list[str]] = defaultdict(list)
        memo: dict[tuple[str, str], str] = {}
        for which, rows in alike.items():
            if len(rows) < 2:
                continue
            for row in rows:
                track = row.tracks[view]
                file = (str(track.path), track.key)
                if file not in memo:
                    memo[file] = _digest(track)
                groups[which, memo[file]].append(row.id)
        same = [ids for ids in groups.values() if len(ids) > 1]
        if same:
            found[view] = same
    return found


def overlaps(table: Table) -> list[tuple[str, str, str]]:
    """Pairs of clips of different splits that share frames of one file: (view, id, id), at most one pair per clip."""
    found = []
    for view in table.views:
        by_file: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in table:
            if view in row.tracks:
                by_file[str(row.tracks[view].path), row.tracks[view].key].append(row)
        for rows in by_file.values():
            rows.sort(key=lambda r: r.tracks[view].start)
            last: dict[str, tuple[float, Row]] = {}
            for row in rows:
                track = row.tracks[view]
                for split, (end, other) in last.items():
                    if split != row.split and end > track.start:
                        found.append((view, other.id, row.id))
                        break
                end = np.inf if track.end is None else track.end
                if row.split not in last or end > last[row.split][0]:
                    last[row.split] = (end, row)
    return found


def _files(track: Track) -> list[os.DirEntry[str]]:
    with os.scandir(track.path) as entries:
        return sorted((e for e in entries if e.is_file()), key=lambda e: reading.natural(e.name))


def _bytes_of(track: Track) -> object:
    if track.path.is_dir():
        return tuple(e.stat().st_size for e in _files(track))
    if track.path.suffix.lower() == ".npz":
        return reading.count_frames(track)
    return track.path.stat().st_size


def _digest(track: Track) -> str:
    if track.path.suffix.lower() == ".npz":
        return hashlib.sha256(np.ascontiguousarray(reading.array(track)).tobytes()).hexdigest()
    if track.path.is_dir():
        total = hashlib.sha256()
        for entry in _files(track):
            with open(entry.path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()
    with track.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
