"""The frame cache: a folder of decoded frames, so that decoding does not limit the speed of training.

There are one append-only shard of frames and one index per view; :mod:`modalift.loading.cache_writing` writes them. 8-bit
frames are JPEG of quality 95, 16-bit frames are compressed losslessly (lz4 after a bit shuffle), floats are stored as they
are; frames may be downscaled once to a given shorter side. Shards are memory-mapped, so forked or spawned workers read them
without sharing a file position. Every clip is stored with what its files were, so that changed files are told.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from modalift.errors import ModaliftError, nearest
from modalift.files import parse_json
from modalift.loading.frame_codecs import unpack
from modalift.loading.reduction import Reduction
from modalift.loading.sources import digest, stamp
from modalift.modalities import Modality, Row, Table, Track

FORMAT = "modalift-cache/3"
#: The file that describes a cache; it is replaced last, so that a cache is never seen half-written.
ABOUT = "cache.json"


@dataclass(frozen=True)
class Source:
    """What the frames of one view of one clip were decoded from.

    Attributes:
        window: first frame and end in the file.
        name: the file's name, and the name of the array in it.
        stamp, digest: of its files, see :mod:`modalift.loading.sources`; empty if they were missing.
    """

    window: str
    name: str
    stamp: str
    digest: str

    @classmethod
    def of(cls, track: Track) -> Source:
        """What a track refers to now."""
        return cls(f"{track.start}:{track.end}", f"{track.path.name}:{track.key}", stamp(track), digest(track))

    def difference(self, track: Track) -> str:
        """Why a track would give other frames than these, in a few words; empty if it would not.

        Copies of the same files would not, and files that are gone do not count as changed.
        """
        if self.window != f"{track.start}:{track.end}":
            return f"has another window now ({track.start}..{track.end}, not {self.window.replace(':', '..')})"
        same_name = self.name == f"{track.path.name}:{track.key}"
        now = stamp(track)
        if same_name and (not now or now == self.stamp):
            return ""
        if not now:
            return f"is in another file now, which does not exist ({track.path})"
        return "" if self.digest and self.digest == digest(track) else f"was changed ({track.path})"


@dataclass(frozen=True)
class Difference:
    """Why a cache does not serve for a clip of a table.

    Attributes:
        clip, view: which.
        reason: in a few words.
    """

    clip: str
    view: str
    reason: str


@dataclass
class CachedView:
    """One view's part of a cache: where each frame's bytes are.

    A clip that is decoded again is appended, and its older entry gets an empty id.
    """

    codec: str
    dtype: np.dtype[Any]
    reduction: Reduction
    modality: dict[str, Any]
    shard: Path
    ids: list[str]
    sources: list[Source]
    first: np.ndarray          # (N + 1,) index of each clip's first frame
    shapes: np.ndarray         # (N, 3) height, width, channels
    sizes: np.ndarray          # (N, 2) height and width of the recording's images, before a reduction
    offsets: np.ndarray        # (F + 1,) byte at which each frame starts
    unreadable: dict[str, tuple[str, Source]]  # clip -> why it could not be read, and what its files were

    def __post_init__(self) -> None:
        self.positions = {clip: n for n, clip in enumerate(self.ids) if clip}

    def difference(self, row: Row, view: str) -> str:
        """Why this does not serve for a clip, in a few words; empty if it does."""
        track = row.tracks[view]
        if row.id in self.positions:
            return self.sources[self.positions[row.id]].difference(track)
        if row.id in self.unreadable:
            _, source = self.unreadable[row.id]
            is_mended = source.difference(track) or (not source.digest and digest(track))
            return "could not be read when the cache was made, and was changed since" if is_mended else ""
        return "is not in it"


class Cache:
    """Decoded frames of some views of a table; :func:`~modalift.loading.cache_writing.build_cache` makes one.

    Attributes:
        folder: the cache's folder.
        views: the cached views.
        skipped: clip id -> why a view of it could not be read.
        codecs: view -> ``raw``, ``jpeg`` or ``lz4``.
        short_side: the shorter side to which larger frames were downscaled, or None.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = read_about(folder)
        self.short_side: int | None = about["short_side"]
        self.held = {view: _load_view(folder, header) for view, header in about["views"].items()}
        self._maps: dict[str, mmap.mmap | bytes] = {}

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.held)

    @property
    def codecs(self) -> dict[str, str]:
        return {view: held.codec for view, held in self.held.items()}

    @property
    def lossless(self) -> bool:
        """Whether clips are exactly those of the recordings; images that framing reduces anyway may be reduced."""
        return self.short_side is None and "jpeg" not in self.codecs.values()

    @property
    def reductions(self) -> dict[str, Reduction]:
        """View -> by what its images are reduced, see :mod:`modalift.loading.reduction`; other views are not reduced."""
        return {view: held.reduction for view, held in self.held.items() if held.reduction}

    @property
    def nbytes(self) -> int:
        return sum(int(held.offsets[-1]) for held in self.held.values())

    @property
    def skipped(self) -> dict[str, str]:
        return self.unreadable(self.views)

    def unreadable(self, views: Iterable[str]) -> dict[str, str]:
        """Clip id -> why one of these views could not be read when the cache was made."""
        return {clip: reason for view in views if view in self.held
                for clip, (reason, _) in self.held[view].unreadable.items()}

    @property
    def digests(self) -> dict[tuple[str, str], str]:
        """(clip id, view) -> digest of the files that the frames were decoded from."""
        found: dict[tuple[str, str], str] = {}
        for view, held in self.held.items():
            found |= {(clip, view): held.sources[n].digest for clip, n in held.positions.items()}
            found |= {(clip, view): source.digest for clip, (_, source) in held.unreadable.items()}
        return found

    def differences(self, table: Table, views: Iterable[str]) -> Iterator[Difference]:
        """For which clips of a table the cache does not serve, and why; labels and splits do not matter.

        A clip is unchanged if the sizes and modification times of its files are those of then, or else their contents (a
        copy of the dataset), or if its files are gone. One that could not be read and was changed since is different.
        """
        asked = [(row, view) for row in table for view in views if view in row.tracks]

        def check(asked: tuple[Row, str]) -> Difference | None:
            row, view = asked
            if view not in self.held:
                return Difference(row.id, view, "is not in it")
            held, kind = self.held[view], table.modality(view)
            if held.modality != (now := described(kind)):
                return Difference(row.id, view, f"was read as {_words(held.modality)}, and is {_words(now)} now")
            reason = held.difference(row, view)
            return Difference(row.id, view, reason) if reason else None

        with ThreadPoolExecutor(8) as pool:  # network file systems answer slowly
            yield from (d for d in pool.map(check, asked) if d is not None)

    def covers(self, table: Table, views: Iterable[str]) -> bool:
        """Whether there is no difference to the table."""
        return next(self.differences(table, views), None) is None

    def check(self, table: Table, views: Iterable[str], update: str = "modalift cache DATA OUT") -> None:
        """Checks that the cache was made from the files that a table refers to.

        Args:
            table: the clips.
            views: the views that are read.
            update: the command that updates the cache, for the message.

        Raises:
            ModaliftError: it was not; the message names the first clip, and why.
        """
        found = list(self.differences(table, views))
        if found:
            first, more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ModaliftError(f"{self.folder}: this frame cache was not made from these clips: '{first.view}' of clip"
                                f" '{first.clip}' {first.reason}{more} - update it with `{update}`, set data.cache to another"
                                " folder, or leave data.cache empty to read the recordings")

    def holds(self, row: Row, view: str) -> bool:
        """Whether it knows the clip: its frames, or why they cannot be read."""
        return view in self.held and (row.id in self.held[view].positions or row.id in self.held[view].unreadable)

    def length(self, row: Row, view: str) -> int:
        """Number of frames in the view's window."""
        held, number = self._find(row, view)
        return int(held.first[number + 1] - held.first[number])

    def size(self, row: Row, view: str) -> tuple[int, int]:
        """Height and width of the images from which the clip's frames were reduced by framing."""
        held, number = self._find(row, view)
        return int(held.sizes[number, 0]), int(held.sizes[number, 1])

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
                to[...] = unpack(held.codec, data[at:stop], shape, held.dtype)
            except (ValueError, RuntimeError, cv2.error):
                raise ModaliftError(f"{held.shard} is damaged at byte {at} (clip '{row.id}', frame {i}) - remove"
                                    f" {self.folder} and build it again") from None
        return out

    def _find(self, row: Row, view: str) -> tuple[CachedView, int]:
        if view not in self.held:
            raise ModaliftError(f"{self.folder} holds no view '{view}' - {nearest(view, self.held)};"
                                " build a cache that does")
        held = self.held[view]
        if row.id not in held.positions:
            if row.id in held.unreadable:
                raise ModaliftError(held.unreadable[row.id][0])
            raise ModaliftError(f"{self.folder} holds no clip '{row.id}' of view '{view}' - update it with `modalift cache`")
        return held, held.positions[row.id]

    def _map(self, view: str) -> mmap.mmap | bytes:
        if view not in self._maps:
            shard = self.held[view].shard
            with shard.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < int(self.held[view].offsets[-1]):
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
    if not (folder / ABOUT).is_file():
        raise ModaliftError(f"{folder} holds no frame cache - make one with `modalift cache`")
    try:
        return Cache(folder)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise ModaliftError(f"{folder} is a damaged frame cache ({error}) - remove it and build it again") from None


