"""Where frames are read from: recordings on disk, or arrays in memory; the frame cache has the same methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.loading.framing import Framing
from modalift.loading.reduction import Reduction
from modalift.loading.threads import in_order
from modalift.modalities import Modality, Row, Table, Track

Array = NDArray[Any]


class Store(Protocol):
    """The interface through which a :class:`~modalift.loading.clips.ClipSet` reads frames."""

    @property
    def reductions(self) -> Mapping[str, Reduction]:
        """View -> by what its images are reduced already; views that are missing have the recordings' own size."""
        ...  # a protocol has no body

    def length(self, row: Row, view: str) -> int:
        """Number of frames in the view's window."""
        ...  # a protocol has no body

    def size(self, row: Row, view: str) -> tuple[int, int]:
        """Height and width of the recording's images, before any reduction."""
        ...  # a protocol has no body

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        """Frames ``(T, H, W, C)``, by their index in the window; None: all."""
        ...  # a protocol has no body

    def unreadable(self, views: Iterable[str]) -> dict[str, str]:
        """Clip id -> why one of these views could not be read when the store was made."""
        ...  # a protocol has no body


def reductions_of(table: Table, framings: Mapping[str, Framing]) -> dict[str, Reduction]:
    """View -> the reduction that its framing implies, for the views whose images may be reduced."""
    found = {view: Reduction.of(framing, table.modality(view)) for view, framing in framings.items()}
    return {view: reduction for view, reduction in found.items() if reduction}


def read_track(track: Track, modality: Modality, frames: Sequence[int] | None, reduction: Reduction | None) -> Array:
    """Frames of a track, each reduced as soon as it is decoded."""
    if not reduction:
        return reading.read(track, modality, frames)
    return reading.read(track, modality, frames, lambda image: reduction.image(image, modality, track.affine))


class FileStore:
    """Reads recordings from disk: every read decodes.

    Args:
        views: view -> its modality.
        reductions: view -> by what its images are reduced.
    """

    def __init__(self, views: Mapping[str, Modality], reductions: Mapping[str, Reduction] | None = None) -> None:
        self.views, self.reductions = dict(views), dict(reductions or {})

    def length(self, row: Row, view: str) -> int:
        start, end = reading.window(row.tracks[view])
        return end - start

    def size(self, row: Row, view: str) -> tuple[int, int]:
        height, width = reading.read(row.tracks[view], self.views[view], [0]).shape[1:3]
        return height, width

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        return read_track(row.tracks[view], self.views[view], frames, self.reductions.get(view))

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
    """The frames of a track, read from disk on demand, each reduced as soon as it is decoded."""

    track: Track
    modality: Modality
    reduction: Reduction | None = None

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        start, end = reading.window(self.track)
        return end - start

    def read(self, indices: Sequence[int]) -> Array:
        return read_track(self.track, self.modality, indices, self.reduction)


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
    """Keeps decoded clips in main memory; depth is stored without its zero margin.

    Args:
        arrays: (clip id, view) -> its frames.
        unreadable: (clip id, view) -> why it could not be read.
        reductions: view -> by what its images were reduced.
        sizes: (clip id, view) -> height and width of the recording's images, where they were reduced.

    Example:
        >>> store = MemoryStore({("a", "nir"): np.zeros((3, 2, 2, 1), np.uint8)})
        >>> store.bytes
        12
    """

    def __init__(self, arrays: Mapping[tuple[str, str], Array | _Cropped],
                 unreadable: Mapping[tuple[str, str], str] | None = None, reductions: Mapping[str, Reduction] | None = None,
                 sizes: Mapping[tuple[str, str], tuple[int, int]] | None = None) -> None:
        self.arrays, self.reductions = dict(arrays), dict(reductions or {})
        self._unreadable, self._sizes = dict(unreadable or {}), dict(sizes or {})

    @classmethod
    def of(cls, table: Table, framings: Mapping[str, Framing], *, fits: Callable[[int], bool] = lambda size: True,
           progress: Callable[[int, int], None] | None = None) -> MemoryStore:
        """Reads every clip of some views into memory, at the size that their framings need.

        A view that cannot be read is named by :meth:`unreadable`.

        Args:
            table: the clips.
            framings: the views, and how their clips are framed.
            fits: called after every clip with the bytes that are held: whether there is memory for more.
            progress: called with (clips done, clips).

        Raises:
            MemoryLimitError: the clips do not fit.
        """
        files, size = FileStore(table.views, reductions_of(table, framings)), 0
        store = cls({}, {}, files.reductions)
        for done, (row, views) in enumerate(in_order(lambda row: _read_views(row, framings, files), table), 1):
            for view, held in views.items():
                if isinstance(held, str):
                    store._unreadable[row.id, view] = held
                    continue
                store.arrays[row.id, view], store._sizes[row.id, view] = held
                size += _bytes(held[0])
            if not fits(size):
                raise MemoryLimitError(f"{table.name}: {done} of {len(table)} clips take {size / 1e9:.1f} GB of memory")
            if progress is not None:
                progress(done, len(table))
        return store

    @property
    def bytes(self) -> int:
        return sum(_bytes(a) for a in self.arrays.values())

    def holds(self, row: Row, view: str) -> bool:
        """Whether the clip was read into memory, or could not be read."""
        return (row.id, view) in self.arrays or (row.id, view) in self._unreadable

    def length(self, row: Row, view: str) -> int:
        return self._clip(row, view).shape[0]

    def size(self, row: Row, view: str) -> tuple[int, int]:
        clip = self._clip(row, view)
        return self._sizes.get((row.id, view), (clip.shape[1], clip.shape[2]))

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        clip = self._clip(row, view)
        if isinstance(clip, _Cropped):
            return clip.read(frames)
        return clip if frames is None else clip[np.asarray(frames, dtype=np.int64)]

    def unreadable(self, views: Iterable[str]) -> dict[str, str]:
        views = set(views)
        return {clip: reason for (clip, view), reason in self._unreadable.items() if view in views}

    def _clip(self, row: Row, view: str) -> Array | _Cropped:
        if (row.id, view) in self._unreadable:
            raise ModaliftError(self._unreadable[row.id, view])
        try:
            return self.arrays[row.id, view]
        except KeyError:
            raise ModaliftError(f"view '{view}' of clip '{row.id}' is not in memory - read it into the store first") from None


