"""Whether a video file is complete: the sizes stated by the container against the size on disk."""

from __future__ import annotations

from pathlib import Path


def missing_bytes(path: Path) -> int:
    """Number of bytes that a file lacks according to its container; 0 for a complete file and for formats without a size.

    Supports RIFF (``.avi``), ISO media (``.mp4``, ``.mov``) and EBML (``.mkv``, ``.webm``). Decoders read a truncated
    file to its end without an error, so it would otherwise look like a shorter recording. Only the sizes of the
    outermost boxes are read (a few bytes per file).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            stated = int.from_bytes(head[4:8], "little")
            return 0 if stated in (0, 0xFFFFFFFF) else max(0, stated + 8 - size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _missing_of_matroska(head, size)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            at = 0
            while at + 8 <= size:
                file.seek(at)
                box = file.read(16)
                length = int.from_bytes(box[:4], "big")
                if length == 1:
                    length = int.from_bytes(box[8:16], "big")
                if length == 0:  # up to the end of the file
                    return 0
                if length < 8:  # not a box: leave it to the decoder
                    return 0
                at += length
            return max(0, at - size)
    return 0


def _missing_of_matroska(head: bytes, size: int) -> int:
    """Missing bytes of a Matroska file: its EBML header is followed by one Segment, whose size a live recording leaves unknown
    (all ones).
    """
    length, used = _ebml_size(head, 4)
    at = 4 + used + (length or 0)
    if length is None or head[at:at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, used = _ebml_size(head, at + 4)
    return 0 if length is None else max(0, at + 4 + used + length - size)


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """Reads a variable-length integer: (value, bytes used). The value is None if all its bits are ones or it is cut off."""
    if at >= len(data) or data[at] == 0:
        return None, 1
    used = 9 - data[at].bit_length()
    value = int.from_bytes(data[at:at + used], "big") & ((1 << 7 * used) - 1)
    return (None if value == (1 << 7 * used) - 1 else value), used
