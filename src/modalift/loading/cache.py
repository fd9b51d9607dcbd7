"""The frame cache: a folder of decoded frames, so that decoding does not limit the speed of training.

There are one append-only shard of frames and one index per view. 8-bit frames are JPEG of quality 95, 16-bit frames are
compressed losslessly (lz4 after a bit shuffle), floats are stored as they are; frames may be downscaled once to a given
shorter side. Shards are memory-mapped, so forked or spawned workers read them without sharing a file position.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from modalift.errors import ModaliftError, nearest
from modalift.files import folder_beside
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table, Track

FORMAT = "modalift-cache/2"
CODECS = ("auto", "raw", "jpeg", "lz4")
JPEG_QUALITY = 95
_CHUNK = 64  # frames decoded at a time: limits memory on long recordings


@dataclass
class _View:
    """One view's part of a cache: where each frame's bytes are."""

    codec: str
    dtype: np.dtype[Any]
    shard: Path
    positions: dict[str, int]  # clip id -> its position in the arrays below
    sources: np.ndarray        # (N,) str: what the frames were decoded from, see _source_of
    first: np.ndarray          # (N + 1,) index of each clip's first frame
    shapes: np.ndarray         # (N, 3) height, width, channels
    offsets: np.ndarray        # (F + 1,) byte at which each frame starts


class Cache:
    """Decoded frames of some views of a table; :func:`build_cache` makes one, :func:`open_cache` opens it.

    Attributes:
        folder: the cache's folder.
        views: the cached views.
        skipped: clip id -> why the clip could not be read and was left out.
        codecs: view -> ``raw``, ``jpeg`` or ``lz4``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = _json(folder / "cache.json")
        if about.get("format") != FORMAT:
            raise ModaliftError(f"{folder} is not a frame cache of this version - remove it and build it again")
        self.short_side: int | None = about["short_side"]
        self.skipped: dict[str, str] = _json(folder / "skipped.json")
        self._views = {view: _load_view(folder, header) for view, header in about["views"].items()}
        self._maps: dict[str, mmap.mmap | bytes] = {}

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self._views)

    @property
    def codecs(self) -> dict[str, str]:
        return {view: held.codec for view, held in self._views.items()}

    @property
    def nbytes(self) -> int:
        return sum(int(held.offsets[-1]) for held in self._views.values())

    def covers(self, table: Table, views: Iterable[str]) -> bool:
        """Whether every clip of the table is cached (or named in ``skipped``) and its files have not changed since.

        A clip counts as changed if its window or its file's name, size or modification time differs; files that no
        longer exist do not count as changed. Labels and splits do not matter.
        """
        views = tuple(views)
        if not set(views) <= set(self._views):
            return False
        for row in table:
            for view in views:
                if view not in row.tracks or row.id in self.skipped:
                    continue
                held = self._views[view]
                number = held.positions.get(row.id)
                if number is None or not _same_source(str(held.sources[number]), _source_of(row.tracks[view])):
                    return False
        return True

    def length(self, row: Row, view: str) -> int:
        """Number of frames in the view's window."""
        held, number = self._find(row, view)
        return int(held.first[number + 1] - held.first[number])

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> np.ndarray:
        """Frames ``(T, H, W, C)``, as :func:`modalift.loading.reading.read` gives them; None: all.

        Raises:
            ModaliftError: if the cache lacks the view, the clip or the frame.
        """
        held, number = self._find(row, view)
        start, end = int(held.first[number]), int(held.first[number + 1])
        chosen = range(end - start) if frames is None else frames
        shape = tuple(int(n) for n in held.shapes[number])
        out = np.empty((len(chosen), *shape), held.dtype)
        data = memoryview(self._map(view))
        for to, i in zip(out, chosen, strict=True):
            if not 0 <= i < end - start:
                raise ModaliftError(f"{self.folder}: clip '{row.id}' has no frame {i} of '{view}' - it holds"
                                    f" {end - start}")
            at, stop = int(held.offsets[start + i]), int(held.offsets[start + i + 1])
            try:
                to[...] = _unpack(held.codec, data[at:stop], shape, held.dtype)
            except (ValueError, RuntimeError, cv2.error):
                raise ModaliftError(f"{held.shard} is damaged at byte {at} (clip '{row.id}', frame {i}) - remove"
                                    f" {self.folder} and build it again") from None
        return out

    def _find(self, row: Row, view: str) -> tuple[_View, int]:
        if view not in self._views:
            raise ModaliftError(f"{self.folder} holds no view '{view}' - {nearest(view, self._views)};"
                                " build a cache that does")
        held = self._views[view]
        if row.id not in held.positions:
            why = f" ({self.skipped[row.id]})" if row.id in self.skipped else ""
            raise ModaliftError(f"{self.folder} holds no clip '{row.id}' of view '{view}'{why}"
                                " - remove the folder and build it again")
        return held, held.positions[row.id]

    def _map(self, view: str) -> mmap.mmap | bytes:
        if view not in self._maps:
            shard = self._views[view].shard
            with shard.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < int(self._views[view].offsets[-1]):
                    raise ModaliftError(f"{shard} is truncated - remove {self.folder} and build it again")
                self._maps[view] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        return self._maps[view]

    def __getstate__(self) -> dict[str, Any]:  # spawned workers map the shards themselves
        return {**self.__dict__, "_maps": {}}


