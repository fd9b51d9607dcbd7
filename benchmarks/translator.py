"""How well a CPU-sized translator generates thermal images from visible ones, on registered pairs of real recordings.

Run from the project's root, with the recordings beside it; about 20 minutes on one core:

    python benchmarks/translator.py --out runs/translator --sheet /tmp/sheet.png

Every sixth training pair of each source is held out for validation during training; the test split is evaluated once, at the
end, and nothing is selected on it. Baselines: the image's gray value, a curve from RGB to thermal fitted to the training
pixels, and the same generator trained with the L1 distance alone. The contact sheet shows recordings that may not be
redistributed: it is written to the given path, never into the project.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from modalift.engine.build import assemble
from modalift.engine.processor import hardware
from modalift.engine.run import Run
from modalift.engine.train import train
from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.models.image_similarity import edge_correlation, psnr, ssim
from modalift.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"pairs_l1": "L1 alone", "pairs_plain": "with a discriminator", "pairs": "with a discriminator, warm pixels weighted"}


def hold_out(data: Path, to: Path) -> Path:
    """The manifest with every sixth training pair of each source in the split ``val``."""
    rows = list(csv.DictReader((data / "manifest.csv").open()))
    counts: dict[str, int] = {}
    for row in rows:
        if row["split"] == "train":
            counts[row["source"]] = counts.get(row["source"], 0) + 1
            row["split"] = "val" if counts[row["source"]] % 6 == 0 else "train"
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return to


def pairs(clips: ClipSet) -> tuple[np.ndarray, np.ndarray]:
    """Visible ``(N, H, W, 3)`` and thermal ``(N, H, W, 1)`` images as the networks receive them."""
    a, b = [], []
    for batch in loader(clips, batch=16, shuffle=False, seed=0, epoch=0):
        a.append(batch.clips["rgb"][:, :, 0].permute(0, 2, 3, 1).numpy())
        b.append(batch.clips["thermal"][:, :, 0].permute(0, 2, 3, 1).numpy())
    return np.concatenate(a).astype(np.float32), np.concatenate(b).astype(np.float32)


def terms(rgb: np.ndarray) -> np.ndarray:
    """All products of up to three of a pixel's RGB values: the 20 terms of a cubic polynomial."""
    r, g, b = (rgb.reshape(-1, 3) / 127.5 - 1).T
    return np.stack([r**i * g**j * b**k for i in range(4) for j in range(4 - i) for k in range(4 - i - j)], 1)


def fit_curve(rgb: np.ndarray, thermal: np.ndarray) -> np.ndarray:
    """Least squares over every pixel of the training pairs."""
    x = terms(rgb)
    return np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ thermal.reshape(-1))


@torch.no_grad()
def generated_by(run: Run, rgb: np.ndarray) -> np.ndarray:
    net = run.model("generator").network
    clips = torch.from_numpy(rgb).permute(0, 3, 1, 2)[:, :, None]
    return np.concatenate([net(c)[:, :, 0].permute(0, 2, 3, 1).numpy() for c in clips.split(8)])


def measure(made: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    each = [(psnr(x[None], y[None]), ssim(x[None], y[None]), edge_correlation(x[None], y[None]))
            for x, y in zip(made, real, strict=True)]
    return dict(zip(("psnr", "ssim", "edges"), np.array(each).T, strict=True))


def contact_sheet(to: Path, columns: dict[str, np.ndarray], which: list[int], cell: int = 168) -> None:
    """One row per pair: the visible image, the thermal image, and the output of each method."""
    lines = []
    for k in which:
        cells = [cv2.resize(np.repeat(p[k], 3 // p[k].shape[2], 2).clip(0, 255).astype(np.uint8)[..., ::-1], (cell, cell),
                            interpolation=cv2.INTER_NEAREST) for p in columns.values()]
        lines.append(np.hstack(cells))
    head = np.full((24, lines[0].shape[1], 3), 24, np.uint8)
    for i, name in enumerate(columns):
        cv2.putText(head, name, (i * cell + 4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (236, 236, 236), 1, cv2.LINE_AA)
    cv2.imwrite(str(to), np.vstack([head, *lines]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/translator"))
    parser.add_argument("--sheet", type=Path, help="where to write a contact sheet of test pairs")
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = ROOT.parent / "shared" / "data" / "rgb_ir_pairs"
    manifest = hold_out(data, (args.out / "pairs.csv").resolve())
    runs, spent = {}, {}
    for name in NAMES:
        recipe = "pairs" if name == "pairs_plain" else name
        changes = [f"data.root={data}", f"data.options.manifest={manifest}", f"run.dir={args.out / name}",
                   f"optim.epochs={args.epochs}", f"optim.milestones=[{args.epochs // 2}]", "protocol.eval_every=5"]
        changes += ["scheme.person_weight=0"] if name == "pairs_plain" else []
        began = time.process_time()
        runs[name] = train(load_recipe(f"translator/{recipe}", changes))
        spent[name] = time.process_time() - began
    experiment = assemble(load_recipe(args.out / "pairs"), train=False)
    table = experiment.table
    seen = {s: pairs(experiment.clips(table.split(s), {"rgb", "thermal"}, augment=False)) for s in ("train", "val", "test")}
    curve = fit_curve(*seen["train"])
    for split in ("val", "test"):
        rgb, real = seen[split]
        luma = rgb @ np.array([[0.299], [0.587], [0.114]], np.float32)
        made = {"gray value": luma, "fitted curve": (terms(rgb) @ curve).reshape(real.shape).clip(0, 255)}
        made |= {NAMES[k]: generated_by(run, rgb) for k, run in runs.items()}
        rows = table.split(split).rows
        night = np.array([r.metadata["source"] == "llvip" for r in rows])
        print(f"\n{split}: {len(rows)} pairs, {int(night.sum())} of them with people at night\n")
        print("| | PSNR, dB | SSIM | edges | at night: PSNR | SSIM | edges |\n|---|---:|---:|---:|---:|---:|---:|")
        for name, image in made.items():
            found = measure(image, real)
            cells = [f"{found[k][w].mean():.{1 if k == 'psnr' else 3}f}" for w in (slice(None), night)
                     for k in ("psnr", "ssim", "edges")]
            print(f"| {name} | {' | '.join(cells)} |")
        if split == "test" and args.sheet:
            order = [*np.flatnonzero(night)[::3][:4], *np.flatnonzero(~night)[::8][:6]]
            contact_sheet(args.sheet, {"visible": rgb, "thermal": real, **made}, [int(i) for i in order])
    print(f"\n{hardware(environment_paths=[run.environment_path for run in runs.values()])}")
    print("CPU seconds:", {NAMES[k]: round(v) for k, v in spent.items()})


if __name__ == "__main__":
    main()
