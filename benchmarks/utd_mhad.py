"""Does a pose network that is used in training only improve a depth network? Real recordings (UTD-MHAD).

    python benchmarks/utd_mhad.py [--data FOLDER] [--runs runs/utd_mhad] [--jobs 2] [--only PART ...]

Trains every cell of the study (each one a `modalift train` command of its own; finished cells are reused), evaluates
it on the test split once, and writes benchmarks/results/utd_mhad.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from modalift import datasets
from modalift.deploy.export import export_onnx
from modalift.engine.processor import hardware
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.statistics import paired, paired_seeds
from modalift.engine.study import Cell, run_cells
from modalift.errors import ModaliftError
from modalift.loading.cache import build_cache
from modalift.models import Predictions, load
from modalift.report.console import ConsoleMonitor
from modalift.report.numbers import percent, points_span

HERE = Path(__file__).resolve().parent
SHIPS = {"mtut_pose": "depth"}


@dataclass(frozen=True)
class Part:
    """One question: which recipes, how often, under what changes."""

    name: str
    title: str
    seeds: int
    epochs: int
    recipes: tuple[str, ...] = ("single_depth", "matched_depth", "distill_pose")
    changes: tuple[str, ...] = ()
    folds: int = 0


PARTS = (
    Part("main", "All labels, 80 epochs, official split", 5, 80),
    Part("quarter", "A quarter of the labels, the other clips without", 3, 80, changes=("data.labeled=0.25",)),
    Part("folds", "Four subject-disjoint folds of all 861 clips, 40 epochs", 1, 40, ("single_depth", "distill_pose"), folds=4),
    Part("mtut", "MTUT: depth and pose learn together, 80 epochs", 2, 80, ("mtut_pose",)),
    Part("short", "All labels, 40 epochs, official split", 2, 40, ("single_depth", "distill_pose")),
    Part("long", "All labels, 160 epochs", 1, 160, ("single_depth", "distill_pose")),
)


def cells(part: Part, runs: Path, data: Path) -> list[list[Cell]]:
    """Rounds of cells: teachers and baselines first, then the cells that need them."""
    base = (f"data.root={data}", f"data.cache={runs / 'cache'}", *part.changes)
    rounds: list[list[Cell]] = [[], [], []]
    for fold in range(max(1, part.folds)):
        for seed in range(part.seeds):
            # A teacher is made once for its labels and fold, and serves every part that needs the same one.
            home = runs / ("teachers_quarter" if part.name == "quarter" else "teachers_folds" if part.folds else "teachers")
            teacher = Cell("single_pose", "utd_mhad/single_pose", seed, fold, part.folds, base)
            init = f"networks.teacher.init={teacher.run(home).folder}"
            own = (*base, f"optim.epochs={part.epochs}")

            def cell(name: str, *more: str, match: str = "", seed: int = seed, fold: int = fold,
                     own: tuple[str, ...] = own) -> Cell:
                file = "single_depth" if name == "matched_depth" else name
                return Cell(name, f"utd_mhad/{file}", seed, fold, part.folds, (*own, *more), match)

            taught = cell("distill_pose", init)
            if "distill_pose" in part.recipes:
                rounds[0].append(teacher)
                rounds[1].append(taught)
            if "matched_depth" in part.recipes:
                rounds[2].append(cell("matched_depth", match=str(taught.run(runs / part.name).folder)))
            rounds[1] += [cell(name) for name in part.recipes if name in ("single_depth", "mtut_pose")]
    return rounds


def run_part(part: Part, runs: Path, data: Path, jobs: int, console: Console) -> None:
    console.print(f"[bold]{part.title}[/]")
    teachers, first, second = cells(part, runs, data)
    home = runs / ("teachers_quarter" if part.name == "quarter" else "teachers_folds" if part.folds else "teachers")
    run_cells(teachers, home, jobs=jobs, monitor=ConsoleMonitor(console))
    for round_ in (first, second):
        run_cells(round_, runs / part.name, jobs=jobs, monitor=ConsoleMonitor(console))


def predictions_of(part: Part, name: str, runs: Path, data: Path) -> list[Predictions]:
    """The predictions of a recipe, one set per seed (the folds of a seed are joined)."""
    found = []
    every = [c for r in cells(part, runs, data) for c in r if c.name == name]
    for seed in range(part.seeds):
        parts = [Predictions.load(c.run(runs / part.name).predictions_path(SHIPS.get(name, "student"), "test"))
                 for c in every if c.seed == seed]
        found.append(Predictions.join(parts) if len(parts) > 1 else parts[0])
    return found


def table(part: Part, runs: Path, data: Path) -> str:
    """The part's results as a table in Markdown; an unfinished part says so."""
    rows: list[dict[str, Any]] = []
    every = [c for r in cells(part, runs, data) for c in r]
    predicted: dict[str, list[Predictions]] = {}
    for name in part.recipes:
        try:
            found = predictions_of(part, name, runs, data)
        except (ModaliftError, OSError):
            return f"## {part.title}\n\nNot trained yet: `python benchmarks/utd_mhad.py --only {part.name}` does it.\n"
        spent = [c.run(runs / part.name).compute() for c in every if c.name == name]
        top1 = [float(p.correct.mean()) for p in found]
        rows.append({"name": name, "top1": top1, "epochs": spent[0]["epochs"],
                     "seconds": np.mean([s["seconds"] for s in spent]), "macs": np.mean([s["training_macs"] for s in spent])})
        predicted[name] = found
        rows[-1]["pairs"] = [(other, difference(predicted[other], found)) for other in ("single_depth", "matched_depth")
                             if other in predicted and name == "distill_pose"]
        if name == "mtut_pose":
            alone = predictions_of(PARTS[0], "single_depth", runs, data)[:part.seeds]
            rows[-1]["pairs"].append(("single_depth", difference(alone, found)))
    seeds, clips = "one seed" if part.seeds == 1 else f"{part.seeds} seeds", len(next(iter(predicted.values()))[0])
    lines = [f"## {part.title}", "", f"{seeds}, {clips} test clips.", "",
             "| recipe | epochs | tera MACs | s per run | top-1, each seed | mean | deviation |",
             "|---|---|---|---|---|---|---|"]
    for r in rows:
        each = " ".join(f"{100 * t:.1f}" for t in r["top1"])
        sd = percent(float(np.std(r["top1"], ddof=1))) if len(r["top1"]) > 1 else "-"
        lines.append(f"| {r['name']} | {r['epochs']} | {r['macs'] / 1e12:.1f} | {r['seconds']:.0f} | {each} |"
                     f" {percent(float(np.mean(r['top1'])))} | {sd} |")
    over = ("seeds", "subjects and seeds") if part.seeds > 1 else ("clips", "subjects")
    pairs = [f"- `{r['name']}` against `{other}`: **{100 * d['difference']:+.1f} points** (95 % over {over[0]}:"
             f" {points_span(d['within'])}; over {over[1]}: {points_span(d['subjects'])})"
             for r in rows for other, d in r["pairs"]]
    more = [alignment_share(runs)] if part.name == "mtut" else []
    return "\n".join([*lines, "", *pairs, *more]) + "\n"


