"""Where frames come from: recordings on disk, or arrays in memory; a cache folder has the same two methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table, Track

Array = NDArray[Any]


class Store(Protocol):
    """What a :class:`~modalift.loading.clips.ClipSet` reads from."""

    def length(self, row: Row, view: str) -> int:
        """Frames of the view's window."""
        ...  # a protocol has no body

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        """Frames ``(T, H, W, C)``, numbered from the start of the window; None: all."""
        ...  # a protocol has no body


class Files:
    """Recordings on disk: every read decodes."""

    def __init__(self, views: Mapping[str, Modality]) -> None:
        self.views = dict(views)

    def length(self, row: Row, view: str) -> int:
        start, end = reading.window(row.tracks[view])
        return end - start

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        return reading.read(row.tracks[view], self.views[view], frames)


@dataclass(frozen=True)
class Stored:
    """The frames of one view of one clip, in a store."""

    store: Store
    row: Row
    view: str

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        length = self.store.length(self.row, self.view)
        if length < 1:
            raise ModaliftError(f"{self.row.tracks[self.view].path}: view '{self.view}' has no frame in its window - correct"
                                " the window or leave the clip out")
        return length

    def read(self, indices: Sequence[int]) -> Array:
        return self.store.read(self.row, self.view, indices)


@dataclass(frozen=True)
class TrackFrames:
    """The frames of a track on disk; every read decodes."""

    track: Track
    modality: Modality

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        start, end = reading.window(self.track)
        return end - start

    def read(self, indices: Sequence[int]) -> Array:
        return reading.read(self.track, self.modality, indices)


class _Cropped:
    """A clip without its margin of zeros: a cut-out person fills a fifth of the picture."""

    def __init__(self, frames: Array) -> None:
        seen: Array = np.any(frames, axis=(0, 3))
        rows, columns = np.flatnonzero(np.any(seen, axis=1)), np.flatnonzero(np.any(seen, axis=0))
        self.window = (slice(0, 0), slice(0, 0))
        if len(rows):
            self.window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        self.shape = frames.shape
        self.inner = frames[(slice(None), *self.window)].copy()

    def read(self, frames: Sequence[int] | None) -> Array:
        inner = self.inner if frames is None else self.inner[np.asarray(frames, dtype=np.int64)]
        out = np.zeros((len(inner), *self.shape[1:]), inner.dtype)
        out[(slice(None), *self.window)] = inner
        return out


class Memory:
    """Decoded clips in main memory, for datasets that fit; depth without its empty margin.

    Example:
        >>> store = Memory({("a", "nir"): np.zeros((3, 2, 2, 1), np.uint8)})
        >>> store.bytes
        12
    """

    def __init__(self, arrays: Mapping[tuple[str, str], Array | _Cropped],
                 skipped: Mapping[str, str] | None = None) -> None:
        self.arrays = dict(arrays)
        self.skipped = dict(skipped or {})

    @classmethod
    def of(cls, table: Table, views: Iterable[str], *, limit_gb: float = 8.0,
           progress: Callable[[int, int], None] | None = None) -> Memory:
        """Reads every clip of the views once; corrupt clips are named in ``skipped``.

        Raises:
            ModaliftError: the clips need more than ``limit_gb`` (10^9 bytes).
        """
        files, views = Files(table.views), tuple(views)
        arrays: dict[tuple[str, str], Array | _Cropped] = {}
        skipped: dict[str, str] = {}
        size = 0
        for done, row in enumerate(table.rows, 1):
            for view in views:
                if view not in row.tracks:
                    continue
                try:
                    frames = files.read(row, view)
                except ModaliftError as error:
                    skipped[row.id] = str(error)
                    break
                kept = _Cropped(frames) if table.views[view].invalid == 0 else frames
                arrays[row.id, view] = kept
                size += _bytes(kept)
            if size > limit_gb * 1e9:
                raise ModaliftError(f"{table.name}: {done} of {len(table)} clips fill {limit_gb:g} GB of memory - use a"
                                    " cache folder instead of cache: memory")
            if progress is not None:
                progress(done, len(table))
        return cls(arrays, skipped)

    @property
    def bytes(self) -> int:
        return sum(_bytes(a) for a in self.arrays.values())

    def length(self, row: Row, view: str) -> int:
        clip = self._clip(row, view)
        return clip.shape[0]

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        clip = self._clip(row, view)
        if isinstance(clip, _Cropped):
            return clip.read(frames)
        return clip if frames is None else clip[np.asarray(frames, dtype=np.int64)]

    def _clip(self, row: Row, view: str) -> Array | _Cropped:
        try:
            return self.arrays[row.id, view]
        except KeyError:
            raise ModaliftError(f"view '{view}' of clip '{row.id}' is not in memory - read its table first") from None


def _bytes(clip: Array | _Cropped) -> int:
    return clip.inner.nbytes if isinstance(clip, _Cropped) else clip.nbytes
