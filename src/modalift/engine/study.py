"""Studies: recipes x seeds x folds, each cell a run, finished cells reused, compared in pairs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modalift.engine.monitor import Monitor
from modalift.engine.run import Run
from modalift.engine.statistics import paired_seeds
from modalift.errors import ModaliftError
from modalift.models import Predictions
from modalift.recipe import load_recipe


@dataclass(frozen=True)
class Cell:
    """One training of a study: a recipe with its seed and fold."""

    name: str
    recipe: Path
    seed: int
    fold: int
    folds: int
    overrides: tuple[str, ...]
    match: Path | None = None

    def run(self, folder: Path) -> Run:
        tail = f"-fold{self.fold}" if self.folds else ""
        return Run(folder / self.name / f"seed{self.seed}{tail}")

    def commands(self, folder: Path) -> list[list[str]]:
        """The `modalift` commands of this cell, training and evaluation: what anyone can type to make it again."""
        run = str(self.run(folder).folder)
        fold = [f"protocol.folds={self.folds}", f"protocol.fold={self.fold}"] if self.folds else []
        match = ["--match-compute", str(self.match)] if self.match else []
        return [["train", *match, str(self.recipe), *self.overrides, f"run.seed={self.seed}", *fold, f"run.dir={run}"],
                ["eval", "--no-report", run]]


def study(recipes: Sequence[Path], folder: Path, *, seeds: int = 3, folds: int = 0, jobs: int = 1,
          overrides: Sequence[str] = (), monitor: Monitor | None = None) -> dict[str, Any]:
    """Trains and evaluates every recipe with every seed (and fold); compares each with the first one, in pairs.

    A recipe whose teacher is trained for each seed names it with ``{seed}`` (and ``{fold}``) in ``networks.*.init``.
    """
    twice = [p for p in recipes if [q.stem for q in recipes].count(p.stem) > 1]
    if twice:
        raise ModaliftError(f"study: two recipes are called '{twice[0].stem}' - their runs would share a folder; rename one")
    for path in recipes:  # what is wrong with the last one must not wait for the first to be trained
        load_recipe(path, overrides)
    cells = [Cell(path.stem, path, seed, fold, folds, tuple(overrides))
             for fold in range(max(1, folds)) for seed in range(seeds) for path in recipes]
    run_cells(cells, folder, jobs=jobs, monitor=monitor)
    return summary(cells, folder)


def run_cells(cells: Sequence[Cell], folder: Path, *, jobs: int = 1, monitor: Monitor | None = None,
              while_waiting: Callable[[], None] | None = None) -> None:
    """Trains and evaluates cells in order, ``jobs`` at a time, each in a process of its own; skips finished ones.

    Args:
        cells: what to train; each one's run is a folder below ``folder``.
        folder: where the runs are.
        jobs: processes at a time.
        monitor: gets a line for each cell that ends.
        while_waiting: called several times a second, to show how far the logs of the cells are.

    Raises:
        ModaliftError: a cell that failed, with its message; what was finished stays.
    """
    monitor = monitor or Monitor()
    waiting = [c for c in cells if not (c.run(folder).results.is_file() and c.run(folder).finished)]
    monitor.message(f"{len(cells) - len(waiting)} of {len(cells)} cells are there; {len(waiting)} to train")
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Running(waiting.pop(0), folder))
            for job in [job for job in running if job.done()]:
                running.remove(job)
                monitor.message(f"{job.cell.run(folder).folder}: {time.perf_counter() - job.started:.0f} s,"
                                f" {len(waiting)} cells are left")
            if while_waiting is not None:
                while_waiting()
            time.sleep(0.1)
    finally:
        for job in running:
            job.process.terminate()


class _Running:
    """A cell at work: one of its commands after the other."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell, self.folder, self.started = cell, folder, time.perf_counter()
        self.commands = cell.commands(folder)
        self.messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe that nobody reads would fill and block)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "modalift", *self.commands.pop(0), "--json"],
                                stdout=subprocess.DEVNULL, stderr=self.messages, text=True)

    def done(self) -> bool:
        """Whether the last command has ended; the next one is begun when one has.

        Raises:
            ModaliftError: a command failed.
        """
        if self.process.poll() is None:
            return False
        if self.process.returncode:
            self.messages.seek(0)
            said = self.messages.read().strip().splitlines()
            last = said[-1].removeprefix("error ") if said else "no message"
            raise ModaliftError(f"study: {self.cell.run(self.folder).folder} failed: {last}")
        if self.commands:
            self.process = self._start()
            return False
        return True


def summary(cells: Sequence[Cell], folder: Path, role: str = "", split: str = "test") -> dict[str, Any]:
    """Mean, deviation and every value of each recipe's accuracy, and the paired difference to the first recipe."""
    names = list(dict.fromkeys(c.name for c in cells))
    found: dict[str, list[Predictions]] = {n: [] for n in names}
    for name in names:
        for seed in sorted({c.seed for c in cells if c.name == name}):
            parts = [Predictions.load(_file(c.run(folder), role, split))
                     for c in cells if c.name == name and c.seed == seed]
            found[name].append(Predictions.join(parts) if len(parts) > 1 else parts[0])
    rows = []
    for name in names:
        top1 = [float(p.right[p.labels >= 0].mean()) for p in found[name]]
        spent = [c.run(folder).compute() for c in cells if c.name == name]
        rows.append({
            "name": name, "top1": top1, "mean": float(np.mean(top1)),
            "sd": float(np.std(top1, ddof=1)) if len(top1) > 1 else None, "epochs": spent[0].get("epochs"),
            "training_macs": float(np.mean([s.get("training_macs", np.nan) for s in spent])),
            "seconds": float(np.mean([s.get("seconds", np.nan) for s in spent])),
        })
        if name != names[0] and len(found[name]) == len(found[names[0]]) > 1:
            rows[-1]["against_first"] = paired_seeds(found[names[0]], found[name])
    return {"split": split, "rows": rows}


def _file(run: Run, role: str, split: str) -> Path:
    return run.predictions(run.role(role), split)
