"""The main workflow in minutes: a thermal camera is used for training only, and improves a color camera in the dark.

Few clips are labeled, many are only synchronized. A thermal network is trained on the few labels; the RGB network is
trained on the same labels and on the thermal network's predictions for every clip. It is compared with the same network
trained on the labels alone (epoch-matched and compute-matched), and with one taught by itself instead of by a second sensor.

Before it starts, it measures ten training steps and estimates the total time on this processor.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from modalift import darkroom
from modalift.deploy.export import export_onnx, what_is_missing
from modalift.engine.compute import match_compute
from modalift.engine.monitor import Monitor, Update
from modalift.engine.processor import describe
from modalift.engine.run import Run
from modalift.engine.ship import ship
from modalift.engine.statistics import paired
from modalift.engine.study import Cell, run_cells
from modalift.engine.train import train
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


def demo(out: Path, tiny: bool, console: Console) -> dict[str, Any]:
    """Simulates, trains, evaluates, compares, ships and exports, and reports the result.

    Args:
        out: the folder for all files; finished parts in it are reused.
        tiny: a test run in seconds, on 24 clips and for one epoch.
        console: where progress and results are shown.

    Returns:
        The files ``page``, ``bundle`` and ``onnx`` (None without the libraries of an export), ``top1`` of every network, the
        ``conclusion`` and the ``seconds`` that it took.

    Raises:
        ModaliftError: a training failed.
    """
    started, data, clips = time.perf_counter(), out / "data", FEW if tiny else CLIPS
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
        missing = what_is_missing()
        report = None if missing else export_onnx(load(out / "dark.modalift"), out / "dark.onnx")
        page = write_comparison({n: folder(out, r) for n, r in METHODS.items()}, out / "demo.html", focus="taught by thermal",
                                title="A thermal camera in training improves a color camera in the dark",
                                views=["rgb_day", "rgb", "thermal"], summary=sentence(predictions))
        write_report(taught.folder)
        work.at("shipping", 1.0)
    console.print(verdict(predictions, out))
    console.print(sentence(predictions))
    exported = f"{report.path} differs from it by {report.difference:.0e} of the largest output" if report else missing
    console.print(f"\nshipped: {out / 'dark.modalift'} ({shipped['parameters']:,} parameters, {shipped['bytes'] / 1e6:.2f} MB);"
                  f" {escape(exported)}")
    console.print(f"[bold green]results: {page}[/]: every sensor's recordings, and the predictions of every network")
    seconds = time.perf_counter() - started
    console.print(f"\n{seconds:.0f} s in total")
    return {"page": page, "bundle": out / "dark.modalift", "onnx": report and report.path,
            "top1": {name: float(found.correct.mean()) for name, found in predictions.items()},
            "conclusion": sentence(predictions), "seconds": round(seconds, 1)}


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
            lines = run.log_path.read_text(encoding="utf-8").splitlines() if run.log_path.is_file() else []
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


class Clock(Monitor):
    """Notes the wall time and the CPU time of this process after every training step."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    @contextmanager
    def progress(self, task: str, total: int, done: int = 0) -> Iterator[Update]:
        """Yields what notes the times."""
        yield lambda done, note="": self.marks.append((time.perf_counter(), time.process_time()))

    def since(self, step: int) -> tuple[float, float]:
        """Wall seconds and CPU seconds per step, on average over the steps after this one."""
        (wall, cpu), (last_wall, last_cpu) = self.marks[step - 1], self.marks[-1]
        return (last_wall - wall) / (len(self.marks) - step), (last_cpu - cpu) / (len(self.marks) - step)


def measured(place: Path, tiny: bool) -> tuple[float, float, float, float]:
    """CPU seconds per simulated clip, per training step on labels alone, and per step with a teacher (ten steps each).

    The last value is the ratio of wall time to CPU time, which is above 1 if other work runs on the machine. Both times are
    taken over the same loops of this process: a self-test of the first training, for example, runs in another one.
    """
    darkroom.simulate(place / "first", clips=2, size=PIXELS, modalities=VIEWS)  # warm-up: imports
    clock = Clock()
    with clock.progress("simulation", PROBED) as update:
        darkroom.simulate(place / "data", clips=PROBED, size=PIXELS, test_share=TEST, modalities=VIEWS,
                          progress=lambda done, _: update(done))

    def step(recipe: str, *more: str) -> tuple[float, float]:
        own = (*settings(recipe, place / "data", tiny), "data.labeled=1.0", "optim.epochs=3", f"run.dir={place / recipe}")
        clock = Clock()
        train(load_recipe(f"darkroom/{recipe}", (*own, *more)), clock)
        return clock.since(len(clock.marks) // 3)  # the first epoch includes decoding

    times = [clock.since(1), step("teacher_thermal"),
             step("taught_thermal", f"networks.teacher.init={place / 'teacher_thermal'}")]
    clip, alone, taught = (cpu for _, cpu in times)
    return clip, alone, taught, max(1.0, sum(wall for wall, _ in times) / sum(cpu for _, cpu in times))


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
