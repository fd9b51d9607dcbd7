"""Reads the frames of one track, in decoder output order, from any supported file format.

Frames are numbered in the order in which the decoder outputs them. Time stamps of genuine recordings may be wrong or
missing, so frames are never sorted by them; frame counts in headers are unreliable, so frames are counted by demuxing the
file.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from modalift.errors import ModaliftError, nearest
from modalift.files import entries, read_bytes, status
from modalift.loading import matlab, skeletons, video
from modalift.modalities.modality import Modality
from modalift.modalities.table import Track

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
ARRAYS = (".npz", ".npy")

#: Frames of an array that are converted at a time.
_CHUNK = 64


def _matlab(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Arrays of a MATLAB file with time first: of three or more dimensions the last is time, as MATLAB stacks frames."""
    return {name: np.moveaxis(a, -1, 0) if a.ndim > 2 else a for name, a in matlab.arrays(data, where).items()}


#: Formats of genuine downloads that also hold arrays, and how they are read.
_FOREIGN: dict[str, Callable[[bytes, str], Any]] = {".mat": _matlab, ".skeleton": skeletons.kinect, ".txt": skeletons.rows}
_HOLD_ARRAYS = (*ARRAYS, *_FOREIGN)

_K = TypeVar("_K")
_V = TypeVar("_V")


