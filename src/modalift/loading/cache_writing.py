"""Writes frame caches: a new one, or the clips of an existing one that are new or were changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from modalift.errors import ModaliftError, nearest
from modalift.files import disk_errors, folder_beside, write_text
from modalift.loading import reading
from modalift.loading.cache import ABOUT, FORMAT, Cache, CachedView, Source, described, header_of, open_cache, read_about
from modalift.loading.frame_codecs import CODECS, codec_for, pack
from modalift.loading.reduction import Reduction, shrink
from modalift.loading.threads import in_order
from modalift.locks import locked
from modalift.modalities import Modality, Row, Table, Track

#: Seconds between two indexes while clips are added: a process that is killed loses at most this much decoding.
COMMIT_S = 60.0
#: Compressed clips of up to this many bytes wait in memory until they are written.
_SPOOL = 64 * 1024 * 1024


def build_cache(table: Table, folder: str | Path, views: Iterable[str] | None = None, *, short_side: int | None = None,
                codec: str = "auto", reductions: Mapping[str, Reduction] | None = None,
                progress: Callable[[int, int], None] | None = None,
                waiting: Callable[[str], object] = lambda holder: None) -> Cache:
    """Decodes every clip of some views once and keeps the frames in a folder; an existing cache is updated.

    An update decodes only clips that are new, that were changed, or that could not be read and were changed since; so the
    same command continues after it was interrupted. A process that has opened the cache before can go on reading it. Two
    processes never write one cache at the same time: the later one waits, and then finds it complete. A view that cannot be
    read of a clip is left out and named in :attr:`Cache.skipped`.

    Args:
        table: the clips.
        folder: the new folder, or the folder of a cache of the same dataset.
        views: which views; by default those of the existing cache, or all of the table.
        short_side: larger frames are downscaled so that their shorter side has this many pixels (area averages; invalid
            depth readings are excluded from the averages).
        codec: see :func:`~modalift.loading.frame_codecs.codec_for`.
        reductions: view -> the reduction by its framing, for a cache that serves this framing alone; by default none.
        progress: called with (number of clips done, number of clips).
        waiting: called with the name of the process that writes this cache, before this one waits for it.

    Raises:
        ModaliftError: the folder holds something else, a cache of other clips or made with other settings, the disk is full,
            or not a single clip can be read.
    """
    folder = Path(folder)
    if codec not in (*CODECS, "lossless"):
        raise ModaliftError(f"unknown cache codec '{codec}' - {nearest(codec, CODECS)}")
    if short_side is not None and short_side < 1:
        raise ModaliftError(f"cache short_side is {short_side} - it must be 1 or more")
    for view in views or ():
        codec_for(table.modality(view), codec)
    with disk_errors(folder, "what it held is kept"), locked(lock_path(folder), waiting):
        is_new = not folder.is_dir() or not any(folder.iterdir())
        if is_new:
            with folder_beside(folder) as made:
                _commit(made, {"format": FORMAT, "table": table.name, "short_side": short_side, "generation": 0}, {})
        try:
            _update(table, folder, views, short_side, codec, reductions, progress)
        except Exception:
            if is_new:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return open_cache(folder)


def lock_path(folder: Path) -> Path:
    """The file whose lock a process holds while it writes the cache in a folder."""
    folder = Path(os.path.realpath(folder))
    if not folder.name:
        raise ModaliftError(f"{folder}: cannot be a frame cache - name a folder in it")
    return folder.with_name(f".{folder.name}.lock")


def wait_for_writer(folder: Path) -> None:
    """Returns when no process writes the cache in a folder."""
    with locked(lock_path(folder), lambda holder: None):
        pass


def _update(table: Table, folder: Path, views: Iterable[str] | None, short_side: int | None, codec: str,
            reductions: Mapping[str, Reduction] | None, progress: Callable[[int, int], None] | None) -> None:
    """Adds the clips that a cache lacks, and decodes changed ones again."""
    held = open_cache(folder)
    wanted = tuple(views or held.views or table.views)
    if short_side not in (None, held.short_side):
        raise ModaliftError(f"{folder}: this frame cache has short_side {held.short_side or 'none'}, not {short_side} - name"
                            " another folder, or remove it")
    known = {clip for view in held.held.values() for clip in view.positions}
    if known and reductions is None and not any(row.id in known for row in table):
        raise ModaliftError(f"{folder}: this frame cache holds none of the clips of {table.name} - name another folder")
    parts: dict[str, CachedView] = {}
    for view in wanted:
        parts[view] = held.held.get(view) or _new_view(folder, view, {**held.held, **parts}, table.modality(view), codec,
                                                       (reductions or {}).get(view, Reduction()))
    for view, part in parts.items():
        if part.modality != described(table.modality(view)):
            raise ModaliftError(f"{folder}: this frame cache holds '{view}' as {part.modality['name']}, it is"
                                f" {table.modality(view).name} now - name another folder, or remove it")
        if part.reduction != (part.reduction if reductions is None else reductions.get(view, Reduction())):
            raise ModaliftError(f"{folder}: this frame cache holds '{view}' reduced for another framing - name another folder,"
                                " or remove it")
        same = part.codec in ("raw", "lz4") if codec == "lossless" else codec in ("auto", part.codec)
        if not same and codec_for(table.modality(view), codec) != part.codec:
            raise ModaliftError(f"{folder}: this frame cache holds '{view}' as {part.codec}, not {codec} - name another"
                                " folder, or remove it")
    missing: dict[str, list[str]] = {}
    for found in held.differences(table, wanted):
        missing.setdefault(found.clip, []).append(found.view)
    writer = _Writer(folder, held, parts)
    try:
        writer.add(table, missing, progress)
    finally:
        writer.close()
    if not any(part.positions for part in writer.parts.values()):
        reason = next((reason for part in writer.parts.values() for reason, _ in part.unreadable.values()), "there is none")
        raise ModaliftError(f"{table.name}: no clip can be read; the first: {reason}")


def _new_view(folder: Path, view: str, others: Mapping[str, CachedView], kind: Modality, codec: str,
              reduction: Reduction) -> CachedView:
    name = f"{len(others):02d}-{re.sub(r'[^A-Za-z0-9_-]', '_', view)}.bin"  # views are never removed
    return CachedView(codec_for(kind, codec), np.dtype(kind.dtype), reduction, described(kind), folder / name, [], [],
                      np.zeros(1, np.int64), np.zeros((0, 3), np.int64), np.zeros((0, 2), np.int64), np.zeros(1, np.int64), {})


class _Writer:
    """Appends clips to the shards of a cache, and writes its index from time to time and at the end."""

    def __init__(self, folder: Path, held: Cache, parts: dict[str, CachedView]) -> None:
        self.folder, self.about, self.parts = folder, read_about(folder), {**held.held, **parts}
        self.shards: dict[str, BinaryIO] = {}
        for view, part in parts.items():
            shard = part.shard.open("ab")
            self.shards[view] = shard
            shard.truncate(int(part.offsets[-1]))  # what a killed process wrote without an index
        self.first = {view: part.first.tolist() for view, part in parts.items()}
        self.shapes = {view: part.shapes.tolist() for view, part in parts.items()}
        self.sizes = {view: part.sizes.tolist() for view, part in parts.items()}
        self.offsets = {view: [part.offsets] for view, part in parts.items()}

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()

    def add(self, table: Table, missing: Mapping[str, list[str]], progress: Callable[[int, int], None] | None) -> None:
        """Decodes clips and writes the index; ``missing``: clip -> its views."""
        rows = table.where(lambda row: row.id in missing)
        done, committed, changed = len(table) - len(rows), time.monotonic(), set(self.parts) != set(self.about["views"])

        def pack_row(row: Row) -> dict[str, _Clip | tuple[str, Source]]:
            return {view: _pack_clip(row.tracks[view], table.modality(view), self.parts[view], self.about["short_side"])
                    for view in missing[row.id]}

        try:
            for row, packed in in_order(pack_row, rows):
                for view, clip in packed.items():
                    self._put(row.id, view, clip)
                done, changed = done + 1, True
                if progress is not None:
                    progress(done, len(table))
                if time.monotonic() - committed > COMMIT_S:
                    self.commit()
                    committed = time.monotonic()
        except BaseException as error:
            if not isinstance(error, Exception) and self._is_consistent():  # an interruption; what was decoded is kept
                self.commit()
            raise
        if changed:
            self.commit()

    def _is_consistent(self) -> bool:
        """Whether no clip was being entered."""
        counts = [(len(part.ids), len(part.sources), len(self.first[view]) - 1, len(self.shapes[view]), len(self.sizes[view]),
                   sum(map(len, self.offsets[view])) - 1 - self.first[view][-1] + len(part.ids))
                  for view, part in self.parts.items() if view in self.shards]
        return all(len(set(each)) == 1 for each in counts)

    def _put(self, clip: str, view: str, packed: _Clip | tuple[str, Source]) -> None:
        part = self.parts[view]
        if clip in part.positions:
            part.ids[part.positions.pop(clip)] = ""
        part.unreadable.pop(clip, None)
        if isinstance(packed, tuple):
            part.unreadable[clip] = packed
            return
        packed.move_to(self.shards[view])
        part.positions[clip] = len(part.ids)
        part.ids.append(clip)
        part.sources.append(packed.source)
        self.first[view].append(self.first[view][-1] + len(packed.where))
        self.shapes[view].append(packed.shape)
        self.sizes[view].append(packed.size)
        sizes = np.array([length for _, length in packed.where], np.int64)
        self.offsets[view].append(self.offsets[view][-1][-1] + np.cumsum(sizes))

    def commit(self) -> None:
        """Writes the index of all that was added; a process that reads the older one is not disturbed."""
        for view, shard in self.shards.items():
            shard.flush()
            os.fsync(shard.fileno())
            part = self.parts[view]
            self.offsets[view] = [np.concatenate(self.offsets[view])]
            part.first, part.offsets = np.array(self.first[view], np.int64), self.offsets[view][0]
            part.shapes = np.array(self.shapes[view], np.int64).reshape(-1, 3)
            part.sizes = np.array(self.sizes[view], np.int64).reshape(-1, 2)
        self.about = _commit(self.folder, self.about, self.parts)


def _commit(folder: Path, about: dict[str, Any], parts: Mapping[str, CachedView]) -> dict[str, Any]:
    """Writes the indexes of views under new names, then the description that names them, and returns it."""
    before = {view["index"] for view in about.get("views", {}).values()}
    about = {**about, "generation": about["generation"] + 1}
    headers = {}
    for view, part in parts.items():
        index = f"{part.shard.stem}.{about['generation']}.npz"
        fields = [[s.window, s.name, s.stamp, s.digest] for s in part.sources]
        np.savez(folder / index, ids=np.array(part.ids, np.str_), sources=np.array(fields, np.str_).reshape(-1, 4),
                 first=part.first, shapes=part.shapes, sizes=part.sizes, offsets=part.offsets)
        headers[view] = header_of(part, index)
    about["views"] = headers
    write_text(folder / ABOUT, json.dumps(about, indent=1, ensure_ascii=False))
    now = {header["index"] for header in headers.values()}
    for old in folder.glob("*.npz"):
        if old.name not in now | before:  # a process may be opening the index before
            old.unlink(missing_ok=True)
    return about


class _Clip:
    """The compressed frames of one view of one clip, in memory or, if they are many, in a temporary file of the folder."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.size, self.shape = source, (0, 0), (0, 0, 0)
        self.where: list[tuple[int, int]] = []
        self._bytes = tempfile.SpooledTemporaryFile(_SPOOL, dir=str(folder))  # noqa: SIM115 (closed by move_to)

    def put(self, data: bytes) -> tuple[int, int]:
        """Keeps the bytes of a frame; returns their position and number."""
        at = self._bytes.tell()
        self._bytes.write(data)
        return at, len(data)

    def move_to(self, shard: BinaryIO) -> None:
        """Appends all frames to a shard, in order."""
        with self._bytes:
            for at, length in self.where:
                self._bytes.seek(at)
                shard.write(self._bytes.read(length))


def _pack_clip(track: Track, kind: Modality, part: CachedView, short_side: int | None) -> _Clip | tuple[str, Source]:
    source = Source.of(track)  # before its frames are read: a file that is written meanwhile counts as changed
    clip = _Clip(source, part.shard.parent)

    def keep(frame: np.ndarray) -> tuple[int, int]:
        if short_side is not None and kind.kind == "video" and short_side < min(frame.shape[:2]):
            scale = short_side / min(frame.shape[:2])
            frame = shrink(frame, max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale)), kind)
        clip.size = frame.shape[0], frame.shape[1]
        frame = part.reduction.image(frame, kind, track.affine)
        clip.shape = frame.shape[0], frame.shape[1], frame.shape[2]
        return clip.put(pack(part.codec, frame))

    try:
        clip.where = reading.collect(track, kind, None, keep)
    except ModaliftError as error:
        return str(error), source
    return clip
