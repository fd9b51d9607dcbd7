"""Cost of reading 16 frames of a video: indexed reading against decoding from the start and against OpenCV.

    python benchmarks/decoding.py [--rounds 5] [--large]

Prints a table and writes ``benchmarks/results/decoding.md``. Times are CPU milliseconds of one thread, medians of
rounds in which the readers alternate; only ratios carry over to other machines. *First*: a file that was
never opened before (it is demuxed twice); *later*: a file whose index is in memory. Wrong frames of a reader are counted by
comparison with decoding from the start.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from modalift.engine.processor import hardware
from modalift.loading import reading, video
from modalift.modalities import Track, modality

RESULT = Path(__file__).parent / "results" / "decoding.md"
FRAMES, WANTED = 150, 16
KINDS = {
    "H.264, B-frames, mp4": ("libx264", "mp4", "yuv420p", {"preset": "veryfast", "crf": "23", "g": "50"}),
    "MPEG-4, B-frames, avi": ("mpeg4", "avi", "yuv420p", {"bf": "2", "g": "12", "qmin": "4", "qmax": "8"}),
    "MJPEG, avi": ("mjpeg", "avi", "yuvj420p", {"qmin": "4", "qmax": "6"}),
    "FFV1, 16-bit depth, mkv": ("ffv1", "mkv", "gray16le", {"g": "1"}),
}


def record(path: Path, kind: str, width: int, height: int) -> None:
    """A moving texture with noise."""
    encoder, _, pixels, options = KINDS[kind]
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8), (width * 2, height))
    with av.open(str(path), "w") as out:
        stream = out.add_stream(encoder, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for i in range(FRAMES):
            image = np.ascontiguousarray(ground[:, 3 * i:3 * i + width])
            image[:64, :64] += rng.integers(0, 9, (64, 64, 3), dtype=np.uint8)
            if pixels == "gray16le":
                frame = av.VideoFrame.from_ndarray(image[..., 0].astype(np.uint16) * 12, "gray16le")
            else:
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def from_the_start(path: Path, wanted: np.ndarray, deep: bool) -> np.ndarray:
    kept, last = {}, int(wanted[-1])
    with av.open(str(path)) as file:
        file.streams.video[0].thread_type = "NONE"
        for i, frame in enumerate(file.decode(video=0)):
            if i in wanted:
                kept[i] = frame.to_ndarray(format="gray16le" if deep else "rgb24")
            if i == last:
                break
    return np.stack([kept[int(i)] for i in wanted])


def by_opencv(path: Path, wanted: np.ndarray, deep: bool) -> np.ndarray:
    file = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames = []
    for i in wanted:
        file.set(cv2.CAP_PROP_POS_FRAMES, int(i))
        good, frame = file.read()
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None)
    file.release()
    return np.stack([f if f is not None else np.zeros_like(frames[0]) for f in frames])


def indexed(path: Path, wanted: np.ndarray, deep: bool) -> np.ndarray:
    return reading.read(Track(path), modality("depth" if deep else "rgb"), wanted)


def indexed_first(path: Path, wanted: np.ndarray, deep: bool) -> np.ndarray:
    return video.decode(path, video.index(path), wanted, modality("depth" if deep else "rgb"))


READERS: dict[str, Callable[[Path, np.ndarray, bool], np.ndarray]] = {
    "from the start": from_the_start, "indexed, first": indexed_first, "indexed, later": indexed, "OpenCV": by_opencv}


def measure(path: Path, deep: bool, rounds: int) -> dict[str, tuple[float, int]]:
    """Reader -> (median CPU milliseconds, wrong frames)."""
    rng = np.random.default_rng(1)
    times: dict[str, list[float]] = {name: [] for name in READERS}
    wrong = dict.fromkeys(READERS, 0)
    for _ in range(rounds):
        wanted = np.sort(rng.choice(FRAMES, WANTED, replace=False))
        truth = from_the_start(path, wanted, deep).astype(int).reshape(WANTED, -1)
        for name, reader in READERS.items():
            began = time.process_time()
            frames = reader(path, wanted, deep)
            times[name].append(1000 * (time.process_time() - began))
            got = frames.astype(int).reshape(WANTED, -1)
            # Scalers differ by a little; another frame differs by much.
            wrong[name] += WANTED if got.shape != truth.shape else int((np.abs(got - truth).mean(axis=1) > 4).sum())
    return {name: (statistics.median(times[name]), wrong[name]) for name in READERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="1080p too (encoding takes a minute)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    sizes = [(320, 240), (640, 480)] + ([(1920, 1080)] if options.large else [])
    lines = ["| file | " + " | ".join(READERS) + " |", "|---" * (len(READERS) + 1) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        for width, height in sizes:
            for kind, (_, container, pixels, _) in KINDS.items():
                path = Path(folder) / f"{len(lines)}.{container}"
                record(path, kind, width, height)
                found = measure(path, pixels == "gray16le", options.rounds)
                cells = [f"{ms:.0f}" + (f" ({bad} of {options.rounds * WANTED} wrong)" if bad else "")
                         for ms, bad in found.values()]
                lines.append(f"| {kind}, {width}x{height} | " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
    text = (f"# Reading {WANTED} random frames of {FRAMES}\n\nCPU milliseconds, one thread, median of {options.rounds}"
            f" rounds; `python benchmarks/decoding.py`. OpenCV has no 16-bit depth: its frames are 8-bit there.\n\n"
            f"{hardware()}\n\n"
            + "\n".join(lines) + "\n")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
