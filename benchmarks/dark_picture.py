"""Draws the picture of the README from a run of the demo: what each sensor saw in the dark, and what each network predicted.

    pip install matplotlib
    modalift demo --out runs/demo
    python benchmarks/dark_picture.py runs/demo --out docs/assets/dark.png

The clips are the first test clip of every class, in the order of clip ids, and of each the middle frame: chosen without regard
to the predictions. The last column counts all test clips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from modalift import datasets
from modalift.engine.run import Run
from modalift.loading import reading
from modalift.models import Predictions
from modalift.report.clips import to_rgb

#: Views in the order of the rows, and what is written beside them.
SENSORS = {"rgb": "color camera\n(deployed)", "thermal": "thermal camera\n(training only)",
           "rgb_day": "the scene in daylight\n(no network reads it)"}
#: Runs of the demo, and what is written beside their predictions.
NETWORKS = {"labels_compute": "color, labels only,\nequal compute", "self_training": "color, taught by itself",
            "taught_thermal": "color, taught by thermal", "teacher_thermal": "thermal (training only)"}
INK, FAINT, RIGHT, WRONG = "#1f2328", "#656d76", "#00796b", "#b3261e"


def draw(demo: Path, out: Path) -> None:
    """Writes the picture."""
    table = datasets.open("darkroom", demo / "data").split("test")
    found = {name: Predictions.load(Run(demo / name / "seed0").predictions_path("student", "test")) for name in NETWORKS}
    in_order = sorted(table.rows, key=lambda row: row.id)
    rows = [next(row for row in in_order if row.label == k) for k in range(len(table.classes))]
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": INK})
    heights = [1.0, 0.73, 1.0] + [0.3] * len(NETWORKS)  # the thermal images are less high
    wide, cell = len(rows), 0.82
    figure, axes = plt.subplots(len(heights), wide, figsize=(1.75 + cell * wide + 0.65, cell * sum(heights) + 0.52), dpi=150,
                                gridspec_kw={"height_ratios": heights, "wspace": 0.05, "hspace": 0.05, "left": 0.164,
                                             "right": 0.937, "top": 0.9, "bottom": 0.0})
    for column, row in enumerate(rows):
        axes[0, column].set_title(f"{table.classes[row.label or 0]}\n{row.metadata['lux']:.1f} lux", fontsize=7.5, pad=3)
        for axis, view in zip(axes[:, column], SENSORS, strict=False):
            start, end = reading.window(row.tracks[view])
            middle = reading.read(row.tracks[view], table.modality(view), [(end - start) // 2])
            axis.imshow(to_rgb(middle, table.modality(view))[0], interpolation="nearest")
        for axis, predicted in zip(axes[len(SENSORS):, column], found.values(), strict=True):
            at = int(np.flatnonzero(predicted.ids == row.id)[0])
            right = bool(predicted.correct[at])
            axis.text(0.5, 0.5, f"{'✓' if right else '✗'} {table.classes[int(predicted.probabilities[at].argmax())]}",
                      ha="center", va="center", fontsize=6.8, color=RIGHT if right else WRONG,
                      fontweight="bold" if right else "normal")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, text in zip(axes[:, 0], [*SENSORS.values(), *NETWORKS.values()], strict=True):
        taught = text == NETWORKS["taught_thermal"]
        axis.text(-0.08, 0.5, text, ha="right", va="center", transform=axis.transAxes, linespacing=1.25,
                  fontweight="bold" if taught else "normal")
    for axis, (name, predicted) in zip(axes[len(SENSORS):, -1], found.items(), strict=True):
        axis.text(1.12, 0.5, f"{100 * predicted.correct.mean():.1f} %", ha="left", va="center", transform=axis.transAxes,
                  fontweight="bold" if name == "taught_thermal" else "normal")
    last = axes[len(SENSORS) - 1, -1]
    last.text(1.12, 0.02, f"of all {len(table)}\ntest clips", ha="left", va="bottom", transform=last.transAxes, color=FAINT,
              fontsize=6.5)
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
    image.save(out, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, nargs="?", default=Path("runs/demo"), help="the folder of a finished demo")
    parser.add_argument("--out", type=Path, default=Path("docs/assets/dark.png"))
    given = parser.parse_args()
    draw(given.demo, given.out)