class _LRUCache(Generic[_K, _V]):
    """A thread-safe cache of the ``capacity`` most recently used values."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[_K, _V] = OrderedDict()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # a child must not inherit a lock that another thread holds
            os.register_at_fork(after_in_child=self._unlock)

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def get_or(self, key: _K, make: Callable[[], _V]) -> _V:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        with self._lock:
            self._kept[key] = value
            if len(self._kept) > self.capacity:
                self._kept.popitem(last=False)
        return value


# Keys hold the modification time and the size, so that a file that was overwritten is read again.
_VIDEOS: _LRUCache[tuple[str, int, int], video.Index] = _LRUCache(8192)
_FOLDERS: _LRUCache[tuple[str, int], list[Path]] = _LRUCache(256)
_ARCHIVES: _LRUCache[tuple[str, int, int, int], Any] = _LRUCache(8)
_LENGTHS: _LRUCache[tuple[str, int, int, str], int] = _LRUCache(65536)


def count_frames(track: Track) -> int:
    """Counts the frames in a track's file (not in its window) by demuxing; cached until the file changes.

    Raises:
        ModaliftError: the file is missing, empty, or not a recording.
    """
    path = track.path
    found = _stat(path)
    if path.is_dir():
        return len(_images(path))
    if found.st_size == 0:
        raise ModaliftError(f"{path} has zero bytes - record or copy it again")
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return 1
    if suffix in _HOLD_ARRAYS:
        key = (str(path), found.st_mtime_ns, found.st_size, track.key)
        return _LENGTHS.get_or(key, lambda: len(_array(path, track.key)))
    return _index_of(path).frames


def window(track: Track) -> tuple[int, int]:
    """First frame and end (exclusive) of a track's window in its file; an open end is resolved to the frame count.

    Raises:
        ModaliftError: the file cannot be read, is truncated before the window ends, or the window is empty.
    """
    count = count_frames(track)
    end = count if track.end is None else track.end
    cut = _missing_bytes(track.path)
    if cut and (track.end is None or end > count):
        raise ModaliftError(f"{track.path} is truncated: {cut} bytes are missing at its end, {count} frames can be read"
                            " - copy it again or remove the clip from the table")
    if end > count and track.clamp:
        end = count
    if end > count:
        raise ModaliftError(f"{track.path} has {count} frames, but its window ends at frame {end}"
                            " - correct the window in the table")
    if not 0 <= track.start < end:
        raise ModaliftError(f"{track.path} has {count} frames, so its window {track.start}..{end} is empty"
                            " - correct the window in the table")
    return track.start, end


def read(track: Track, modality: Modality, frames: Sequence[int] | None = None,
         change: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """Reads frames of a track.

    Args:
        track: the file and the window in it.
        modality: how to read it: ``uint8`` with 3 channels gives RGB, with 1 channel the luma (a gray video that is stored
            as three equal channels gives its gray values), ``uint16`` gives the stored values (millimeters).
        frames: indices relative to ``track.start``, in any order, repeats allowed; None: the whole window.
        change: a function of each frame ``(H, W, C)``, e.g. one that reduces it; called as soon as the frame is decoded, so
            that a long recording need not fit into memory at its full size.

    Returns:
        ``(T, H, W, C)`` of the modality's dtype; signals are ``(T, 1, 1, C)`` float32, joints ``(T, J, 3)`` flattened
        to C = 3 J.

    Raises:
        ModaliftError: see :func:`collect`.
    """
    return np.stack(collect(track, modality, frames, change or (lambda frame: frame)))


def collect(track: Track, modality: Modality, frames: Sequence[int] | None, each: Callable[[np.ndarray], _V]) -> list[_V]:
    """What a function gives for frames of a track, in one pass over the file; see :func:`read`.

    Raises:
        ModaliftError: the file is missing, empty, truncated or not decodable, an archive lacks the array, or a frame does
            not exist; the message names it.
    """
    start, end = window(track)
    wanted = np.arange(start, end) if frames is None else np.asarray(list(frames), dtype=np.int64) + start
    if wanted.size == 0:
        raise ModaliftError(f"{track.path}: no frame index was given - give at least one")
    if wanted.min() < start or wanted.max() >= end:
        bad = int(wanted.min() if wanted.min() < start else wanted.max()) - start
        raise ModaliftError(f"{track.path} has no frame {bad} - its window has the frames 0 to {end - start - 1}")
    suffix = track.path.suffix.lower()
    if track.path.is_dir() or suffix in IMAGES:
        files = _images(track.path) if track.path.is_dir() else [track.path]
        return _read_images([files[i] for i in wanted], modality, each)
    if suffix in _HOLD_ARRAYS:
        array = _array(track.path, track.key)
        return [each(frame) for at in range(0, len(wanted), _CHUNK)
                for frame in _shaped(array[wanted[at:at + _CHUNK]], modality, track)]
    if modality.kind == "signal":
        raise ModaliftError(f"{track.path} is a video, but {modality.name} is a signal"
                            " - give an .npz or .npy file, or another modality")
    return video.collect(track.path, _index_of(track.path), wanted, modality, each)


def timeline(track: Track) -> np.ndarray | None:
    """Time of each frame of the window on the table's clock, in seconds, ``(T,)`` float64; None if the rate is unknown.

    Recorded time stamps take precedence over the rate; ``offset_ms`` (this sensor's clock minus the table's) is subtracted.
    """
    start, end = window(track)
    if track.timestamps:
        if len(track.timestamps) != end - start:
            raise ModaliftError(f"{track.path} has {end - start} frames in its window but {len(track.timestamps)}"
                                " time stamps - give one per frame")
        seconds = np.asarray(track.timestamps, dtype=np.float64)
    elif track.rate:
        seconds = np.arange(end - start) / track.rate
    else:
        return None
    return seconds - track.offset_ms / 1000.0


def channels(track: Track, modality: Modality) -> int:
    """Number of channels per pixel (videos) or per sample (signals: all dimensions after T), read from the file."""
    _stat(track.path)
    if track.path.suffix.lower() in _HOLD_ARRAYS:
        return _shaped(_array(track.path, track.key)[:1], modality.with_channels(0), track).shape[-1]
    return 3 if _is_color(track) else 1


def _is_color(track: Track) -> bool:
    if track.path.is_dir() or track.path.suffix.lower() in IMAGES:
        import cv2

        file = _images(track.path)[0] if track.path.is_dir() else track.path
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        return image is not None and image.ndim == 3
    return not video.is_gray(track.path)


def array(track: Track) -> np.ndarray:
    """The array of an ``.npz``, ``.npy`` or other track that holds arrays, as stored, with time first."""
    return _array(track.path, track.key)


def keys(path: Path) -> list[str]:
    """Names of the arrays in an ``.npz`` archive."""
    return list(_archive(path))


def _stat(path: Path) -> os.stat_result:
    found = status(path)
    if found is None:
        raise ModaliftError(f"{path} does not exist - correct the path in the table, or the root folder")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ModaliftError(f"{path} is neither a file nor a folder - correct the path in the table")
    return found


def _missing_bytes(path: Path) -> int:
    if path.is_dir() or path.suffix.lower() in (*IMAGES, *_HOLD_ARRAYS):
        return 0
    return _index_of(path).missing


def _index_of(path: Path) -> video.Index:
    found = _stat(path)
    return _VIDEOS.get_or((str(path), found.st_mtime_ns, found.st_size), lambda: video.index(path))


# ------------------------------------------------------------------------------------------------ image sequences

def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key for natural order, in which ``img2`` comes before ``img10``.

    Example:
        >>> sorted(["img10.png", "img2.png"], key=natural)
        ['img2.png', 'img10.png']
    """
    parts = [(0, *_size(p)) if p[0].isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name.lower()) if p]
    return (*parts, (-1, 0, name))  # `a1`, `a01` and `A1` are different names, so that every order is the same


def _size(digits: str) -> tuple[int, str]:
    """A key that orders digits of any script and number by their value."""
    value = "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0")
    return len(value), value


