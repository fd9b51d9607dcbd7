"""Numeric arrays in MATLAB files of level 5 (`save -v6`, `-v7`), so that genuine downloads need no SciPy.

Format: a header of 128 bytes, then elements (type, size, contents, padding to 8 bytes); an array is an element whose parts
are flags, extents, name and numbers, and may be compressed by zlib. Numbers may be stored in a smaller type than the array's.
Source: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from modalift.errors import ModaliftError

#: Number types of stored elements, and types of arrays.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TYPES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_EXTENTS, _ARRAY, _COMPRESSED = 5, 14, 15
_COMPLEX = 0x0800


def arrays(data: bytes, where: str) -> dict[str, np.ndarray]:
    """The real numeric arrays of a MATLAB file by name, with MATLAB's extents; texts, cells and structures are left out.

    Args:
        data: the contents of the file.
        where: its name, for error messages.

    Raises:
        ModaliftError: it is not such a file, or it is cut off.
    """
    if data[:4] == b"\x89HDF" or b"MATLAB 7.3" in data[:20]:
        raise ModaliftError(f"{where}: is a MATLAB file of version 7.3 - save it again with `save -v7`")
    if data[126:128] != b"IM":
        raise ModaliftError(f"{where}: is not a little-endian MATLAB file of level 5 - save it again with `save -v7`")
    found = {}
    try:
        for kind, body in _elements(data[128:]):
            for inner, content in _elements(zlib.decompress(body)) if kind == _COMPRESSED else ((kind, body),):
                if inner == _ARRAY and (named := _numeric(content)) is not None:
                    found[named[0]] = named[1]
    except (ValueError, OverflowError, struct.error, zlib.error, IndexError, MemoryError) as error:
        reason = str(error).split("\n")[0][:100] or type(error).__name__
        raise ModaliftError(f"{where}: is a damaged MATLAB file ({reason}) - copy it again") from None
    return found


def _numeric(content: bytes) -> tuple[str, np.ndarray] | None:
    """Name and numbers of an array; None if its type is not a real number."""
    parts = _elements(content)
    if len(parts) < 4:
        return None
    flags = struct.unpack_from("<I", parts[0][1])[0]
    (kind, extents), (stored, numbers) = parts[1], parts[3]
    if flags & _COMPLEX or flags & 0xFF not in _TYPES or stored not in _STORED or kind != _EXTENTS:
        return None
    shape = np.frombuffer(extents, "<i4").tolist()
    if any(n < 0 for n in shape):
        raise ValueError("an extent is negative")
    values = np.frombuffer(numbers, f"<{_STORED[stored]}").astype(_TYPES[flags & 0xFF], copy=False)
    return parts[2][1].decode("ascii", "replace"), values.reshape(shape, order="F")


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Types and contents of the elements of a MATLAB file, or of one of its arrays."""
    found, at = [], 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # up to four bytes are in the tag itself
            kind, size, body = kind & 0xFFFF, kind >> 16, at + 4
            step = 8
        else:
            body, step = at + 8, 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if body + size > len(data):
            raise ValueError("it is cut off")
        found.append((kind, data[body: body + size]))
        at += step
    return found
