"""Where frames come from: recordings as they stand, or arrays in memory; a cache folder has the same two methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table

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
    """The recordings as they stand: every read decodes."""

    def __init__(self, views: Mapping[str, Modality]) -> None:
        self.views = dict(views)

    def length(self, row: Row, view: str) -> int:
        start, end = reading.window(row.tracks[view])
        return end - start

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        return reading.read(row.tracks[view], self.views[view], frames)


class Memory:
    """Decoded clips in main memory, for sets that fit.

    Example:
        >>> store = Memory({("a", "depth"): np.zeros((3, 2, 2, 1), np.uint16)})
        >>> store.bytes
        24
    """

    def __init__(self, arrays: Mapping[tuple[str, str], Array], skipped: Mapping[str, str] | None = None) -> None:
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
        arrays: dict[tuple[str, str], Array] = {}
        skipped: dict[str, str] = {}
        size = 0
        for done, row in enumerate(table.rows, 1):
            for view in views:
                if view not in row.tracks:
                    continue
                try:
                    arrays[row.id, view] = frames = files.read(row, view)
                except ModaliftError as error:
                    skipped[row.id] = str(error)
                    break
                size += frames.nbytes
            if size > limit_gb * 1e9:
                raise ModaliftError(f"{table.name}: {done} of {len(table)} clips fill {limit_gb:g} GB of memory - use a"
                                    " cache folder instead of cache: memory")
            if progress is not None:
                progress(done, len(table))
        return cls(arrays, skipped)

    @property
    def bytes(self) -> int:
        return sum(a.nbytes for a in self.arrays.values())

    def length(self, row: Row, view: str) -> int:
        return len(self._clip(row, view))

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        clip = self._clip(row, view)
        return clip if frames is None else clip[np.asarray(frames, dtype=np.int64)]

    def _clip(self, row: Row, view: str) -> Array:
        try:
            return self.arrays[row.id, view]
        except KeyError:
            raise ModaliftError(f"view '{view}' of clip '{row.id}' is not in memory - read its table first") from None
