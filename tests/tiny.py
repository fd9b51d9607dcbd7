"""A tiny dataset of two sensors that can be learned in seconds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np


def write_tiny(root: Path, clips: int = 24, classes: int = 3, frames: int = 9, size: int = 24) -> Path:
    """A manifest of clips in which a near square moves one way (the class), seen as depth and as two joints."""
    rng = np.random.default_rng(7)
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(clips):
        label, subject = i % classes, f"s{1 + i // classes % 4}"
        path = np.linspace(0.2, 0.7, frames)
        x = {0: path, 1: path[::-1], 2: np.full(frames, 0.45)}[label] + rng.normal(0, 0.02)
        depth = rng.integers(2800, 3000, (frames, size, size)).astype(np.uint16)
        depth[:, :2, :2] = 0  # no reading
        for t in range(frames):
            left = int(x[t] * size)
            depth[t, 6:14, left:left + 6] = 1500 + rng.integers(0, 50)
        pose = np.stack([x, np.full(frames, 0.4), np.full(frames, 1.5), x * 0.1, np.zeros(frames), np.ones(frames)], 1)
        np.savez(root / f"c{i:02d}_depth.npz", frames=depth)
        np.savez(root / f"c{i:02d}_pose.npz", joints=pose.reshape(frames, 2, 3).astype(np.float32))
        rows.append({"clip_id": f"c{i:02d}", "label": label, "label_name": f"move{label}", "subject": subject,
                     "split": {"s4": "test", "s3": "val"}.get(subject, "train"), "depth": f"c{i:02d}_depth.npz",
                     "pose": f"c{i:02d}_pose.npz", "lux": 1.0 + i % 5})
    write_manifest(root, rows)
    return root


def write_manifest(root: Path, rows: list[dict]) -> None:
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
