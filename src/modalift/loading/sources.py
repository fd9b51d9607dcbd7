"""What a clip's frames come from: stamps tell that a file was written again here, digests tell its contents anywhere.

A figure, a cached frame and a training belong to the files that they were computed from. A *stamp* holds sizes and
modification times: it is exact on one machine and costs no reading, but a copy of the same file has another one. A *digest*
depends on the contents alone. Of a file larger than :data:`WHOLE` bytes it covers the size and evenly spaced blocks, so that
it can be computed for a large dataset: encoding a recording again changes its size or its index, which lies at an end.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from modalift.loading.reading import IMAGES
from modalift.modalities import Row, Table, Track

#: Files up to this size in bytes are read completely; of larger ones, this many blocks of this size.
WHOLE = 256 * 1024
BLOCKS, BLOCK = 16, 16 * 1024
#: Number of images of a folder whose contents are read, evenly spaced; of the others only names and sizes count.
IMAGES_READ = 16


def stamp(track: Track) -> str:
    """Sizes and modification times of a track's files, as 16 hex digits; empty if they are gone.

    It changes whenever a file is written on this machine, also where an image of a folder is written again in place.
    """
    try:
        return _hash(*(os.fsencode(f"{path.name},{stat.st_size},{stat.st_mtime_ns}") for path, stat in _files(track.path)))
    except OSError:
        return ""


def digest(track: Track) -> str:
    """The contents of a track's files (of an ``.npz`` file: of its array), as 16 hex digits; empty if they are gone.

    Neither names of files and folders count nor modification times, so a copy of a dataset has the same digests.
    """
    try:
        return _digest(track.path, track.key, stamp(track))
    except (OSError, zipfile.BadZipFile, KeyError):
        return ""


def digests(table: Table, views: Iterable[str], recorded: Mapping[tuple[str, str], str] | None = None
            ) -> dict[str, dict[str, str]]:
    """The digests of a table's clips: clip id -> view -> digest, read in a few threads.

    Args:
        table: the clips.
        views: which views; of a clip those that it has.
        recorded: (clip id, view) -> digest, for files that are gone (what a frame cache was made from).

    Example:
        >>> from modalift.modalities import build_table, modality
        >>> row = Row("a", None, "", "train", {"nir": Track(Path("gone.npy"))})
        >>> digests(build_table("t", (), {"nir": modality("nir")}, [row]), ["nir"], {("a", "nir"): "0123456789abcdef"})
        {'a': {'nir': '0123456789abcdef'}}
    """
    known, wanted = recorded or {}, tuple(views)

    def of(row: Row) -> dict[str, str]:
        return {v: digest(row.tracks[v]) or known.get((row.id, v), "") for v in wanted if v in row.tracks}

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        return dict(zip((row.id for row in table), pool.map(of, table.rows), strict=True))


@lru_cache(maxsize=1 << 17)
def _digest(path: Path, key: str, stamped: str) -> str:
    """The digest of a file as it was when ``stamped`` was made, which is only a key of the cache."""
    if path.suffix.lower() == ".npz":
        inside = _archive(path, stamped)
        return _hash(*(inside[name] for name in ([f"{key}.npy"] if key else sorted(inside))))
    files = _files(path)
    some = {int(k) for k in np.linspace(0, len(files) - 1, min(len(files), IMAGES_READ)).round()}
    return _hash(*(b"%d" % stat.st_size + (_contents(file, stat.st_size) if k in some else b"")
                   for k, (file, stat) in enumerate(files)))


@lru_cache(maxsize=64)
def _archive(path: Path, stamped: str) -> dict[str, bytes]:
    """Name -> size and CRC-32 of the arrays in an ``.npz`` file, from its directory."""
    with zipfile.ZipFile(path) as archive:
        return {i.filename: b"%d,%d" % (i.file_size, i.CRC) for i in archive.infolist()}


def _files(path: Path) -> list[tuple[Path, os.stat_result]]:
    """A recording's files in the order of their names: the file itself, or the images of a folder."""
    if not path.is_dir():
        return [(path, path.stat())]
    with os.scandir(path) as entries:
        found = [(Path(e.path), e.stat()) for e in entries if e.name.lower().endswith(IMAGES) and e.name[0] != "."]
    return sorted(found, key=lambda pair: pair[0].name)


def _contents(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        if size <= WHOLE:
            return file.read()
        parts = []
        for start in np.linspace(0, size - BLOCK, BLOCKS).astype(np.int64).tolist():
            file.seek(start)
            parts.append(file.read(BLOCK))
        return b"".join(parts)


def _hash(*parts: bytes) -> str:
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        total.update(b"%d:" % len(part))
        total.update(part)
    return total.hexdigest()
