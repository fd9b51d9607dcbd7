"""Time of framing and augmentation: CPU milliseconds per clip, one thread, frames already in memory.

    python benchmarks/transforms.py [--clips N] [--rounds R]

The first case is a training on segmented people (16 frames of 176 x 132 16-bit depth, the person's bounding box resized to
48 x 48, strong augmentation), the second case has four sensors at the input size of pretrained networks. Run it on an idle
machine: times are user + system time of this process, medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from modalift.engine.processor import hardware
from modalift.loading.clips import ClipSet
from modalift.loading.collation import collate
from modalift.loading.framing import Augment, Framing
from modalift.loading.stores import MemoryStore
from modalift.modalities import Modality, Row, Table, Track, build_table, modality


def person(rng: np.random.Generator, frames: int = 70) -> np.ndarray:
    """Depth of a segmented person (a moving ellipse), 176 x 132, 0 elsewhere."""
    clip = np.zeros((frames, 132, 176, 1), np.uint16)
    for t in range(frames):
        middle = (88 + int(6 * np.sin(t / 9)), 70)
        cv2.ellipse(clip[t], middle, (20, 55), 0, 0, 360, 2500, -1)
        clip[t] += ((clip[t] > 0) * rng.integers(0, 60, clip[t].shape)).astype(np.uint16)
    return clip


def table_of(views: dict[str, Modality], clips: int) -> Table:
    rows = [Row(f"c{i}", 0, "s", "train", {v: Track(Path(v), space="one") for v in views}) for i in range(clips)]
    return build_table("benchmark", ("x",), views, rows)


def small_depth(clips: int) -> ClipSet:
    rng = np.random.default_rng(0)
    table = table_of({"depth": modality("depth")}, clips)
    store = MemoryStore({(r.id, "depth"): person(rng) for r in table})
    return ClipSet(table, {"depth": Framing(frames=16, size=48, region="valid")}, augment=Augment.strong(), store=store)


def four_sensors(clips: int) -> ClipSet:
    rng = np.random.default_rng(0)
    views = {v: modality(v) for v in ("rgb", "depth", "nir", "flow")}
    table = table_of(views, clips)
    arrays = {}
    for row in table:
        for view, kind in views.items():
            frames = rng.integers(1, 255, (20, 256, 340, kind.channels))
            arrays[row.id, view] = frames.astype(kind.dtype)
    augment = Augment(crop="random", scale=(0.7, 1.0), rotate=10, brightness=0.3, contrast=0.3, saturation=0.3)
    return ClipSet(table, dict.fromkeys(views, Framing(frames=16, size=224)), augment=augment, store=MemoryStore(arrays))


def milliseconds(data: ClipSet, rounds: int, batch: int) -> float:
    """CPU milliseconds per clip, including collation; the first round is a warm-up (bounding boxes are computed once)."""
    found = []
    for epoch in range(rounds + 1):
        start = time.process_time()
        for first in range(0, len(data), batch):
            collate([data[epoch, i] for i in range(first, min(first + batch, len(data)))])
        found.append(1000 * (time.process_time() - start) / len(data))
    return statistics.median(found[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48, help="clips in the first case; the second has a twelfth of them")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    print(f"{hardware()} OpenCV {cv2.__version__}, NumPy {np.__version__}")
    for name, data, batch in (("depth 16 x 48 px, region valid, strong", small_depth(options.clips), 16),
                              ("rgb + depth + nir + flow, 16 x 224 px", four_sensors(max(1, options.clips // 12)), 2)):
        print(f"{name:40s} {milliseconds(data, options.rounds, batch):7.2f} ms per clip")


if __name__ == "__main__":
    main()
