"""The main workflow in minutes: a thermal camera is used for training only, and improves a color camera in the dark.

Few clips are labeled, many are only synchronized. A thermal network is trained on the few labels; the RGB network is
trained on the same labels and on the thermal network's predictions for every clip. It is compared with the same network
trained on the labels alone (epoch-matched and compute-matched), and with one taught by itself instead of by a second sensor.

    python examples/demo.py [--scale tiny] [--out FOLDER]

Before it starts, it measures ten training steps and estimates the total time on this processor.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from modalift import darkroom
from modalift.deploy.export import export_onnx
from modalift.engine.compute import match_compute
from modalift.engine.processor import describe
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.statistics import paired
from modalift.engine.study import Cell, run_cells
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.models import Predictions, load
from modalift.recipe import load_recipe
from modalift.report.compare import write_comparison
from modalift.report.console import ConsoleMonitor
from modalift.report.numbers import percent, points_span
from modalift.report.page import write_report

#: What is compared: name in the table -> recipe. The first is the baseline of every difference.
METHODS = {
    "labels only, epoch-matched": "labels_only",
    "labels only, compute-matched": "labels_compute",
    "taught by itself (control)": "self_training",
    "taught by thermal": "taught_thermal",
    "the thermal teacher (training only)": "teacher_thermal",
}
#: Settings for a few minutes on two cores: small frames, small batches (many steps), a head with spatial bins. They were chosen
#: on validation subjects, without the test split.
FULL = ("data.size=32", "data.labeled=0.167", "optim.batch=8", "networks.student.grid=3")
TINY = ("data.size=32", "data.frames=4", "optim.batch=4", "run.precision=fp32")
#: The weight of the distillation loss, the same for every teacher.
TAUGHT = {"taught_thermal": ("scheme.kd_weight=4",), "self_training": ("scheme.kd_weight=4",)}
#: Recipe -> epochs of the full demo.
EPOCHS = {"teacher_thermal": 24, "labels_long": 24, "labels_only": 6, "taught_thermal": 6, "self_training": 6}
#: Clips of the full demo, of the tiny one, and of the time measurement; the fraction of clips (of unseen people) for the test.
CLIPS, FEW, PROBED, TEST = 1200, 24, 50, 0.2
#: Time of a training and its evaluation besides the steps, as a multiple of the time to import the libraries.
LOADS = 6
VIEWS, PIXELS = ["rgb", "rgb_day", "thermal"], 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=["full", "tiny"], default="full", help="tiny: a test run in seconds")
    parser.add_argument("--out", type=Path, help="by default runs/demo, or runs/demo-tiny")
    given = parser.parse_args()
    console, started = Console(), time.perf_counter()
    try:
        tiny = given.scale == "tiny"
        demo(given.out or Path("runs/demo-tiny" if tiny else "runs/demo"), tiny, console)
    except ModaliftError as error:
        console.print(f"error {error}", style="bold red", markup=False)
        raise SystemExit(2) from None
    console.print(f"\n{time.perf_counter() - started:.0f} s in total")


def demo(out: Path, tiny: bool, console: Console) -> None:
    """Simulates, trains, evaluates, compares, ships and exports, and reports the result."""
    data, clips = out / "data", FEW if tiny else CLIPS
    work = planned(out, data, clips, tiny, console)
    with work.bar:
        if not data.exists():
            console.print(f"[bold]1[/] simulating {clips} clips of people who gesture in the dark (1 to 8 lux) ...")
            darkroom.simulate(data, clips=clips, size=PIXELS, workers=work.cores, test_share=TEST, modalities=VIEWS,
                              progress=lambda done, of: work.at("simulation", done / of))
        console.print(f"[bold]2[/] training: {work.cores} networks at a time, each on one core; finished ones are reused ...")
        train_all(out, data, tiny, work, console)
        predictions = {name: Predictions.load(Run(folder(out, recipe)).predictions_path("student", "test"))
                   for name, recipe in METHODS.items()}
        console.print("[bold]3[/] writing the bundle of the taught network, which needs the color camera only ...")
        taught = Run(folder(out, "taught_thermal"))
        shipped = ship(taught, "student", out / "dark.modalift")
        report = export_onnx(load(out / "dark.modalift"), out / "dark.onnx")
        page = write_comparison({n: folder(out, r) for n, r in METHODS.items()}, out / "demo.html", focus="taught by thermal",
                                title="A thermal camera in training improves a color camera in the dark",
                                views=["rgb_day", "rgb", "thermal"], summary=sentence(predictions))
        write_report(taught.folder)
        work.at("shipping", 1.0)
    console.print(verdict(predictions, out))
    console.print(sentence(predictions))
    console.print(f"\nshipped: {out / 'dark.modalift'} ({shipped['parameters']:,} parameters, {shipped['bytes'] / 1e6:.2f} MB);"
                  f" {out / 'dark.onnx'} differs from it by {report.difference:.0e} of the largest output")
    console.print(f"[bold green]results: {page}[/]: every sensor's recordings, and the predictions of every network")


def folder(out: Path, recipe: str) -> Path:
    return out / recipe / "seed0"


def settings(recipe: str, data: Path, tiny: bool) -> tuple[str, ...]:
    """The overrides of a recipe in the demo."""
    epochs = 1 if tiny else EPOCHS[recipe]
    return (f"data.root={data}", *(TINY if tiny else FULL), *TAUGHT.get(recipe, ()), f"optim.epochs={epochs}")


def train_all(out: Path, data: Path, tiny: bool, work: Work, console: Console) -> None:
    """Two rounds: the teachers and the baseline; then the taught networks and the compute-matched baseline."""

    def cell(recipe: str, name: str = "", *more: str) -> Cell:
        return Cell(name or recipe, f"darkroom/{recipe}", 0, 0, 0, (*settings(recipe, data, tiny), *more))

    def run(*cells: Cell) -> None:
        run_cells(cells, out, jobs=work.cores, monitor=ConsoleMonitor(console),
                  while_waiting=lambda: work.update([c.run(out) for c in cells]))
        work.update([c.run(out) for c in cells], now=True)

    run(cell("teacher_thermal"), cell("labels_long"), cell("labels_only"))
    taught = cell("taught_thermal", "", f"networks.teacher.init={folder(out, 'teacher_thermal')}")
    # The longest first, so that both cores finish at about the same time.
    run(cell("labels_only", "labels_compute", f"optim.epochs={matched_epochs(taught, data, tiny)}"), taught,
        cell("self_training", "", f"networks.teacher.init={folder(out, 'labels_long')}"))


def matched_epochs(taught: Cell, data: Path, tiny: bool) -> int:
    """The epochs of labels only that cost as much as the taught network's training, including its teacher's."""
    alone = load_recipe("darkroom/labels_only", settings("labels_only", data, tiny))
    return match_compute(alone, load_recipe(taught.recipe, taught.overrides)).optim.epochs


# ---- how long it takes ----------------------------------------------------------------------------------------------


class Work:
    """The demo's parts, their estimated times, and their progress.

    Args:
        seconds: part -> estimated seconds on one core.
        steps: run -> number of training steps; the name of the part is that of the run.
        cores: number of parts that run at the same time.
    """

    def __init__(self, seconds: dict[str, float], steps: dict[str, int], cores: int, console: Console) -> None:
        self.seconds, self.steps, self.cores, self.console = seconds, steps, cores, console
        self.share = dict.fromkeys(seconds, 0.0)
        self.bar = Progress(TextColumn("[bold]demo"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
                            TextColumn("{task.fields[left]}"), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("demo", total=sum(seconds.values()), left=f"{clock(self.left())} left")
        self.started = self.updated = time.perf_counter()

    def left(self) -> float:
        """Remaining seconds: the estimate, corrected by the speed so far."""
        done = sum(self.seconds[part] * share for part, share in self.share.items())
        estimated = (sum(self.seconds.values()) - done) / self.cores
        return estimated * (time.perf_counter() - self.started) * self.cores / done if done > 5 * self.cores else estimated

    def at(self, part: str, share: float) -> None:
        """Sets the progress of a part, as a fraction."""
        if part not in self.share or share <= self.share[part]:
            return
        self.share[part] = share
        done = sum(self.seconds[part] * share for part, share in self.share.items())
        self.bar.update(self.task, completed=done, left=f"about {clock(self.left())} left")
        if share == 1 and not self.console.is_terminal:
            self.console.print(f"{part} is done; about {clock(self.left())} left", highlight=False)

    def update(self, runs: list[Run], now: bool = False) -> None:
        """Updates the progress of trainings from their logs, at most once per second."""
        if not now and time.perf_counter() - self.updated < 1:
            return
        self.updated = time.perf_counter()
        for run in runs:
            name = run.folder.parent.name
            lines = run.log_path.read_text().splitlines() if run.log_path.is_file() else []
            whole = [line for line in lines if line.endswith("}")]
            step = json.loads(whole[-1])["step"] if whole else 0
            self.at(name, 1.0 if run.results_path.is_file() else min(0.95, step / self.steps.get(name, step or 1)))


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def planned(out: Path, data: Path, clips: int, tiny: bool, console: Console) -> Work:
    """Measures the time per clip and per training step, and estimates the time of everything that is not finished yet."""
    loading, here = LOADS * time.process_time(), replace(describe(), threads=1)
    cores = min(2, here.cores)
    console.print("[bold]0[/] measuring ten training steps ...")
    with tempfile.TemporaryDirectory() as place:
        clip, alone, taught, busy = measured(Path(place), tiny)
    rows = round(clips * (1 - TEST))
    labeled = load_recipe("darkroom/labels_only", settings("labels_only", data, tiny)).data.labeled
    steps = {name: optim.epochs * max(1, int(rows if name in TAUGHT else rows * labeled)
                                      // optim.batch) for name in EPOCHS
             for optim in [load_recipe(f"darkroom/{name}", settings(name, data, tiny)).optim]}
    # A frozen teacher's forward pass is a third of a training step; `matched_epochs` counts exactly later.
    steps["labels_compute"] = steps["taught_thermal"] * 4 // 3 + steps["teacher_thermal"]
    seconds = {"simulation": clips * clip} if not data.exists() else {}
    for name, count in steps.items():
        run = Run(folder(out, name))
        if not (run.finished and run.results_path.is_file()):
            seconds[name] = loading + count * (taught if name in TAUGHT else alone)
    seconds["shipping"] = loading
    quiet = sum(seconds.values()) / cores
    slowed = f" on idle cores, or {clock(quiet * busy)} with the other work that is running now" if busy > 1.3 else ""
    console.print(f"{here.line()} per training\n{1e3 * clip:.0f} ms per simulated clip, {1e3 * alone:.0f} ms per training step,"
                  f" {1e3 * taught:.0f} ms per step with a teacher\n[bold]estimated total time: {clock(quiet)}[/]{slowed}",
                  highlight=False)
    return Work({part: busy * each for part, each in seconds.items()}, steps, cores, console)


def measured(place: Path, tiny: bool) -> tuple[float, float, float, float]:
    """CPU seconds per simulated clip, per training step on labels alone, and per step with a teacher (ten steps each).

    The last value is the ratio of wall time to CPU time, which is above 1 if other work runs on the machine.
    """
    darkroom.simulate(place / "first", clips=2, size=PIXELS, modalities=VIEWS)  # warm-up: imports
    began, spent = time.perf_counter(), time.process_time()
    darkroom.simulate(place / "data", clips=PROBED, size=PIXELS, test_share=TEST, modalities=VIEWS)
    clip = (time.perf_counter() - began) / PROBED

    def step(recipe: str, *more: str) -> float:
        own = (*settings(recipe, place / "data", tiny), "data.labeled=1.0", "optim.epochs=3", f"run.dir={place / recipe}")
        run = train(load_recipe(f"darkroom/{recipe}", (*own, *more)))
        lines = [json.loads(line) for line in run.log_path.read_text().splitlines()]
        first, _, last = (e for e in lines if e["kind"] == "epoch")  # the first epoch includes decoding
        return float(last["seconds"] - first["seconds"]) / float(last["step"] - first["step"])

    alone = step("teacher_thermal")
    taught = step("taught_thermal", f"networks.teacher.init={place / 'teacher_thermal'}")
    busy = max(1.0, (time.perf_counter() - began) / (time.process_time() - spent))
    return clip / busy, alone / busy, taught / busy, busy


# ---- results ---------------------------------------------------------------------------------------------


def verdict(predictions: dict[str, Predictions], out: Path) -> Table:
    """One row per network, with its paired difference from labels only."""
    first = next(iter(predictions))
    table = Table(title="top-1 on unseen subjects, in the dark", title_justify="left")
    for name in ("network", "epochs", "tera MACs", "top-1", "against labels only (95 % over clips)"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for name, found in predictions.items():
        spent = Run(folder(out, METHODS[name])).compute()
        pair = paired(predictions[first], found) if name != first else None
        gain = f"{100 * pair['difference']:+.1f} ({points_span(pair['intervals']['clips'])})" if pair else ""
        table.add_row(name, str(spent["epochs"]), f"{spent['training_macs'] / 1e12:.3g}",
                      percent(float(found.correct.mean())), gain)
    return table


def sentence(predictions: dict[str, Predictions]) -> str:
    """The conclusion from one seed: the taught network against the better of the two labels-only baselines."""
    alone = max((n for n in predictions if n.startswith("labels only")), key=lambda n: predictions[n].correct.mean())
    pair = paired(predictions[alone], predictions["taught by thermal"])
    low, high = pair["intervals"]["clips"]
    if low > 0:
        return (f"Teaching helped: {100 * pair['difference']:+.1f} points against '{alone}', 95 % interval"
                f" {100 * low:.1f} to {100 * high:.1f} over clips. One seed; `modalift study` takes several.")
    return (f"At this budget no gain is shown: {100 * pair['difference']:+.1f} points against '{alone}', 95 % interval"
            f" {100 * low:.1f} to {100 * high:.1f} over clips.")


if __name__ == "__main__":
    main()
