"""Video files through PyAV: an index by demuxing, and decoding of only the groups of pictures that are wanted.

A *group* is a key packet and the packets up to the next one. Every packet is given its own number as time stamp
before it is decoded, so that each frame says which packet it came from, whatever the file's own stamps are worth.
Files in which packets and frames do not correspond (edit lists, missing key frames, codecs that hide frames) are read
from their beginning instead.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modalift.errors import ModaliftError
from modalift.loading.containers import missing_bytes
from modalift.modalities.modality import Modality

# Codecs of which every packet gives one frame.
_ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "vp8", "vp9", "av1", "mjpeg",
                                 "ffv1", "png", "rawvideo", "huffyuv", "ffvhuff", "prores", "dnxhd", "msmpeg4v3",
                                 "mpeg2", "jpeg2000", "utvideo", "libdav1d", "libvpx-vp9"})
# Containers that store a presentation time with each packet; in AVI it is guessed, often wrongly.
_STAMPED = ("mp4", "matroska")


@dataclass
class Index:
    """What demuxing a file says about it.

    Attributes:
        frames: frames that decoding gives.
        groups: number of the first packet of each group, then the number of packets.
        open_groups: groups that hold frames shown before their key frame, which need the group before to be decoded.
        rank: place in the decoder's output of each packet, or None where only decoding can tell.
        odd: True where the file must be read from its beginning.
        missing: bytes that the container promises and the file lacks.
        checked: groups whose ``rank`` was seen to be the decoder's order, in which frames may be skipped.
    """

    frames: int
    groups: list[int]
    open_groups: frozenset[int] = frozenset()
    rank: np.ndarray | None = None
    odd: bool = False
    missing: int = 0
    checked: set[int] = field(default_factory=set)


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise ModaliftError("reading videos needs PyAV - pip install av") from None
    return av


def _open(path: Path) -> tuple[Any, Any]:
    av = _av()
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as error:
        what = _cut(path) or f"is not a readable video ({_reason(error)})"
        raise ModaliftError(f"{path} {what} - copy it again or take the clip out of the table") from None
    if not container.streams.video:
        container.close()
        raise ModaliftError(f"{path} holds no video stream - name a file that does")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise ModaliftError(f"{path} {_cut(path) or 'holds a video that this FFmpeg cannot decode'} - copy it again or"
                            " convert it")
    stream.thread_type = "NONE"  # workers are the parallelism
    stream.thread_count = 1
    return container, stream


def _cut(path: Path) -> str:
    cut = missing_bytes(path)
    return f"is truncated ({cut} bytes are missing)" if cut else ""


def index(path: Path) -> Index:
    """Demux a file and find its groups of pictures (milliseconds; nothing is decoded unless the file is odd)."""
    av = _av()
    container, stream = _open(path)
    keys: list[bool] = []
    stamps: list[int | None] = []
    odd = False
    with container:
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                keys.append(bool(packet.is_keyframe))
                stamps.append(packet.pts)
                odd = odd or bool(packet.is_discard)
        except av.error.FFmpegError:
            odd = True  # the part before the damage may still serve; missing_bytes tells of cut files
        codec, delay = stream.codec_context, stream.codec_context.has_b_frames
        stamped = any(name in container.format.name for name in _STAMPED)
        odd = odd or not keys or not keys[0] or codec.name not in _ONE_FRAME_PER_PACKET
    found = Index(len(keys), [*(i for i, key in enumerate(keys) if key), len(keys)], odd=odd,
                  missing=missing_bytes(path))
    if odd:
        found.frames = sum(1 for _ in _sequential(path))
        if found.frames == 0:
            raise ModaliftError(f"{path} holds no decodable frame - record or copy it again")
        return found
    intra = len(found.groups) == len(keys) + 1
    if intra or not delay:
        found.rank = np.arange(len(keys))
        found.checked.update(range(len(found.groups) - 1))
        return found
    found.open_groups = frozenset(range(1, len(found.groups) - 1))  # cautious until the stamps say otherwise
    if stamped:
        _trust_stamps(found, stamps)
    return found


def is_gray(path: Path) -> bool:
    """Whether the pixels of a video have one component."""
    container, stream = _open(path)
    with container:
        return len(stream.codec_context.format.components) == 1


def _trust_stamps(found: Index, stamps: list[int | None]) -> None:
    """Take output order and open groups from presentation stamps, if they are such as an encoder writes.

    They must be there, distinct, and every group's must follow those of the group before; otherwise nothing changes.
    """
    if any(s is None for s in stamps):
        return
    times = np.asarray(stamps, dtype=np.int64)
    order = np.argsort(times, kind="stable")
    if (np.diff(times[order]) <= 0).any():
        return
    rank = np.empty(len(times), dtype=np.int64)
    rank[order] = np.arange(len(times))
    spans = list(zip(found.groups[:-1], found.groups[1:], strict=True))
    if any(rank[a:b].min() != a or rank[a:b].max() != b - 1 for a, b in spans):
        return
    found.rank = rank
    found.open_groups = frozenset(g for g, (a, _) in enumerate(spans) if rank[a] != a)


def decode(path: Path, found: Index, wanted: np.ndarray, modality: Modality) -> np.ndarray:
    """Frames ``wanted`` (numbers in decode order, any order, repeats allowed) as ``(T, H, W, C)``.

    Raises:
        ModaliftError: naming the file and the first frame that cannot be decoded.
    """
    needed = sorted({int(i) for i in wanted})
    pictures: dict[int, np.ndarray] | None = None
    convert = _Converter(modality, path)
    if not found.odd:
        pictures = _decode_groups(path, found, needed, convert)
        if pictures is None:
            found.odd = True
    if pictures is None:
        pictures = {}
        last = needed[-1]
        missing = set(needed)
        for i, frame in enumerate(_sequential(path)):
            if i in missing:
                pictures[i] = convert(frame)
            if i == last:
                break
    for i in needed:
        if i not in pictures:
            raise ModaliftError(f"{path}: frame {i} cannot be decoded - the file is damaged; copy it again or take the"
                                " clip out of the table")
    first = pictures[needed[0]].shape
    if any(p.shape != first for p in pictures.values()):
        raise ModaliftError(f"{path} changes its picture size between frames - convert it to one size")
    return np.stack([pictures[int(i)] for i in wanted])


def _decode_groups(path: Path, found: Index, needed: list[int], convert: _Converter) -> dict[int, np.ndarray] | None:
    """Frames by number, or None if the file does not keep to its index."""
    av = _av()
    wanted = set(needed)
    take = {bisect_right(found.groups, i) - 1 for i in needed}
    # Leading frames of an open group refer to the group before it.
    runs = deque(_runs(sorted(take | {g - 1 for g in take if g in found.open_groups})))
    pictures: dict[int, np.ndarray] = {}
    container, stream = _open(path)
    with container:
        codec = stream.codec_context
        namer = _Namer(found, take)
        number = -1
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or not runs:
                    break
                number += 1
                first, end = runs[0]
                if number < found.groups[first]:
                    continue
                packet.pts = packet.dts = number
                # A frame that nothing refers to and nobody wants need not be decoded.
                if found.rank is not None and found.checked.issuperset(range(first, end)):
                    codec.skip_frame = "DEFAULT" if int(found.rank[number]) in wanted else "NONREF"
                frames = codec.decode(packet)
                last = number == found.groups[end] - 1
                for frame in [*frames, *(codec.decode(None) if last else ())]:
                    i = namer.number(frame)
                    if i in wanted:
                        pictures[i] = convert(frame)
                if last:
                    namer.close(first, end)
                    codec.flush_buffers()
                    runs.popleft()
        except (_OddFileError, av.error.FFmpegError):
            return None
    return pictures if wanted <= pictures.keys() else None


class _OddFileError(Exception):
    """A file does not keep to its index."""


class _Namer:
    """Gives decoded frames their numbers, and finds out files whose stamps lied."""

    def __init__(self, found: Index, take: set[int]) -> None:
        self.found, self.take = found, take
        self.seen: Counter[int] = Counter()
        self.last = -1

    def number(self, frame: Any) -> int:
        if frame.pts is None or frame.is_corrupt:
            raise _OddFileError
        packet = int(frame.pts)
        g = bisect_right(self.found.groups, packet) - 1
        if self.found.rank is None:
            number = self.found.groups[g] + self.seen[g]
        else:
            number = int(self.found.rank[packet])
            if number <= self.last:  # the stamps told another order than the decoder
                raise _OddFileError
        self.last = number
        self.seen[g] += 1
        return number

    def close(self, first: int, end: int) -> None:
        """The groups from ``first`` to before ``end`` are decoded."""
        for g in range(first, end):
            whole = self.seen[g] == self.found.groups[g + 1] - self.found.groups[g]
            if whole:
                self.found.checked.add(g)
            elif self.found.rank is None and g in self.take:  # which frames are lacking cannot be told
                raise _OddFileError
        self.last = -1


def _runs(groups: list[int]) -> list[tuple[int, int]]:
    """Neighboring groups as (first, last + 1): the decoder is flushed between runs only."""
    runs: list[tuple[int, int]] = []
    for g in groups:
        if runs and runs[-1][1] == g:
            runs[-1] = (runs[-1][0], g + 1)
        else:
            runs.append((g, g + 1))
    return runs


def _sequential(path: Path) -> Iterator[Any]:
    """Frames from the first on, up to the first that is damaged."""
    av = _av()
    container, stream = _open(path)
    with container:
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    return
                yield frame
        except av.error.FFmpegError:
            return


class _Converter:
    """A decoded frame to an array of a modality; one scaler context serves all frames."""

    def __init__(self, modality: Modality, path: Path) -> None:
        from av.video.reformatter import VideoReformatter

        self.scaler = VideoReformatter()
        self.modality, self.path = modality, path
        if modality.dtype == "float32" or modality.channels not in (0, 1, 3):
            raise ModaliftError(f"{modality.name} ({modality.channels} channels of {modality.dtype}) cannot be read"
                                " from a video file - store it as .npz or .npy")

    def __call__(self, frame: Any) -> np.ndarray:
        bits = max(c.bits for c in frame.format.components)
        if self.modality.dtype == "uint8" and bits == 16 and len(frame.format.components) == 1:
            raise ModaliftError(f"{self.path} holds 16-bit readings, as a depth camera writes them, but {self.modality.name}"
                                " is 8-bit - give the recording of the right sensor")
        if self.modality.dtype == "uint16" and bits > 8:
            # Numbers are kept as they were stored: a 12-bit depth video is not stretched to 16 bits.
            picture = self._as(frame, "gray16le")
            picture = picture >> (16 - bits) if bits < 16 else picture
        else:
            picture = self._as(frame, "rgb24" if self.modality.channels == 3 else "gray")
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        if turns:  # a phone held upright: the container asks for a turn
            picture = np.ascontiguousarray(np.rot90(picture, turns))
        if picture.ndim == 2:
            picture = picture[..., None]
        return picture.astype(self.modality.dtype, copy=False)

    def _as(self, frame: Any, pixels: str) -> np.ndarray:
        if frame.format.name != pixels:
            frame = self.scaler.reformat(frame, format=pixels)
        return frame.to_ndarray()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error).split(":")[0].strip()[:100]
