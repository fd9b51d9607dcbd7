"""Where frames are read from: recordings on disk, or arrays in memory; the frame cache has the same two methods."""

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
    """The interface through which a :class:`~modalift.loading.clips.ClipSet` reads frames."""

    def length(self, row: Row, view: str) -> int:
        """Number of frames in the view's window."""
        ...  # a protocol has no body

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        """Frames ``(T, H, W, C)``, by their index in the window; None: all."""
        ...  # a protocol has no body

    def unreadable(self, views: Iterable[str]) -> dict[str, str]:
        """Clip id -> why one of these views could not be read when the store was made."""
        ...  # a protocol has no body


class FileStore:
    """Reads recordings from disk: every read decodes."""

    def __init__(self, views: Mapping[str, Modality]) -> None:
        self.views = dict(views)

    def length(self, row: Row, view: str) -> int:
        start, end = reading.window(row.tracks[view])
        return end - start

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        return reading.read(row.tracks[view], self.views[view], frames)

    def unreadable(self, views: Iterable[str]) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class StoredFrames:
    """The frames of one view of one clip, read from a store on demand."""

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
    """The frames of a track, read from disk on demand."""

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
    """A clip stored without its zero margin: a segmented person fills about a fifth of the image."""

    def __init__(self, frames: Array) -> None:
        nonzero: Array = np.any(frames, axis=(0, 3))
        rows, columns = np.flatnonzero(np.any(nonzero, axis=1)), np.flatnonzero(np.any(nonzero, axis=0))
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


class MemoryStore:
    """Keeps decoded clips in main memory, for datasets that fit; depth is stored without its zero margin.

    Example:
        >>> store = MemoryStore({("a", "nir"): np.zeros((3, 2, 2, 1), np.uint8)})
        >>> store.bytes
        12
    """

    def __init__(self, arrays: Mapping[tuple[str, str], Array | _Cropped],
                 skipped: Mapping[str, str] | None = None) -> None:
        self.arrays = dict(arrays)
        self.skipped = dict(skipped or {})

    @classmethod
    def of(cls, table: Table, views: Iterable[str], *, limit_gb: float = 8.0,
           progress: Callable[[int, int], None] | None = None) -> MemoryStore:
        """Reads every clip of the views into memory; corrupt clips are left out and named in ``skipped``.

        Raises:
            ModaliftError: the clips need more than ``limit_gb`` (10^9 bytes).
        """
        files, views = FileStore(table.views), tuple(views)
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
                raise ModaliftError(f"{table.name}: {done} of {len(table)} clips fill {limit_gb:g} GB of memory - set"
                                    " data.cache to a folder that `modalift cache` writes, instead of memory")
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

    def unreadable(self, views: Iterable[str]) -> dict[str, str]:
        return dict(self.skipped)

    def _clip(self, row: Row, view: str) -> Array | _Cropped:
        try:
            return self.arrays[row.id, view]
        except KeyError:
            raise ModaliftError(f"view '{view}' of clip '{row.id}' is not in memory - read it into the store first") from None


def _bytes(clip: Array | _Cropped) -> int:
    return clip.inner.nbytes if isinstance(clip, _Cropped) else clip.nbytes
