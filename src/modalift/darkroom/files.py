"""Writes clips reproducibly, videos with PyAV and joints as ``.npz``: equal content gives equal bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.stream import VideoStream

#: Kind of frame -> codec, stored and given pixel format. MJPEG with its finest quantizer keeps the noise of dark images;
#: depth must be lossless.
_CODECS = {
    "color": ("mjpeg", "yuvj444p", "rgb24"),
    "gray": ("ffv1", "gray", "gray"),
    "depth": ("ffv1", "gray16le", "gray16le"),
}


def write_video(path: Path, frames: NDArray[np.uint8] | NDArray[np.uint16], rate: Fraction) -> None:
    """Writes ``(T, H, W, 3)`` or ``(T, H, W)`` 8-bit frames, or ``(T, H, W)`` 16-bit ones, as a Matroska file.

    8-bit color is written as MJPEG (4:4:4, quantizer 2), 8-bit gray and 16 bits as FFV1 (lossless). The container has no
    date and no random id.
    """
    import av

    kind = "depth" if frames.dtype == np.uint16 else "color" if frames.ndim == 4 else "gray"
    codec, pixels, given = _CODECS[kind]
    with av.open(str(path), "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
        options = {"flags": "+bitexact"}
        if codec == "mjpeg":
            options |= {"qmin": "2", "qmax": "2", "huffman": "default"}
        else:
            options |= {"level": "1", "coder": "0", "context": "0"}
        stream = cast("VideoStream", container.add_stream(codec, rate=rate, options=options))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        stream.codec_context.thread_count = 1
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format=given)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_npz(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Writes an ``.npz`` whose entries have a fixed date, so that equal arrays give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), buffer.getvalue())
