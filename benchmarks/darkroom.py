"""Number of clips that one core simulates per second, with all sensors and including writing the files.

    python benchmarks/darkroom.py [--clips 60] [--repeats 5]

Prints a table and writes ``benchmarks/results/darkroom.md``. The rate of a core is clips per CPU second of a single
process that does everything (rendering, noise, encoding); other programs on the machine affect it little. The rate by wall
time is listed too.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np

from modalift.darkroom import VIEWS, simulate
from modalift.engine.processor import hardware

RESULT = Path(__file__).parent / "results" / "darkroom.md"
CASES: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "all sensors, 64 px": (64, 16, tuple(VIEWS)),
    "dark RGB and thermal, 64 px": (64, 16, ("rgb", "thermal")),
    "all sensors, 112 px": (112, 16, tuple(VIEWS)),
    "all sensors, 64 px, 32 frames": (64, 32, tuple(VIEWS)),
}


def measure(clips: int, size: int, frames: int, views: tuple[str, ...], seed: int) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and bytes of one dataset."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        out = simulate(Path(folder) / "clips", clips=clips, size=size, frames=frames, seed=seed, modalities=views)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return cpu, wall, sum(p.stat().st_size for p in out.rglob("*") if p.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    measure(3, 64, 16, tuple(VIEWS), 0)                                  # imports and tables, not counted
    lines = ["| case | clips/s per core: median (lowest to highest) | wall clips/s, median | kB per clip |",
             "|---|---|---|---|"]
    for name, (size, frames, views) in CASES.items():
        runs = [measure(asked.clips, size, frames, views, seed) for seed in range(asked.repeats)]
        cpu, wall = sorted(asked.clips / r[0] for r in runs), [asked.clips / r[1] for r in runs]
        lines.append(f"| {name} | **{statistics.median(cpu):.1f}** ({cpu[0]:.1f} to {cpu[-1]:.1f}) | "
                     f"{statistics.median(wall):.1f} | {runs[0][2] / asked.clips / 1000:.0f} |")
        print(lines[-1], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(f"""# Darkroom: clips per second

Command: `{" ".join(["python benchmarks/darkroom.py", *sys.argv[1:]])}`

{chr(10).join(lines)}

{asked.repeats} repeats of {asked.clips} clips of 16 frames (32 where stated) with one process; rendering, sensor noise and
encoding to files are all counted. The goal was 15 clips per second and core with all sensors at 64 pixels.

{hardware()} One process; other work on the machine at the same time.
Software: Python {platform.python_version()}, NumPy {np.__version__}, OpenCV {cv2.__version__}, PyAV {av.__version__}.
""", encoding="utf-8")


if __name__ == "__main__":
    main()
