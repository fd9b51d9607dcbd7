"""How single frames are compressed in a frame cache."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from modalift.errors import ModaliftError, nearest
from modalift.modalities import Modality

CODECS = ("auto", "raw", "jpeg", "lz4")
JPEG_QUALITY = 95


def codec_for(kind: Modality, codec: str = "auto") -> str:
    """The codec of a view's frames: ``raw``, ``jpeg`` or ``lz4``.

    Args:
        kind: the view's modality.
        codec: ``auto`` (JPEG for 8-bit views of one or three channels, lz4 for 16-bit ones if numcodecs is installed, else
            raw), ``lossless`` (lz4 for every video if numcodecs is installed, else raw), or ``raw``, ``jpeg`` or ``lz4`` for
            every view that the codec supports.

    Raises:
        ModaliftError: an unknown codec, or lz4 without numcodecs.
    """
    if codec not in (*CODECS, "lossless"):
        raise ModaliftError(f"unknown cache codec '{codec}' - {nearest(codec, CODECS)}")
    if kind.kind == "signal" or codec == "raw":
        return "raw"
    can_jpeg = kind.dtype == "uint8" and kind.channels in (1, 3)
    if codec in ("auto", "jpeg") and can_jpeg:
        return "jpeg"
    if codec == "lz4" and blosc() is None:
        raise ModaliftError('cache codec "lz4" needs numcodecs - pip install "modalift[cache]", or use codec "raw"')
    wanted = codec in ("lz4", "lossless") or (codec == "auto" and kind.dtype == "uint16")
    return "lz4" if wanted and blosc() is not None else "raw"


def blosc() -> Any:
    """The compressor's module, or None where it is not installed; its own threads stay off (the loader has workers)."""
    try:
        from numcodecs import blosc
    except ImportError:
        return None
    blosc.use_threads = False
    return blosc


def pack(codec: str, frame: np.ndarray) -> bytes:
    """The bytes of one frame ``(H, W, C)``."""
    if codec == "jpeg":
        image = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if frame.shape[2] == 3 else frame
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    frame = np.ascontiguousarray(frame)
    if codec == "lz4":
        compressor = blosc()
        return bytes(compressor.compress(frame, b"lz4", 5, compressor.BITSHUFFLE))
    return frame.tobytes()


def unpack(codec: str, data: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """The frame of bytes that :func:`pack` made.

    Raises:
        ValueError, RuntimeError, cv2.error: damaged bytes.
        ModaliftError: lz4 without numcodecs.
    """
    if codec == "jpeg":
        flags = cv2.IMREAD_COLOR if shape[2] == 3 else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None:
            raise ValueError("not a JPEG")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if shape[2] == 3 else image[..., None]
    if codec == "lz4":
        compressor = blosc()
        if compressor is None:
            raise ModaliftError('this frame cache needs numcodecs - pip install "modalift[cache]"')
        data = compressor.decompress(data)
    return np.frombuffer(data, dtype).reshape(shape)