class PartialStore(Store, Protocol):
    """A store of some clips of a table."""

    def holds(self, row: Row, view: str) -> bool:
        """Whether it knows the clip: its frames, or why they cannot be read."""
        ...  # a protocol has no body


class BackedStore:
    """A store of some clips, and the recordings of all others, reduced alike.

    Args:
        held: the store of some clips.
        files: the recordings.
    """

    def __init__(self, held: PartialStore, files: FileStore) -> None:
        self.held, self.files = held, files
        self.reductions: Mapping[str, Reduction] = files.reductions

    @property
    def digests(self) -> Mapping[tuple[str, str], str]:
        """(clip id, view) -> digest of the recordings, as far as the store of clips knows it."""
        return getattr(self.held, "digests", {})

    def length(self, row: Row, view: str) -> int:
        return self._store(row, view).length(row, view)

    def size(self, row: Row, view: str) -> tuple[int, int]:
        return self._store(row, view).size(row, view)

    def read(self, row: Row, view: str, frames: Sequence[int] | None = None) -> Array:
        return self._store(row, view).read(row, view, frames)

    def unreadable(self, views: Iterable[str]) -> dict[str, str]:
        return self.held.unreadable(views)

    def _store(self, row: Row, view: str) -> Store:
        return self.held if self.held.holds(row, view) else self.files


class MemoryLimitError(ModaliftError):
    """Decoded clips do not fit into memory."""


def _read_views(row: Row, views: Iterable[str], files: FileStore
                ) -> dict[str, str | tuple[Array | _Cropped, tuple[int, int]]]:
    """The frames of a clip's views with the size of their images, or the reason why a view cannot be read."""
    found: dict[str, str | tuple[Array | _Cropped, tuple[int, int]]] = {}
    for view in views:
        if view in row.tracks:
            try:
                found[view] = _kept(row, view, None, files)
            except ModaliftError as error:
                found[view] = str(error)
    return found


def _kept(row: Row, view: str, frames: Sequence[int] | None, files: FileStore
          ) -> tuple[Array | _Cropped, tuple[int, int]]:
    """Frames as they are kept in memory, and the size of the recording's images."""
    kind, track, reduction = files.views[view], row.tracks[view], files.reductions.get(view, Reduction())
    size: tuple[int, int] = (0, 0)

    def change(image: Array) -> Array:
        nonlocal size
        size = image.shape[0], image.shape[1]
        return reduction.image(image, kind, track.affine)

    read = reading.read(track, kind, frames, change)
    return (_Cropped(read) if kind.invalid == 0 else read), size


#: From how many clips, and how many frames of each, the memory of a table is estimated.
SAMPLED_CLIPS, SAMPLED_FRAMES = 6, 4


def estimate_bytes(table: Table, framings: Mapping[str, Framing]) -> int:
    """About how much memory :meth:`MemoryStore.of` would take, from a few clips of the table.

    The size of a frame is measured on some clips; lengths are those of more clips.
    """
    files, total = FileStore(table.views, reductions_of(table, framings)), 0.0
    for view in framings:
        rows = [row for row in table if view in row.tracks]
        spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 8 * SAMPLED_CLIPS)).round().astype(int)).tolist()
        lengths, per_frame = [], []
        for n, index in enumerate(spread):
            try:
                length = files.length(rows[index], view)
                lengths.append(length)
                if n % 8 == 0:
                    some = [0]
                    if table.views[view].invalid == 0:  # how much of the image is kept differs from frame to frame
                        some = np.unique(np.linspace(0, length - 1, SAMPLED_FRAMES).round().astype(int)).tolist()
                    per_frame.append(_bytes(_kept(rows[index], view, some, files)[0]) / len(some))
            except ModaliftError:  # a clip that cannot be read takes nothing
                continue
        if per_frame:
            total += len(rows) * float(np.mean(lengths)) * float(np.mean(per_frame))
    return int(total)


def _bytes(clip: Array | _Cropped) -> int:
    return clip.inner.nbytes if isinstance(clip, _Cropped) else clip.nbytes