def described(kind: Modality) -> dict[str, Any]:
    """What a cache keeps of a view's modality: how its frames were read."""
    return {"name": kind.name, "channels": kind.channels, "dtype": kind.dtype}


def _words(kind: Mapping[str, Any]) -> str:
    return f"{kind['name']} ({kind['channels']} x {kind['dtype']})"


def read_about(folder: Path) -> dict[str, Any]:
    """The description of a cache.

    Raises:
        ModaliftError: a cache of another version.
    """
    about: dict[str, Any] = parse_json((folder / ABOUT).read_text(encoding="utf-8"))
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ModaliftError(f"{folder} is not a frame cache of this version - remove it and build it again")
    return about


def _load_view(folder: Path, header: Mapping[str, Any]) -> CachedView:
    with np.load(folder / header["index"], allow_pickle=False) as index:
        sources = [Source(*fields) for fields in index["sources"].tolist()]
        return CachedView(header["codec"], np.dtype(header["modality"]["dtype"]), Reduction(header["reduced_for"]),
                          header["modality"], folder / header["shard"], index["ids"].tolist(), sources, index["first"],
                          index["shapes"], index["sizes"], index["offsets"], {clip: (reason, Source(**source))
                                             for clip, (reason, source) in header["unreadable"].items()})


def header_of(held: CachedView, index: str) -> dict[str, Any]:
    """A view's part of the description of a cache, whose index is in the file ``index``."""
    return {"shard": held.shard.name, "index": index, "codec": held.codec, "modality": held.modality,
            "reduced_for": held.reduction.needed,
            "unreadable": {clip: [reason, asdict(source)] for clip, (reason, source) in held.unreadable.items()}}