def alignment_share(runs: Path) -> str:
    """MTUT's alignment term relative to the label term, in the first epoch with alignment and in the last."""
    log = (runs / "mtut" / "mtut_pose" / "seed0" / "log.jsonl").read_text().splitlines()
    epochs = [e for e in map(json.loads, log) if e["kind"] == "epoch" and e["weights"]["ssa/pose>depth"] > 0]
    first, last = epochs[0], epochs[-1]
    ratio = [e["weights"]["align/pose>depth"] * e["terms"]["align/pose>depth"] / e["terms"]["ce/depth"]
            for e in (first, last)]
    return (f"\nThe paper's weight .05 and reference size of 392 positions, untuned: when alignment begins, its weighted term"
            f" is {ratio[0]:.0f} times the depth network's label term, and {ratio[1]:.0f} times at the end; the pose network's"
            f" label loss ends at {last['terms']['ce/pose']:.2f}. That weight was not chosen for maps of 16"
            " positions (pose has no image); choosing it on a training subject remains to be done.")


def difference(one: list[Predictions], other: list[Predictions]) -> dict[str, Any]:
    """The difference of ``other`` from ``one``, with an interval over seeds (or clips) and one over subjects."""
    if len(one) > 1:
        pair = paired_seeds(one, other)
        return pair | {"within": pair["over_seeds"], "subjects": pair["over_subjects_seeds"]}
    pair = paired(one[0], other[0])
    return pair | {"within": pair["intervals"]["clips"], "subjects": pair["intervals"]["subjects"]}


