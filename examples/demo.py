"""The main job in minutes: what a thermal camera teaches a color camera that must see in the dark alone.

Few clips are labeled, many are only synchronized. A thermal network learns from the few labels; the dark-RGB network
learns from the same few labels and from the thermal network's answers on every clip. Beside it: the same network with
the labels alone (as many epochs; as much compute), and taught by itself instead of by a second sensor.

    python examples/demo.py [--scale tiny] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from rich.console import Console
from rich.table import Table

from modalift import darkroom
from modalift.deploy import bundle as deploying
from modalift.deploy.export import export_onnx
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.statistics import Predictions, paired
from modalift.engine.study import Cell, run_cells
from modalift.engine.train import match_compute
from modalift.errors import ModaliftError
from modalift.recipe import load_recipe
from modalift.report.compare import write_comparison
from modalift.report.page import write_report
from modalift.report.terminal import percent, span

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "darkroom"
#: What is compared: name in the table -> recipe. The first is the baseline of every difference.
PLAYERS = {
    "labels only, as many epochs": "labels_only",
    "labels only, as much compute": "labels_compute",
    "taught by itself (control)": "self_training",
    "taught by thermal": "taught_thermal",
    "the thermal teacher (stays home)": "teacher_thermal",
}
CLIPS, TINY = 1600, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=["full", "tiny"], default="full", help="tiny: a rehearsal in seconds")
    parser.add_argument("--out", type=Path, help="by default runs/demo, or runs/demo-tiny")
    given = parser.parse_args()
    console, started = Console(), time.perf_counter()
    try:
        tiny = given.scale == "tiny"
        demo(given.out or Path("runs/demo-tiny" if tiny else "runs/demo"), tiny, console)
    except ModaliftError as error:
        console.print(f"error {error}", style="bold red", markup=False)
        raise SystemExit(2) from None
    console.print(f"\n{time.perf_counter() - started:.0f} s in all")


def demo(out: Path, tiny: bool, console: Console) -> None:
    """Simulates, trains, evaluates, compares, ships and exports; says what came out, whatever it is."""
    data = out / "data"
    if not data.exists():
        clips = TINY if tiny else CLIPS
        console.print(f"[bold]1[/] simulating {clips} clips of people who gesture in the dark (1 to 8 lux) ...")
        darkroom.simulate(data, clips=clips, workers=2, test_share=0.2, modalities=["rgb", "rgb_day", "thermal"])
    console.print("[bold]2[/] training: two networks at a time, each on one core; finished ones are reused ...")
    train(out, data, tiny, console)
    answers = {name: Predictions.load(Run(folder(out, recipe)).predictions("student", "test"))
               for name, recipe in PLAYERS.items()}
    console.print("[bold]3[/] shipping the taught network: one camera, no thermal sensor ...")
    taught = Run(folder(out, "taught_thermal"))
    facts = ship(taught, "student", out / "dark.modalift")
    report = export_onnx(deploying.load(out / "dark.modalift"), out / "dark.onnx")
    page = write_comparison({n: folder(out, r) for n, r in PLAYERS.items()}, out / "demo.html", focus="taught by thermal",
                            title="What a thermal camera teaches one that must see in the dark",
                            views=["rgb_day", "rgb", "thermal"], lede=sentence(answers))
    write_report(taught.folder)
    console.print(verdict(answers, out))
    console.print(sentence(answers))
    console.print(f"\nshipped: {out / 'dark.modalift'} ({facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.2f} MB);"
                  f" {out / 'dark.onnx'} gives the same answers to {report.difference:.0e}")
    console.print(f"[bold green]look at {page}[/]: what each sensor saw, and what each network made of it")


def folder(out: Path, recipe: str) -> Path:
    return out / recipe / "seed0"


def train(out: Path, data: Path, tiny: bool, console: Console) -> None:
    """Two rounds: teachers and the baseline; then the taught, and the baseline with the compute of the taught."""
    small = ("optim.epochs=1", "optim.batch=4", "data.size=32", "data.frames=4") if tiny else ()
    common = (f"data.root={data}", *small)

    def cell(recipe: str, name: str = "", *more: str) -> Cell:
        return Cell(name or recipe, RECIPES / f"{recipe}.yaml", 0, 0, 0, (*common, *more))

    run_cells([cell("teacher_thermal"), cell("labels_long"), cell("labels_only")], out, jobs=2, console=console)
    taught = cell("taught_thermal", "", f"networks.teacher.init={folder(out, 'teacher_thermal')}")
    # The longest first, so that both cores end together.
    run_cells([cell("labels_only", "labels_compute", f"optim.epochs={matched_epochs(taught, common)}"), taught,
               cell("self_training", "", f"networks.teacher.init={folder(out, 'labels_long')}")],
              out, jobs=2, console=console)


def matched_epochs(taught: Cell, common: tuple[str, ...]) -> int:
    """Epochs of labels only that spend what the taught network's training spends, its teacher's included."""
    alone = load_recipe(RECIPES / "labels_only.yaml", common)
    return match_compute(alone, load_recipe(taught.recipe, taught.overrides)).optim.epochs


def verdict(answers: dict[str, Predictions], out: Path) -> Table:
    """One row a network, with its interval over test subjects and its paired difference to labels only."""
    first = next(iter(answers))
    table = Table(title="top-1 on unseen subjects, in the dark", title_justify="left")
    for name in ("network", "epochs", "tera MACs", "top-1", "against labels only (95 % over clips)"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for name, found in answers.items():
        spent = Run(folder(out, PLAYERS[name])).compute()
        pair = paired(answers[first], found) if name != first else None
        gain = f"{100 * pair['difference']:+.1f} ({span(pair['intervals']['clips'])})" if pair else ""
        table.add_row(name, str(spent["epochs"]), f"{spent['training_macs'] / 1e12:.3g}",
                      percent(float(found.right.mean())), gain)
    return table


def sentence(answers: dict[str, Predictions]) -> str:
    """What may be said of one run: the taught network against the stronger of the labels-only ones."""
    alone = max((n for n in answers if n.startswith("labels only")), key=lambda n: answers[n].right.mean())
    pair = paired(answers[alone], answers["taught by thermal"])
    low, high = pair["intervals"]["clips"]
    if low > 0:
        return (f"Teaching helped: {100 * pair['difference']:+.1f} points against '{alone}', 95 % interval"
                f" {100 * low:.1f} to {100 * high:.1f} over clips. One seed; `modalift study` takes several.")
    return (f"At this budget no gain is shown: {100 * pair['difference']:+.1f} points against '{alone}', 95 % interval"
            f" {100 * low:.1f} to {100 * high:.1f} over clips.")


if __name__ == "__main__":
    main()
