"""MATLAB files of level 5 as `save -v7` writes them: one compressed array."""

from __future__ import annotations

import struct
import zlib

import numpy as np

#: NumPy type -> class of the array, type of its stored numbers.
_KINDS = {"f8": (6, 9), "f4": (7, 7), "i2": (10, 3), "u2": (11, 4), "u1": (9, 2)}


def matlab(name: str, array: np.ndarray, *, compress: bool = True) -> bytes:
    """The contents of a file with one array; 2 dimensions at least."""
    def element(kind: int, body: bytes) -> bytes:
        if len(body) <= 4:
            return struct.pack("<HH", kind, len(body)) + body.ljust(4, b"\0")
        return struct.pack("<II", kind, len(body)) + body + b"\0" * (-len(body) % 8)

    cls, stored = _KINDS[array.dtype.str[1:]]
    whole = element(14, element(6, struct.pack("<II", cls, 0)) + element(5, struct.pack(f"<{array.ndim}i", *array.shape))
                    + element(1, name.encode()) + element(stored, array.tobytes(order="F")))
    packed = zlib.compress(whole)
    return (b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
            + (struct.pack("<II", 15, len(packed)) + packed if compress else whole))