def teachers(runs: Path) -> str:
    """The pose teachers' own accuracy on the test split, and late fusion with the taught depth network."""
    main = PARTS[0]
    try:
        own = [Predictions.load(runs / "teachers" / "single_pose" / f"seed{s}" / "predictions" / "student-test.npz")
               for s in range(main.seeds)]
        depth = [Predictions.load(runs / "main" / "distill_pose" / f"seed{s}" / "predictions" / "student-test.npz")
                 for s in range(main.seeds)]
    except (ModaliftError, OSError):
        return "The teachers are not trained yet.\n"
    fused = [float(((p.probabilities + d.probabilities).argmax(1) == p.labels).mean()) for p, d in zip(own, depth, strict=True)]
    alone = [float(p.correct.mean()) for p in own]
    return (f"The pose teachers reach {percent(float(np.mean(alone)))} ({' '.join(f'{100 * a:.1f}' for a in alone)}). Mean of"
            f" the probabilities of pose and taught depth (needs both sensors; an upper bound, never deployed):"
            f" {percent(float(np.mean(fused)))}.\n")


def shipped(runs: Path, data: Path) -> str:
    """Ships the first taught network, predicts one real recording, and exports it: all three must agree."""
    run = Run(runs / "main" / "distill_pose" / "seed0")
    try:
        metadata = ship(run, "student", runs / "depth.modalift")
        found = Predictions.load(run.predictions_path("student", "test"))
    except (ModaliftError, OSError):
        return "## Deployment\n\nNot trained yet.\n"
    bundle = load(runs / "depth.modalift")
    row = int(np.flatnonzero(found.ids == "a11_s4_t4")[0])
    said = bundle.predict(data / "depth" / "a11_s4_t4.mkv")
    report = export_onnx(bundle, runs / "depth.onnx")
    gap = float(np.abs(said.probabilities - found.probabilities[row]).max())
    return (f"## Deployment\n\n`modalift ship` of seed 0 writes {metadata['bytes'] / 1e6:.2f} MB ({metadata['parameters']:,}"
            f" parameters, depth alone). `modalift predict depth.modalift a11_s4_t4.mkv` gives **{said.label}** with"
            f" {percent(said.probability)} (the label is {bundle.classes[found.labels[row]]}); evaluation gave the same within"
            f" {gap:.0e}. `modalift export` to ONNX differs by {report.difference:.0e} of the largest logit.\n")


def write(runs: Path, data: Path, parts: Sequence[Part]) -> Path:
    text = [
        "# UTD-MHAD: a pose network teaches a depth network", "",
        "Made by `python benchmarks/utd_mhad.py`; every cell is one `modalift train` of a recipe of `utd_mhad`, then"
        " one `modalift eval` on the test split.", "",
        f"{hardware(environment_paths=sorted(runs.rglob('environment.json')))} Two trainings at a time."
        " Seconds are wall time on a machine with other load; compare multiply-accumulates (MACs) instead.", "",
        "- `single_depth`: labels only. `matched_depth`: labels only for as many epochs as cost the multiply-accumulates of"
        " `distill_pose` including its teacher's training. `distill_pose`: labels and the soft predictions of a frozen pose"
        " network of the same seed. `mtut_pose`: MTUT's depth network.",
        "- Settings (augmentation, depth constants, the teaching's weight) were chosen by leaving training subject s7 out, in"
        " single runs of 30 to 40 epochs; the temperature was not tuned. The last checkpoint is evaluated.",
        "- Depth is deployed; pose is used in training only.",
        "- An interval over subjects resamples the few test subjects; with four of them it is too narrow"
        " (a simulation with four subjects found 80 % coverage where 95 % is meant).", "",
        teachers(runs),
    ]
    text += [table(part, runs, data) for part in parts] + [shipped(runs, data)]
    path = HERE / "results" / "utd_mhad.md"
    path.write_text("\n".join(text))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "utd_mhad_depth")
    parser.add_argument("--runs", type=Path, default=Path("runs/utd_mhad"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=[p.name for p in PARTS], help="train only these parts")
    parser.add_argument("--seeds", type=int, help="number of seeds for every part")
    parser.add_argument("--report", action="store_true", help="do not train, only write the results")
    given = parser.parse_args()
    parts = PARTS if given.seeds is None else tuple(replace(p, seeds=given.seeds) for p in PARTS)
    console = Console(stderr=True)
    if not given.report:
        if not (given.runs / "cache").is_dir():
            build_cache(datasets.open("csv", given.data), given.runs / "cache", ["depth", "pose"], codec="raw")
        for part in parts:
            if not given.only or part.name in given.only:
                run_part(part, given.runs, given.data, given.jobs, console)
                write(given.runs, given.data, parts)
    console.print(f"written: {write(given.runs, given.data, parts)}")


if __name__ == "__main__":
    main()