def open_cache(folder: str | Path) -> Cache:
    """Opens the cache in a folder.

    Raises:
        ModaliftError: the folder holds no cache, or a damaged one.
    """
    folder = Path(folder)
    if not (folder / "cache.json").is_file():
        raise ModaliftError(f"{folder} holds no frame cache - make one with `modalift cache`")
    try:
        return Cache(folder)
    except (KeyError, ValueError, OSError) as error:
        raise ModaliftError(f"{folder} is a damaged frame cache ({error}) - remove it and build it again") from None


def build_cache(table: Table, folder: str | Path, views: Iterable[str], *, short_side: int | None = None,
                codec: str = "auto", progress: Callable[[int, int], None] | None = None) -> Cache:
    """Decode every clip of some views once and keep the frames in a folder.

    Everything is written into a temporary folder, which is renamed when it is complete. A clip of which any view cannot
    be read is left out and named in ``skipped.json``.

    Args:
        table: the clips.
        folder: the new folder.
        views: which views.
        short_side: larger frames are downscaled so that their shorter side has this many pixels (area averages; invalid
            depth readings are excluded from the averages).
        codec: ``auto`` (JPEG for 8-bit views of one or three channels, lz4 for 16-bit ones if numcodecs is installed,
            else raw), or ``raw``, ``jpeg`` or ``lz4`` for every video view that the codec supports.
        progress: called with (number of clips done, number of clips).

    Raises:
        ModaliftError: the folder exists already, the disk is full, or not a single clip can be read.
    """
    folder = Path(folder)
    kinds = {view: table.modality(view) for view in views}
    if codec not in CODECS:
        raise ModaliftError(f"unknown cache codec '{codec}' - {nearest(codec, CODECS)}")
    if short_side is not None and short_side < 1:
        raise ModaliftError(f"cache short_side is {short_side} - it must be 1 or more")
    codecs = {view: _codec_for(kind, codec) for view, kind in kinds.items()}
    with folder_beside(folder) as partial:
        _write(table, partial, kinds, codecs, short_side, progress)
    return open_cache(folder)


