"""Video files through PyAV: an index by demuxing, and decoding of only the groups of pictures (GOPs) that are needed.

A *group* is a key packet and the packets up to the next one. Before a packet is decoded its index is written into its time
stamp, so that each frame tells which packet it came from, even if the file's own time stamps are wrong. Files in which
packets and frames do not correspond (edit lists, missing key frames, codecs with hidden frames) are decoded from the
beginning instead.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modalift.errors import ModaliftError
from modalift.loading.containers import missing_bytes
from modalift.modalities.modality import Modality

T = TypeVar("T")

# Codecs in which every packet gives exactly one frame.
_ONE_FRAME_PER_PACKET = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "vp8", "vp9", "av1", "mjpeg",
                                 "ffv1", "png", "rawvideo", "huffyuv", "ffvhuff", "prores", "dnxhd", "msmpeg4v3",
                                 "mpeg2", "jpeg2000", "utvideo", "libdav1d", "libvpx-vp9"})
# Containers that store a presentation time stamp per packet; for AVI it is guessed, often wrongly.
_STAMPED = ("mp4", "matroska")


@dataclass
class Index:
    """The index of a video file, made by demuxing it.

    Attributes:
        frames: number of frames.
        groups: index of the first packet of each group, then the number of packets.
        open_groups: groups with frames that are displayed before their key frame and refer to the previous group.
        output_position: each packet's position in the decoder's output, or None if only decoding can tell.
        irregular: whether the file must be decoded from its beginning.
        missing: number of bytes that the file lacks according to its container.
        verified: groups whose ``output_position`` was confirmed by decoding them; frames in them may be skipped.
    """

    frames: int
    groups: list[int]
    open_groups: frozenset[int] = frozenset()
    output_position: np.ndarray | None = None
    irregular: bool = False
    missing: int = 0
    verified: set[int] = field(default_factory=set)


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
        what = _truncation(path) or f"is not a readable video ({_reason(error)})"
        raise ModaliftError(f"{path} {what} - copy it again, or remove the clip from the table") from None
    if not container.streams.video:
        container.close()
        raise ModaliftError(f"{path} holds no video stream - give a video file")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise ModaliftError(f"{path} {_truncation(path) or 'holds a video that this FFmpeg cannot decode'} - copy it again or"
                            " convert it")
    stream.thread_type = "NONE"  # the loader's workers are the parallelism
    stream.thread_count = 1
    return container, stream


def _truncation(path: Path) -> str:
    missing = missing_bytes(path)
    return f"is truncated ({missing} bytes are missing)" if missing else ""


def index(path: Path) -> Index:
    """Demuxes a file and finds its groups of pictures (takes milliseconds; only irregular files are decoded)."""
    av = _av()
    container, stream = _open(path)
    keys: list[bool] = []
    timestamps: list[int | None] = []
    irregular = False
    with container:
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                keys.append(bool(packet.is_keyframe))
                timestamps.append(packet.pts)
                irregular = irregular or bool(packet.is_discard)
        except av.error.FFmpegError:
            irregular = True  # the part before the damage may still be usable; missing_bytes detects truncated files
        codec, delay = stream.codec_context, stream.codec_context.has_b_frames
        stamped = any(name in container.format.name for name in _STAMPED)
        irregular = irregular or not keys or not keys[0] or codec.name not in _ONE_FRAME_PER_PACKET
    found = Index(len(keys), [*(i for i, key in enumerate(keys) if key), len(keys)], irregular=irregular,
                  missing=missing_bytes(path))
    if irregular:
        found.frames = sum(1 for _ in _sequential(path))
        if found.frames == 0:
            raise ModaliftError(f"{path} holds no decodable frame - record or copy it again")
        return found
    intra = len(found.groups) == len(keys) + 1
    if intra or not delay:
        found.output_position = np.arange(len(keys))
        found.verified.update(range(len(found.groups) - 1))
        return found
    found.open_groups = frozenset(range(1, len(found.groups) - 1))  # the safe assumption, unless the time stamps show otherwise
    if stamped:
        _use_timestamps(found, timestamps)
    return found


def is_gray(path: Path) -> bool:
    """Whether the pixels of a video have one component."""
    container, stream = _open(path)
    with container:
        return len(stream.codec_context.format.components) == 1


def _use_timestamps(found: Index, timestamps: list[int | None]) -> None:
    """Takes the output order and the open groups from the presentation time stamps, if they are plausible.

    They must exist and be distinct, and those of a group must follow those of the previous group; otherwise nothing changes.
    """
    if any(s is None for s in timestamps):
        return
    times = np.asarray(timestamps, dtype=np.int64)
    order = np.argsort(times, kind="stable")
    if (np.diff(times[order]) <= 0).any():
        return
    output_position = np.empty(len(times), dtype=np.int64)
    output_position[order] = np.arange(len(times))
    spans = list(zip(found.groups[:-1], found.groups[1:], strict=True))
    if any(output_position[a:b].min() != a or output_position[a:b].max() != b - 1 for a, b in spans):
        return
    found.output_position = output_position
    found.open_groups = frozenset(g for g, (a, _) in enumerate(spans) if output_position[a] != a)


def decode(path: Path, found: Index, wanted: np.ndarray, modality: Modality) -> np.ndarray:
    """Decodes the frames ``wanted``: ``(T, H, W, C)``; see :func:`collect`."""
    return np.stack(collect(path, found, wanted, modality, lambda frame: frame))


def collect(path: Path, found: Index, wanted: np.ndarray, modality: Modality, each: Callable[[np.ndarray], T]) -> list[T]:
    """What a function gives for the frames ``wanted`` (decoder output indices, in any order, repeats allowed), in one pass.

    Args:
        path: the file.
        found: its index.
        wanted: the frames.
        modality: how pixels are read.
        each: what is kept of a frame ``(H, W, C)``; called as soon as it is decoded, so that a long recording need not fit
            into memory.

    Raises:
        ModaliftError: a frame cannot be decoded; the message names the file and the frame.
    """
    needed = sorted({int(i) for i in wanted})
    images: dict[int, T] | None = None
    convert = _Converter(modality, path)
    sizes: set[tuple[int, ...]] = set()

    def keep(frame: Any) -> T:
        image = convert(frame)
        sizes.add(image.shape)
        return each(image)

    if not found.irregular:
        try:
            images = _decode_groups(path, found, needed, keep)
        except _IrregularFileError:
            found.irregular = True
    if images is None:
        images = {}
        sizes.clear()
        last = needed[-1]
        missing = set(needed)
        for i, frame in enumerate(_sequential(path)):
            if i in missing:
                images[i] = keep(frame)
            if i == last:
                break
    for i in needed:
        if i not in images:
            raise ModaliftError(f"{path}: frame {i} cannot be decoded - the file is damaged; copy it again, or remove the"
                                " clip from the table")
    if len(sizes) > 1:
        raise ModaliftError(f"{path} changes its frame size - convert it to one size")
    return [images[int(i)] for i in wanted]


def _decode_groups(path: Path, found: Index, needed: list[int], keep: Callable[[Any], T]) -> dict[int, T] | None:
    """Decodes frames by index; None if some of them cannot be decoded so.

    Damage is not remembered: what can be read of a file must not depend on what was read before.

    Raises:
        _IrregularFileError: the file contradicts its index.
    """
    av = _av()
    wanted = set(needed)
    wanted_groups = {bisect_right(found.groups, i) - 1 for i in needed}
    # Leading frames of an open group refer to the previous group.
    runs = deque(_runs(sorted(wanted_groups | {g - 1 for g in wanted_groups if g in found.open_groups})))
    images: dict[int, T] = {}
    container, stream = _open(path)
    with container:
        codec = stream.codec_context
        numberer = _FrameNumberer(found, wanted_groups)
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
                # A frame that is not requested and that no other frame refers to need not be decoded.
                if found.output_position is not None and found.verified.issuperset(range(first, end)):
                    codec.skip_frame = "DEFAULT" if int(found.output_position[number]) in wanted else "NONREF"
                frames = codec.decode(packet)
                last = number == found.groups[end] - 1
                for frame in [*frames, *(codec.decode(None) if last else ())]:
                    i = numberer.number(frame)
                    if i in wanted:
                        images[i] = keep(frame)
                if last:
                    numberer.close(first, end)
                    codec.flush_buffers()
                    runs.popleft()
        except (_DamageError, av.error.FFmpegError):
            return None
    return images if wanted <= images.keys() else None


class _IrregularFileError(Exception):
    """A file contradicts its index."""


class _DamageError(Exception):
    """Frames of a group are damaged or missing."""


class _FrameNumberer:
    """Assigns indices to decoded frames, and detects files whose time stamps are wrong."""

    def __init__(self, found: Index, wanted_groups: set[int]) -> None:
        self.found, self.wanted_groups = found, wanted_groups
        self.seen: Counter[int] = Counter()
        self.last = -1

    def number(self, frame: Any) -> int:
        if frame.is_corrupt:
            raise _DamageError
        if frame.pts is None:
            raise _IrregularFileError
        packet = int(frame.pts)
        g = bisect_right(self.found.groups, packet) - 1
        if self.found.output_position is None:
            number = self.found.groups[g] + self.seen[g]
        else:
            number = int(self.found.output_position[packet])
            if number <= self.last:  # the order of the time stamps is not that of the decoder
                raise _IrregularFileError
        self.last = number
        self.seen[g] += 1
        return number

    def close(self, first: int, end: int) -> None:
        """Called when the groups from ``first`` up to (not including) ``end`` have been decoded."""
        for g in range(first, end):
            whole = self.seen[g] == self.found.groups[g + 1] - self.found.groups[g]
            if whole:
                self.found.verified.add(g)
            elif self.found.output_position is None and g in self.wanted_groups:  # it is unknown which frames are missing
                raise _DamageError
        self.last = -1


def _runs(groups: list[int]) -> list[tuple[int, int]]:
    """Consecutive groups as (first, last + 1); the decoder is flushed only between such runs."""
    runs: list[tuple[int, int]] = []
    for g in groups:
        if runs and runs[-1][1] == g:
            runs[-1] = (runs[-1][0], g + 1)
        else:
            runs.append((g, g + 1))
    return runs


def _sequential(path: Path) -> Iterator[Any]:
    """Decodes frames from the beginning, up to the first damaged one."""
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
    """Converts decoded frames to arrays of a modality; one scaler context is shared by all frames."""

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
            raise ModaliftError(f"{self.path} holds 16-bit readings, as depth cameras write them, but {self.modality.name}"
                                " is 8-bit - give a recording of that sensor")
        if self.modality.dtype == "uint16" and bits > 8:
            # Values are kept as stored: a 12-bit depth video is not rescaled to 16 bits.
            image = self._as(frame, "gray16le")
            image = image >> (16 - bits) if bits < 16 else image
        else:
            image = self._as(frame, "rgb24" if self.modality.channels == 3 else "gray")
        quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
        if quarter_turns:  # the container asks for a rotation (such as a phone held upright)
            image = np.ascontiguousarray(np.rot90(image, quarter_turns))
        if image.ndim == 2:
            image = image[..., None]
        return image.astype(self.modality.dtype, copy=False)

    def _as(self, frame: Any, pixels: str) -> np.ndarray:
        if frame.format.name != pixels:
            frame = self.scaler.reformat(frame, format=pixels)
        return frame.to_ndarray()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error).split(":")[0].strip()[:100]
