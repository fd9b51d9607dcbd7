"""MTCD's Table 4 on real recordings: UTD-MHAD, depth is deployed, rendered joints teach, an assistant reads the translation.

    python benchmarks/mtcd_translated.py [--data FOLDER] [--runs runs/mtcd_translated] [--sheet sheet.png] [--epochs 40]

A translator is trained on the training subjects to generate images of the joints from depth; its outputs for all clips are
the assistant's view. One seed. Finished runs are reused, so the command can be stopped and repeated; results so far are in
benchmarks/results/mtcd_translated.md. The contact sheet shows recordings that may not be redistributed: it is written to the
given path, never into the project.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from modalift import datasets
from modalift.derive import derive
from modalift.engine.evaluate import evaluate
from modalift.engine.processor import hardware
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.train import train
from modalift.loading.cache import build_cache, open_cache
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Framing
from modalift.modalities import Table
from modalift.models.image_similarity import edge_correlation, psnr, ssim
from modalift.recipe import load_recipe

HERE = Path(__file__).resolve().parent
ROWS = {"mtcd_teacher": "*the teacher: joint images (training only)*", "mtcd_row1": "1: labels only",
        "mtcd_row2": "2: with the teacher", "mtcd_row4": "4: with the mean of teacher and assistant (MTCD)",
        "mtcd_row3": "3: with the assistant and the teacher"}


def translated(data: Path, folder: Path) -> tuple[Path, dict[str, float]]:
    """Writes the recordings with the joint images and their translation; also returns their similarity on the test split."""
    joints, out = folder / "joints", folder / "translated"
    if not joints.is_dir():
        derive("pose_map", datasets.open("csv", data), joints)
    run = train(load_recipe("translator/utd_depth_pose_map",
                            [f"data.root={joints}", f"run.dir={folder / 'translator'}"]))
    found = run.results().get("generator", {}).get("test") or evaluate(run)["generator"]
    learned_on = {clip for clips in run.compute()["trained_on"].values() for clip in clips}
    table = datasets.open("csv", joints)
    assert learned_on == {r.id for r in table.split("train")}, "the translator was trained on clips outside the training split"
    if not out.is_dir():
        ship(run, "", folder / "joints.modalift")
        derive("pseudo_ir", table, out, view="depth", bundle=str(folder / "joints.modalift"), name="pseudo_map")
    if not (folder / "cache").is_dir():
        build_cache(datasets.open("csv", out), folder / "cache", ["depth", "pose_map", "pseudo_map"])
    return out, found


def baselines(table: Table, cache: Path) -> dict[str, tuple[float, float, float]]:
    """PSNR, SSIM and edge agreement of baselines without a network, fitted on training clips, on the test clips."""
    framings = {"pose_map": Framing(frames=2, size=48), "depth": Framing(frames=2, size=48, region="valid", fit="stretch")}
    seen = {}
    for split in ("train", "test"):
        clips = ClipSet(table.split(split), framings, store=open_cache(cache))
        seen[split] = [[clips[0, k]["clips"][v].transpose(1, 2, 3, 0).astype(np.float32) for v in framings]
                       for k in range(len(clips))]
    mean = np.mean([joints for joints, _ in seen["train"]], axis=(0, 1))
    level = float(np.mean([joints[depth > 0].mean() for joints, depth in seen["train"]]))
    made = {"the mean training image": lambda depth: np.broadcast_to(mean, depth.shape),
            "the silhouette at its mean brightness": lambda depth: level * (depth > 0)}
    return {name: tuple(float(np.mean([measure(draw(depth), joints) for joints, depth in seen["test"]]))  # type: ignore[misc]
                        for measure in (psnr, ssim, edge_correlation)) for name, draw in made.items()}


def contact_sheet(table: Table, to: Path, clips: int = 6, frames: int = 5, cell: int = 84) -> None:
    """Training clips above, test clips below: depth, joint image and translation, frame by frame."""
    lines = []
    for split in ("train", "test"):
        rows = table.split(split)
        ids = {rows.rows[k].id for k in np.random.default_rng(0).choice(len(rows), clips, replace=False)}
        seen = ClipSet(rows.where(lambda r, ids=ids: r.id in ids), {
            "depth": Framing(frames=frames, size=48, region="valid", fit="stretch"),
            "pose_map": Framing(frames=frames, size=48), "pseudo_map": Framing(frames=frames, size=48)})
        for k in range(len(seen)):
            clip = seen[0, k]["clips"]
            depth = np.where(clip["depth"] > 0, 255 - (clip["depth"] - 1500) / 8, 0).clip(0, 255)
            lines.append(np.hstack([cv2.resize(p[0, t].astype(np.uint8), (cell, cell), interpolation=cv2.INTER_NEAREST)
                                    for t in range(frames) for p in (depth, clip["pose_map"], clip["pseudo_map"])]))
    cv2.imwrite(str(to), np.vstack(lines))


def write(runs: dict[str, Run], folder: Path, found: dict[str, float], plain: dict[str, tuple[float, float, float]],
          epochs: int) -> None:
    seconds = Run(folder / "translator").compute()["seconds"]
    lines = ["# MTCD with a translated view, on real recordings", "",
             "Made by `python benchmarks/mtcd_translated.py`: UTD-MHAD, official cross-subject split. Depth is deployed, the"
             " joint images replace infrared, and the assistant reads a translator's output for depth. All networks are"
             f" `small` with the converter, {epochs} epochs, **one seed, so no claim**; with 430 test clips, differences"
             " of less than about four points are not significant. MTCD's own figures are of infrared and dark color; its"
             " data are not public.", "",
             f"The translator (`translator/utd_depth_pose_map`, 20 epochs, {seconds:.0f} s) was trained on the"
             f" training subjects only. Flicker ({found['n']} test clips), relative to the joint images:"
             f" {found['flicker']:.2f}.", "",
             "| joint images of the test clips, generated from depth | PSNR, dB | SSIM | edges |", "|---|---|---|---|",
             *(f"| {name} | {a:.1f} | {b:.3f} | {c:.3f} |" for name, (a, b, c) in plain.items()),
             f"| the translator | {found['psnr']:.1f} | {found['ssim']:.3f} | {found['edges']:.3f} |", "",
             f"{hardware(environment_paths=sorted(folder.rglob('environment.json')))} Cost: multiply-accumulates of"
             " the training, including the teacher's but not the translator's; seconds on a machine with other load.", "",
             "| row of Table 4 | top-1 % | tera MACs | s |", "|---|---|---|---|"]
    for name in sorted(ROWS, key=lambda n: (n != "mtcd_teacher", n)):
        cells = ["-"] * 3
        if name in runs:
            spent, test = runs[name].compute(), runs[name].results()["student"]["test"]
            cells = [f"{100 * test['top1']:.1f}", f"{spent['training_macs'] / 1e12:.1f}", f"{spent['seconds']:.0f}"]
        lines.append(f"| {ROWS[name]} | {' | '.join(cells)} |")
    into = HERE / "results" / "mtcd_translated.md"
    kept = into.read_text().partition("\n## ")[2] if into.is_file() else ""  # text that was added by hand below the table
    into.write_text("\n".join(lines) + "\n" + (f"\n## {kept}" if kept else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=HERE.parent / "../shared/data/utd_mhad_depth")
    parser.add_argument("--runs", type=Path, default=Path("runs/mtcd_translated"))
    parser.add_argument("--sheet", type=Path, help="where to write a contact sheet of the translation")
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = given.runs.resolve()
    data, found = translated(given.data, folder)
    if given.sheet:
        contact_sheet(datasets.open("csv", data), given.sheet)
    plain = baselines(datasets.open("csv", data), folder / "cache")
    runs: dict[str, Run] = {}
    for name in ROWS:
        changes = [f"data.root={data}", f"data.cache={folder / 'cache'}", f"optim.epochs={given.epochs}",
                   f"run.dir={folder / name}"]
        if name not in ("mtcd_teacher", "mtcd_row1"):
            changes.append(f"networks.teacher.init={folder / 'mtcd_teacher'}")
        run = train(load_recipe(f"utd_mhad/{name}", changes))
        if not run.results().get("student", {}).get("test"):
            evaluate(run)
        runs[name] = run
        write(runs, folder, found, plain, given.epochs)


if __name__ == "__main__":
    main()