def _write(table: Table, folder: Path, kinds: Mapping[str, Modality], codecs: Mapping[str, str],
           short_side: int | None, progress: Callable[[int, int], None] | None) -> None:
    names = {view: f"{n:02d}-{re.sub(r'[^A-Za-z0-9_-]', '_', view)}" for n, view in enumerate(kinds)}
    shards = {view: (folder / f"{name}.bin").open("wb") for view, name in names.items()}
    indexes: dict[str, dict[str, list[Any]]] = {
        view: {"ids": [], "sources": [], "first": [0], "shapes": [], "offsets": [0]} for view in kinds}
    skipped: dict[str, str] = {}
    try:
        for done, (row, packed) in enumerate(_packed(table, kinds, codecs, short_side), 1):
            if isinstance(packed, str):
                skipped[row.id] = packed
            else:
                for view, (mark, shape, frames) in packed.items():
                    shards[view].write(b"".join(frames))
                    index = indexes[view]
                    index["ids"].append(row.id)
                    index["sources"].append(mark)
                    index["shapes"].append(shape)
                    index["first"].append(index["first"][-1] + len(frames))
                    for frame in frames:
                        index["offsets"].append(index["offsets"][-1] + len(frame))
            if progress is not None:
                progress(done, len(table))
    finally:
        for shard in shards.values():
            shard.close()
    if len(skipped) == len(table):
        raise ModaliftError(f"{table.name}: no clip can be read; the first: {next(iter(skipped.values()))}")
    for view, index in indexes.items():
        np.savez(folder / f"{names[view]}.npz", ids=np.array(index["ids"], dtype=np.str_),
                 sources=np.array(index["sources"], dtype=np.str_), first=np.array(index["first"], np.int64),
                 shapes=np.array(index["shapes"], np.int64).reshape(-1, 3), offsets=np.array(index["offsets"], np.int64))
    about = {"format": FORMAT, "table": table.name, "fingerprint": table.fingerprint(), "short_side": short_side,
             "views": {v: {"file": names[v], "codec": codecs[v], "dtype": kinds[v].dtype} for v in kinds}}
    (folder / "skipped.json").write_text(json.dumps(skipped, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / "cache.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


_Packed = dict[str, tuple[str, tuple[int, int, int], list[bytes]]]


def _packed(table: Table, kinds: Mapping[str, Modality], codecs: Mapping[str, str],
            short_side: int | None) -> Iterator[tuple[Row, _Packed | str]]:
    """Clips with their compressed frames, or with the reason why they cannot be read, in the table's order."""
    def pack(row: Row) -> _Packed | str:
        try:
            return {view: _pack_clip(row.tracks[view], kind, codecs[view], short_side)
                    for view, kind in kinds.items() if view in row.tracks}
        except ModaliftError as error:
            return str(error)

    workers = min(4, os.cpu_count() or 1)
    pending: deque[tuple[Row, Future[_Packed | str]]] = deque()
    with ThreadPoolExecutor(workers) as pool:  # decoding and compression release the GIL
        for row in table:
            pending.append((row, pool.submit(pack, row)))
            if len(pending) > 2 * workers:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()


def _pack_clip(track: Track, kind: Modality, codec: str, short_side: int | None
               ) -> tuple[str, tuple[int, int, int], list[bytes]]:
    start, end = reading.window(track)
    packed: list[bytes] = []
    shape = (0, 0, 0)
    for at in range(0, end - start, _CHUNK):
        for frame in reading.read(track, kind, range(at, min(at + _CHUNK, end - start))):
            if short_side is not None and kind.kind == "video":
                frame = shrink(frame, short_side, kind.invalid)
            shape = frame.shape
            packed.append(_pack(codec, frame))
    return _source_of(track), shape, packed


def shrink(frame: np.ndarray, short_side: int, invalid: float | None) -> np.ndarray:
    """``(H, W, C)`` downscaled so that its shorter side is ``short_side``; smaller frames stay as they are.

    Pixels are area averages over *valid* readings; a pixel of which less than half is valid becomes invalid.
    """
    height, width, channels = frame.shape
    scale = short_side / min(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if invalid is None:
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    valid = (frame != invalid).astype(np.float32)
    share = cv2.resize(valid, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    total = cv2.resize(frame.astype(np.float32) * valid, size, interpolation=cv2.INTER_AREA)
    mean = total.reshape(size[1], size[0], channels) / np.maximum(share, 1e-6)
    if frame.dtype.kind == "u":
        mean = np.rint(mean)
    return np.where(share >= 0.5, mean, invalid).astype(frame.dtype)


def _codec_for(kind: Modality, codec: str) -> str:
    can_jpeg = kind.kind == "video" and kind.dtype == "uint8" and kind.channels in (1, 3)
    if codec == "auto":
        if can_jpeg:
            return "jpeg"
        return "lz4" if kind.dtype == "uint16" and _blosc() is not None else "raw"
    if codec == "jpeg":
        return "jpeg" if can_jpeg else "raw"
    if codec == "lz4":
        if _blosc() is None:
            raise ModaliftError('cache codec "lz4" needs numcodecs - pip install "modalift[cache]", or use codec "raw"')
        return "lz4" if kind.kind == "video" else "raw"
    return "raw"


def _blosc() -> Any:
    """The compressor's module, or None where it is not installed; its own threads stay off (the loader has workers)."""
    try:
        from numcodecs import blosc
    except ImportError:
        return None
    blosc.use_threads = False
    return blosc


def _pack(codec: str, frame: np.ndarray) -> bytes:
    if codec == "jpeg":
        image = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if frame.shape[2] == 3 else frame
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    frame = np.ascontiguousarray(frame)
    if codec == "lz4":
        blosc = _blosc()
        return bytes(blosc.compress(frame, b"lz4", 5, blosc.BITSHUFFLE))
    return frame.tobytes()


def _unpack(codec: str, data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    if codec == "jpeg":
        flags = cv2.IMREAD_COLOR if shape[2] == 3 else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None:
            raise ValueError("not a JPEG")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if shape[2] == 3 else image[..., None]
    if codec == "lz4":
        blosc = _blosc()
        if blosc is None:
            raise ModaliftError('this frame cache needs numcodecs - pip install "modalift[cache]"')
        data = blosc.decompress(data)
    return np.frombuffer(data, dtype).reshape(shape)


def _source_of(track: Track) -> str:
    """What frames are decoded from: window | file name | array key | size and modification time (empty if the file is gone)."""
    try:
        stat = track.path.stat()
        state = f"{stat.st_size},{stat.st_mtime_ns}"
    except OSError:
        state = ""
    return f"{track.start}:{track.end}|{track.path.name}|{track.key}|{state}"


def _same_source(then: str, now: str) -> bool:
    what_then, _, state_then = then.rpartition("|")
    what_now, _, state_now = now.rpartition("|")
    return what_then == what_now and (not state_now or state_now == state_then)


def _load_view(folder: Path, header: Mapping[str, Any]) -> _View:
    with np.load(folder / f"{header['file']}.npz", allow_pickle=False) as index:
        ids = index["ids"].tolist()
        return _View(header["codec"], np.dtype(header["dtype"]), folder / f"{header['file']}.bin",
                     {clip: n for n, clip in enumerate(ids)}, index["sources"], index["first"], index["shapes"],
                     index["offsets"])


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