def _images(folder: Path) -> list[Path]:
    key = (str(folder), _stat(folder).st_mtime_ns)

    def scan() -> list[Path]:
        found = [p for p in entries(folder) if p.suffix.lower() in IMAGES]
        if not found:
            raise ModaliftError(f"{folder} contains no image ({', '.join(IMAGES[:4])}, ...) - put the frames there, or"
                                " give a video file")
        return sorted(found, key=lambda p: natural(p.name))

    return _FOLDERS.get_or(key, scan)


def _read_images(files: Sequence[Path], modality: Modality, each: Callable[[np.ndarray], _V]) -> list[_V]:
    if modality.kind == "signal":
        raise ModaliftError(f"{files[0]} is an image, but {modality.name} is a signal - give an .npz or .npy file")
    kept: dict[Path, _V] = {}
    first: tuple[int, ...] = ()
    for file in files:
        if file not in kept:
            image = read_image(file, modality)
            first = first or image.shape
            if image.shape != first:
                raise ModaliftError(f"{file} is {image.shape[1]}x{image.shape[0]}, but {files[0].name} is"
                                    f" {first[1]}x{first[0]} - all frames of a clip must have one size")
            kept[file] = each(image)
    return [kept[f] for f in files]


def read_image(file: Path, modality: Modality) -> np.ndarray:
    """Reads one image as ``(H, W, C)`` of the modality's dtype."""
    import cv2

    if modality.dtype == "uint16":
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE
    else:
        flags = cv2.IMREAD_COLOR if modality.channels == 3 else cv2.IMREAD_GRAYSCALE
    # Decoding from bytes also works for paths that OpenCV cannot open.
    data = np.frombuffer(read_bytes(file), dtype=np.uint8)
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        reason = "has zero bytes" if data.size == 0 else "is not a readable image"
        raise ModaliftError(f"{file} {reason} - write it again, or remove the clip from the table")
    if image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image[..., None].astype(modality.dtype, copy=False)


# -------------------------------------------------------------------------------------------------------- arrays

def _archive(path: Path) -> Any:
    found = _stat(path)
    if found.st_size == 0:
        raise ModaliftError(f"{path} has zero bytes - write it again")

    def load() -> Any:
        if parse := _FOREIGN.get(path.suffix.lower()):
            return parse(read_bytes(path), str(path))
        try:  # a .npy file is mapped: only the frames that are read take memory
            return np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
        except Exception as error:
            raise ModaliftError(f"{path} is not a NumPy file of plain arrays ({_first_line(error)})"
                                " - write it with numpy.savez") from None

    # Forked workers must not share the file position of an open archive: hence the process id in the key.
    return _ARCHIVES.get_or((str(path), found.st_mtime_ns, found.st_size, os.getpid()), load)


def _array(path: Path, key: str) -> np.ndarray:
    stored = _archive(path)
    if isinstance(stored, np.ndarray):
        array = stored
    else:
        names = list(stored)
        if not key and len(names) == 1:
            key = names[0]
        if key not in names:
            shown = nearest(key, names) if len(names) < 20 or key else f"it holds {len(names)}"
            if shown.startswith("known") and len(names) >= 20:
                shown = f"it holds {len(names)} others, such as '{names[0]}'"
            raise ModaliftError(f"{path} holds no array '{key}' - {shown}")
        try:
            array = stored[key]
        except Exception as error:
            raise ModaliftError(f"{path}: array '{key}' cannot be read ({_first_line(error)}) - write the file again") \
                from None
    if array.ndim == 0:
        raise ModaliftError(f"{path}: array '{key}' is a single number - a recording needs time as its first dimension")
    return array


def _shaped(array: np.ndarray, modality: Modality, track: Track) -> np.ndarray:
    if array.dtype.kind not in "biuf" or not array.size:
        raise ModaliftError(f"{track.path}: an array of {array.dtype} {array.shape} is not a recording - give real numbers"
                            " with time as the first dimension")
    if modality.kind == "signal":
        array = array.reshape(len(array), 1, 1, -1)
    elif array.ndim == 3:
        array = array[..., None]
    where = f"{track.path}{' array ' + repr(track.key) if track.key else ''}"
    if array.ndim != 4:
        raise ModaliftError(f"{where} has shape {array.shape} - a video is (T, H, W) or (T, H, W, C)")
    if modality.channels and array.shape[-1] != modality.channels:
        raise ModaliftError(f"{where} has {array.shape[-1]} channels, but {modality.name} has {modality.channels}"
                            " - all clips of a view need the same number")
    if modality.dtype != "float32" and array.dtype.kind == "f":
        raise ModaliftError(f"{where} holds {array.dtype}, but {modality.name} is stored as {modality.dtype}"
                            f" ({modality.unit}) - convert it and write it again")
    return array.astype(modality.dtype)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
