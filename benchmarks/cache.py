"""Cost and benefit of keeping decoded frames: the frame cache by codec, and what `data.cache=auto` does with long clips.

    python benchmarks/cache.py [--clips 40] [--rounds 5] [--long 16]

Prints tables and writes ``benchmarks/results/cache.md``. Times of the codecs are CPU milliseconds per clip, medians of rounds;
those of long clips are seconds, each in a process of its own whose peak memory is measured.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
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
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Augment, Framing
from modalift.loading.stores import FileStore, MemoryStore, reductions_of
from modalift.modalities import Row, Table, Track, build_table, modality

RESULT = Path(__file__).parent / "results" / "cache.md"
FRAMES, WANTED = 60, 16
#: Long clips: 10 s of 720p at 30 frames per second.
LONG_FRAMES, HEIGHT, WIDTH = 300, 720, 1280


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


def record_long(folder: Path, clips: int) -> Table:
    """Clips of 10 s in 720p, H.264."""
    rng = np.random.default_rng(0)
    for i in range(clips):
        ground = cv2.resize(rng.integers(0, 256, (90, 200, 3), dtype=np.uint8), (WIDTH + 2 * LONG_FRAMES, HEIGHT))
        write(folder / f"long{i}.mp4", "libx264", "yuv420p", "rgb24", {"preset": "ultrafast"},
              (np.ascontiguousarray(ground[:, 2 * t:2 * t + WIDTH]) for t in range(LONG_FRAMES)), (WIDTH, HEIGHT))
    return long_table(folder)


def long_table(folder: Path) -> Table:
    rows = [Row(p.stem, 0, "s", "train", {"rgb": Track(p)}) for p in sorted(folder.glob("long*.mp4"))]
    return build_table("long", ("any",), {"rgb": modality("rgb")}, rows)


def measure_long(folder: Path, how: str, size: int) -> dict[str, float]:
    """Seconds to prepare, seconds per epoch, peak memory and bytes that are kept, in this process."""
    cv2.setNumThreads(1)
    table, framings = long_table(folder), {"rgb": Framing(frames=16, size=size)}
    reductions, kept = reductions_of(table, framings), 0.0
    began = time.perf_counter()
    if how == "full size in memory":
        whole = {(row.id, "rgb"): FileStore(table.views).read(row, "rgb") for row in table}
        store, kept = MemoryStore(whole), float(sum(a.nbytes for a in whole.values()))
    elif how == "memory":
        store = MemoryStore.of(table, framings)
        kept = store.bytes
    elif how == "disk":
        store = build_cache(table, folder / f"frames{size}", ["rgb"], codec="lossless", reductions=reductions)
        kept = store.nbytes
    else:
        store = None
    prepared = time.perf_counter() - began
    clips = ClipSet(table, framings, augment=Augment(), store=store)
    began = time.perf_counter()
    for position in range(len(clips)):
        clips[0, position]
    return {"prepare": prepared, "epoch": time.perf_counter() - began, "kept": kept,
            "peak": 1024.0 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])}


def long_clips(count: int) -> list[str]:
    """The table of long clips."""
    lines = ["| clips of | frames | GB kept | GB peak | prepare, s | epoch of 16 frames per clip, s |",
             "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        record_long(Path(folder), count)
        for size in (112, 224):
            for how in ("full size in memory", "memory", "disk", "read from the recordings"):
                if how == "full size in memory" and size > 112:
                    continue
                made = subprocess.run([sys.executable, __file__, "--measure", folder, how, str(size)], capture_output=True,
                                      text=True, check=True)
                found = json.loads(made.stdout)
                lines.append(f"| {'any size' if how == 'full size in memory' else f'{size} pixels'} | {how}"
                             f" | {found['kept'] / 1e9:.2f} | {found['peak'] / 1e9:.2f} | {found['prepare']:.1f}"
                             f" | {found['epoch']:.2f} |")
                print(lines[-1], flush=True)
    return lines


def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", type=int, default=16)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, how, size = options.measure
        print(json.dumps(measure_long(Path(folder), how, int(size))))
        return
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
    text = (f"# Decoded frames\n\n{hardware()}\n\n`python benchmarks/cache.py`.\n\n## The frame cache\n\n{options.clips} clips"
            f" of {FRAMES} frames: H.264 456x256, and FFV1 depth 320x240. CPU milliseconds, median of {options.rounds}"
            " rounds.\n\n"
            + "\n".join(lines) + f"\n\n## Long clips: `data.cache=auto`\n\n{options.long} clips of 10 s, 720p at 30 frames per"
            " second, H.264. Clips are the same, bit for bit, from memory, disk and recordings. Peak memory is that of"
            " the process, its libraries included.\n\n" + "\n".join(long_clips(options.long)) + "\n")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
