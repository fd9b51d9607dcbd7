"""Small recordings for tests, written with PyAV."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

#: name -> (encoder, container, pixel format, encoder options)
KINDS = {
    "h264_b": ("libx264", "mp4", "yuv420p", {"x264-params": "keyint=12:bframes=3:b-adapt=0:scenecut=0"}),
    "h264_open": ("libx264", "mp4", "yuv420p", {"x264-params": "keyint=12:open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "h264_avi": ("libx264", "avi", "yuv420p", {"x264-params": "keyint=12:open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "hevc_open": ("libx265", "mp4", "yuv420p", {"x265-params": "keyint=12:open-gop=1:bframes=3:log-level=none"}),
    "vp9": ("libvpx-vp9", "webm", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8", "g": "12"}),
    "mpeg4_b": ("mpeg4", "avi", "yuv420p", {"bf": "2", "g": "12"}),
    "mjpeg": ("mjpeg", "avi", "yuvj420p", {}),
    "ffv1_gray": ("ffv1", "mkv", "gray", {}),
    "ffv1_16": ("ffv1", "mkv", "gray16le", {}),
}


def image(i: int, size: int = 64, dtype: type = np.uint8) -> np.ndarray:
    """Frame i of a clip whose frames all differ: a moving bar on a ramp."""
    y, x = np.mgrid[:size, :size]
    if dtype is np.uint16:
        return ((x * 37 + y * 11 + i * 131) % 9000).astype(np.uint16)
    gray = ((x + y) // 4 + 3 * i).astype(np.uint8)
    gray[:, (5 * i) % size:(5 * i) % size + 6] = 230
    return np.stack([gray, gray[::-1], np.full_like(gray, 60)], axis=-1)


def write(path: Path, encoder: str, pixels: str, options: dict[str, str] | None = None, frames: int = 40,
          size: int = 64, stamps: list[int] | None = None, frame_of=image) -> Path:
    """A video; ``stamps`` replaces the presentation stamps of its packets, in the order in which they are stored."""
    try:
        av.codec.Codec(encoder, "w")
    except Exception:
        pytest.skip(f"this build of FFmpeg lacks {encoder}")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(encoder, rate=25, options=options or {})
        stream.width = stream.height = size
        stream.pix_fmt = pixels
        number = 0

        def mux(packets: list[av.Packet]) -> None:
            nonlocal number
            for packet in packets:
                if stamps is not None:
                    packet.dts, packet.pts = number, 100 + stamps[number]  # a muxer wants no stamp before its dts
                number += 1
                out.mux(packet)

        for i in range(frames):
            dtype = np.uint16 if pixels == "gray16le" else np.uint8
            image = frame_of(i, size, dtype)
            form = "gray16le" if pixels == "gray16le" else "gray" if pixels == "gray" else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[..., 0]) if form == "gray" else image, form)
            frame.pts = i
            mux(stream.encode(frame))
        mux(stream.encode())
    return path


def record(folder: Path, kind: str, frames: int = 40, **more) -> Path:
    encoder, container, pixels, options = KINDS[kind]
    return write(folder / f"{kind}.{container}", encoder, pixels, options, frames, **more)


def sequential(path: Path, form: str) -> np.ndarray:
    """Every frame in the order in which the decoder puts it out."""
    with av.open(str(path)) as file:
        frames = np.stack([f.to_ndarray(format=form) for f in file.decode(video=0)])
    return frames if frames.ndim == 4 else frames[..., None]
