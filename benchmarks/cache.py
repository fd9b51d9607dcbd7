"""Cost and benefit of the frame cache, by codec: building it, reading 16 frames of a clip, and bytes per frame.

    python benchmarks/cache.py [--clips 40] [--rounds 5]

Prints a table and writes ``benchmarks/results/cache.md``. Times are CPU milliseconds per clip, medians of rounds.
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
from modalift.loading import reading
from modalift.loading.cache_writing import build_cache
from modalift.modalities import Row, Table, Track, build_table, modality

RESULT = Path(__file__).parent / "results" / "cache.md"
FRAMES, WANTED = 60, 16


def record(folder: Path, clips: int) -> Table:
    """Clips of 456x256 in H.264 and of 320x240 16-bit depth in FFV1."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(clips):
        color, depth = folder / f"{i}.mp4", folder / f"{i}.mkv"
        ground = cv2.resize(rng.integers(0, 256, (64, 160, 3), dtype=np.uint8), (1140, 256))
        write(color, "libx264", "yuv420p", "rgb24", {"preset": "veryfast"},
              (np.ascontiguousarray(ground[:, 5 * t:5 * t + 456]) for t in range(FRAMES)), (456, 256))
        wall = cv2.resize(rng.integers(1500, 3500, (12, 40)).astype(np.float32), (720, 240))
        write(depth, "ffv1", "gray16le", "gray16le", {"g": "1"},
              ((wall[:, 5 * t:5 * t + 320] + rng.normal(0, 4, (240, 320))).astype(np.uint16) for t in range(FRAMES)),
              (320, 240))
        rows.append(Row(f"c{i}", 0, "s", "train", {"rgb": Track(color), "depth": Track(depth)}))
    return build_table("synthetic", ("any",), {"rgb": modality("rgb"), "depth": modality("depth")}, rows)


def write(path, encoder, pixels, given, options, frames, size) -> None:  # type: ignore[no-untyped-def]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(encoder, rate=30, options=options)
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, given)))
        out.mux(stream.encode(None))


def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    lines = ["| view | from | kB per frame | build, ms per clip | 16 frames, ms |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        table = record(Path(folder), options.clips)
        wanted = [np.sort(np.random.default_rng(i).choice(FRAMES, WANTED, replace=False)).tolist()
                  for i in range(len(table))]
        for view, codecs in (("rgb", ("jpeg", "raw")), ("depth", ("lz4", "raw"))):
            size = sum(r.tracks[view].path.stat().st_size for r in table) / len(table) / FRAMES / 1000

            def from_files(view: str = view) -> None:
                for row, some in zip(table, wanted, strict=True):
                    reading.read(row.tracks[view], table.views[view], some)

            spent = statistics.median(cpu_ms(from_files) for _ in range(options.rounds)) / len(table)
            lines.append(f"| {view} | the recording | {size:.1f} | - | {spent:.1f} |")
            for codec in codecs:
                place = Path(folder) / f"{view}-{codec}"
                built = cpu_ms(lambda c=codec, v=view, p=place: build_cache(table, p, [v], codec=c)) / len(table)
                cache = build_cache(table, Path(folder) / f"{view}-{codec}-again", [view], codec=codec)

                def from_cache(view: str = view, cache=cache) -> None:  # type: ignore[no-untyped-def]
                    for row, some in zip(table, wanted, strict=True):
                        cache.read(row, view, some)

                spent = statistics.median(cpu_ms(from_cache) for _ in range(options.rounds)) / len(table)
                lines.append(f"| {view} | cache, {codec} | {cache.nbytes / len(table) / FRAMES / 1000:.1f} | {built:.0f}"
                             f" | {spent:.2f} |")
            print("\n".join(lines[-1 - len(codecs):]), flush=True)
    text = (f"# The frame cache\n\n{options.clips} clips of {FRAMES} frames: H.264 456x256, and FFV1 depth 320x240. CPU"
            f" milliseconds, median of {options.rounds} rounds; `python benchmarks/cache.py`.\n\n{hardware()}\n\n"
            + "\n".join(lines) + "\n")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
