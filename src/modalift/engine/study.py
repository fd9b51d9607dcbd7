"""Studies: recipes x seeds x folds; each cell is a run, finished cells are reused, recipes are compared in pairs."""

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
from modalift.recipe_files import find_recipe


@dataclass(frozen=True)
class Cell:
    """One training of a study: a recipe with its seed and fold.

    Attributes:
        name: name of the recipe.
        recipe: its name or path.
        seed, fold: of this training.
        folds: number of folds; 0 without cross-validation.
        overrides: changes to the recipe.
        match: a recipe whose training compute this one matches; empty for none.
    """

    name: str
    recipe: str
    seed: int
    fold: int
    folds: int
    overrides: tuple[str, ...]
    match: str = ""
    plugins: tuple[Path, ...] = ()

    def run(self, folder: Path) -> Run:
        """Its run, in the folder of the study."""
        tail = f"-fold{self.fold}" if self.folds else ""
        return Run(folder / self.name / f"seed{self.seed}{tail}")

    def commands(self, folder: Path) -> list[list[str]]:
        """The arguments of the `modalift` commands that train and evaluate this cell."""
        run = str(self.run(folder).folder)
        fold = [f"protocol.folds={self.folds}", f"protocol.fold={self.fold}"] if self.folds else []
        match = ["--match-compute", self.match] if self.match else []
        plugins = [word for path in self.plugins for word in ("--plugin", str(path))]
        return [[*plugins, "train", *match, self.recipe, *self.overrides, f"run.seed={self.seed}", *fold,
                 f"run.dir={run}"],
                [*plugins, "eval", "--no-report", run]]


def study(recipes: Sequence[str], folder: Path, *, seeds: int = 3, folds: int = 0, jobs: int = 1,
          overrides: Sequence[str] = (), plugins: Sequence[Path] = (), monitor: Monitor | None = None) -> dict[str, Any]:
    """Trains and evaluates every recipe with every seed (and fold); compares each with the first one, in pairs.

    A recipe with one teacher per seed names its recipe in ``networks.*.recipe``, or its run with ``{seed}`` (and ``{fold}``) in
    ``networks.*.init``.

    Args:
        recipes: their names or paths; the first is the baseline.
        folder: where the runs are.
        seeds: number of seeds.
        folds: number of folds; 0 without cross-validation.
        jobs: number of processes at a time.
        overrides: changes to all recipes.
        monitor: receives a line per finished cell.

    Returns:
        See :func:`summary`.

    Raises:
        ModaliftError: an invalid recipe, two recipes of one name, or a cell that failed.
    """
    names = [find_recipe(recipe).name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise ModaliftError(f"study: two recipes are named '{name}' - they would share a folder; rename one")
    for recipe in recipes:  # an error in the last one is found before the first is trained
        load_recipe(recipe, overrides)
    cells = [Cell(name, recipe, seed, fold, folds, tuple(overrides), plugins=tuple(plugins))
             for fold in range(max(1, folds)) for seed in range(seeds) for name, recipe in zip(names, recipes, strict=True)]
    run_cells(cells, folder, jobs=jobs, monitor=monitor)
    return summary(cells, folder)


def run_cells(cells: Sequence[Cell], folder: Path, *, jobs: int = 1, monitor: Monitor | None = None,
              while_waiting: Callable[[], None] | None = None) -> None:
    """Trains and evaluates cells in order, ``jobs`` at a time, each in a process of its own; skips finished ones.

    Args:
        cells: the trainings; each one's run is a folder below ``folder``.
        folder: where the runs are.
        jobs: number of processes at a time.
        monitor: receives a line per finished cell.
        while_waiting: called several times per second, e.g. to show progress.

    Raises:
        ModaliftError: a cell that failed, with its message; finished cells are kept.
    """
    monitor = monitor or Monitor()
    waiting = [c for c in cells if not (c.run(folder).results_path.is_file() and c.run(folder).finished)]
    monitor.message(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished; {len(waiting)} to train")
    running: list[_RunningCell] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_RunningCell(waiting.pop(0), folder))
            for job in [job for job in running if job.done()]:
                running.remove(job)
                monitor.message(f"{job.cell.run(folder).folder}: {time.perf_counter() - job.started:.0f} s,"
                                f" {len(waiting)} cells left")
            if while_waiting is not None:
                while_waiting()
            time.sleep(0.1)
    finally:
        for job in running:
            job.process.terminate()


class _RunningCell:
    """A cell in training: the processes of its commands, one after the other."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell, self.folder, self.started = cell, folder, time.perf_counter()
        self.commands = cell.commands(folder)
        self.messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (an unread pipe would fill and block)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "modalift", *self.commands.pop(0), "--json"],
                                stdout=subprocess.DEVNULL, stderr=self.messages, text=True)

    def done(self) -> bool:
        """Whether the last command has ended; starts the next one when one has.

        Raises:
            ModaliftError: a command failed.
        """
        if self.process.poll() is None:
            return False
        if self.process.returncode:
            self.messages.seek(0)
            lines = self.messages.read().strip().splitlines()
            last = lines[-1].removeprefix("error ") if lines else "no message"
            raise ModaliftError(f"study: {self.cell.run(self.folder).folder} failed: {last}")
        if self.commands:
            self.process = self._start()
            return False
        return True


def summary(cells: Sequence[Cell], folder: Path, role: str = "", split: str = "test") -> dict[str, Any]:
    """Accuracy of each recipe (all values, mean, standard deviation), and its paired difference to the first recipe."""
    names = list(dict.fromkeys(c.name for c in cells))
    found: dict[str, list[Predictions]] = {n: [] for n in names}
    for name in names:
        for seed in sorted({c.seed for c in cells if c.name == name}):
            parts = [Predictions.load(_predictions_path(c.run(folder), role, split))
                     for c in cells if c.name == name and c.seed == seed]
            found[name].append(Predictions.join(parts) if len(parts) > 1 else parts[0])
    rows = []
    for name in names:
        top1 = [float(p.correct[p.labels >= 0].mean()) for p in found[name]]
        compute = [c.run(folder).compute() for c in cells if c.name == name]
        rows.append({
            "name": name, "top1": top1, "mean": float(np.mean(top1)),
            "sd": float(np.std(top1, ddof=1)) if len(top1) > 1 else None, "epochs": compute[0].get("epochs"),
            "training_macs": float(np.mean([s.get("training_macs", np.nan) for s in compute])),
            "seconds": float(np.mean([s.get("seconds", np.nan) for s in compute])),
        })
        if name != names[0] and len(found[name]) == len(found[names[0]]) > 1:
            rows[-1]["against_first"] = paired_seeds(found[names[0]], found[name])
    return {"split": split, "rows": rows}


def _predictions_path(run: Run, role: str, split: str) -> Path:
    return run.predictions_path(run.resolve_role(role), split)
