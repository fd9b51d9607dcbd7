"""Studies: recipes x seeds x folds, each cell a run, finished cells reused, compared in pairs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from modalift.engine.run import Run
from modalift.engine.statistics import Predictions, paired_seeds
from modalift.errors import ModaliftError
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

    def command(self, folder: Path) -> list[str]:
        """The `modalift train` command of this cell: what anyone can type to make it again."""
        fold = [f"protocol.folds={self.folds}", f"protocol.fold={self.fold}"] if self.folds else []
        match = ["--match-compute", str(self.match)] if self.match else []
        return ["train", *match, str(self.recipe), *self.overrides, f"run.seed={self.seed}", *fold,
                f"run.dir={self.run(folder).folder}"]


def study(recipes: Sequence[Path], folder: Path, *, seeds: int = 3, folds: int = 0, jobs: int = 1,
          overrides: Sequence[str] = (), console: Console | None = None) -> dict[str, Any]:
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
    run_cells(cells, folder, jobs=jobs, console=console)
    return summary(cells, folder)


def run_cells(cells: Sequence[Cell], folder: Path, *, jobs: int = 1, console: Console | None = None,
              watch: Callable[[], None] | None = None) -> None:
    """Trains and evaluates cells in order, ``jobs`` at a time, each in a process of its own; skips finished ones.

    Args:
        cells: what to train; each one's run is a folder below ``folder``.
        folder: where the runs are.
        jobs: processes at a time.
        console: gets a line for each cell that ends.
        watch: called several times a second while cells are trained, to show how far their logs are.

    Raises:
        ModaliftError: a cell that failed, with its message; what was finished stays.
    """
    console = console or Console(stderr=True)
    waiting = [c for c in cells if not (c.run(folder).results.is_file() and c.run(folder).finished)]
    console.print(f"{len(cells) - len(waiting)} of {len(cells)} cells are there; {len(waiting)} to train",
                  highlight=False)
    running: list[tuple[Cell, subprocess.Popen[str], float]] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            cell = waiting.pop(0)
            running.append((cell, _start(cell, folder), time.perf_counter()))
        for entry in list(running):
            cell, process, started = entry
            if process.poll() is None:
                continue
            running.remove(entry)
            if process.returncode:
                for _, other, _ in running:
                    other.terminate()
                said = (process.stderr.read() if process.stderr else "").strip().splitlines()
                last = said[-1].removeprefix("error ") if said else "no message"
                raise ModaliftError(f"study: {cell.run(folder).folder} failed: {last}")
            console.print(Text(f"{cell.run(folder).folder}: {time.perf_counter() - started:.0f} s, {len(waiting)} wait"))
        if watch is not None:
            watch()
        time.sleep(0.1)


def _start(cell: Cell, folder: Path) -> subprocess.Popen[str]:
    run = cell.run(folder).folder
    both = ("import subprocess, sys; m = [sys.executable, '-m', 'modalift.cli'];"
            f"sys.exit(subprocess.call(m + {cell.command(folder)!r} + ['--json'], stdout=subprocess.DEVNULL)"
            f" or subprocess.call(m + ['eval', '--no-report', '--json', {str(run)!r}], stdout=subprocess.DEVNULL))")
    return subprocess.Popen([sys.executable, "-c", both], stderr=subprocess.PIPE, text=True)


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
