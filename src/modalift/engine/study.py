"""Studies: recipes x seeds x folds; each cell is a run, finished cells are reused, recipes are compared in pairs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modalift.engine.build import assemble
from modalift.engine.evaluate import current_predictions
from modalift.engine.monitor import Monitor
from modalift.engine.provenance import check_recordings, difference, fingerprint
from modalift.engine.roles import EVERY_RUN, RoleChoice, match_roles, networks_of
from modalift.engine.run import Run
from modalift.engine.scope import joined_held_out, joined_scope
from modalift.engine.statistics import paired_seeds
from modalift.engine.tables import open_table
from modalift.errors import ModaliftError
from modalift.interruption import starting_processes
from modalift.models import Predictions
from modalift.models.metrics import by_known_subject
from modalift.recipe import Recipe, load_recipe
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

    def changes(self, folder: Path) -> list[str]:
        """All changes to the recipe, with seed, fold and run folder."""
        fold = [f"protocol.folds={self.folds}", f"protocol.fold={self.fold}"] if self.folds else []
        return [*self.overrides, f"run.seed={self.seed}", *fold, f"run.dir={self.run(folder).folder}"]

    def commands(self, folder: Path) -> list[list[str]]:
        """The arguments of the `modalift` commands that train and evaluate this cell."""
        match = ["--match-compute", self.match] if self.match else []
        plugins = [word for path in self.plugins for word in ("--plugin", str(path))]
        return [[*plugins, "train", *match, self.recipe, *self.changes(folder)],
                [*plugins, "eval", "--no-report", str(self.run(folder).folder)]]

    def finished(self, folder: Path) -> bool:
        """Whether it is trained and evaluated, with this recipe and on the recordings and labels as they are now.

        Raises:
            ModaliftError: its folder holds the run of another recipe, or of other recordings.
        """
        run = self.run(folder)
        if not run.recipe_path.is_file():
            return False
        there, here = load_recipe(run.folder), load_recipe(self.recipe, self.changes(folder))
        if self.match:  # which set its epochs
            here = here.changed({"optim.epochs": there.optim.epochs})
        advice = "give another --out, or remove that folder"
        if changed := difference(there, here):
            raise ModaliftError(f"{run.folder}: holds a run of another recipe ({changed}) - {advice}")
        if not run.finished:
            return False
        table = open_table(here)
        if run.compute()["fingerprint"] != fingerprint(here, table, run.compute()["precision"]):
            raise ModaliftError(f"{run.folder}: was trained on other clips or labels, or from other weights - {advice}")
        check_recordings(run, table.split("train"))
        return run.results_path.is_file() and all(
            current_predictions(run, role, "test") is not None for role in run.roles() if run.describe(role)["classes"])


def study(recipes: Sequence[str], folder: Path, *, seeds: int = 3, folds: int = 0, jobs: int = 1,
          overrides: Sequence[str] = (), choice: RoleChoice = EVERY_RUN, plugins: Sequence[Path] = (),
          monitor: Monitor | None = None) -> dict[str, Any]:
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
        choice: which network of recipes that train several, by the recipe's name; by default they are matched by the view that
            they read.
        monitor: receives a line per finished cell.

    Returns:
        See :func:`summary`.

    Raises:
        ModaliftError: an invalid recipe, two recipes of one name, networks that cannot be matched, a cell's folder that holds
            another experiment, or a cell that failed.
    """
    names = [find_recipe(recipe).name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise ModaliftError(f"study: two recipes are named '{name}' - they would share a folder; rename one")
    match_before([load_recipe(recipe, overrides) for recipe in recipes], names, choice)
    cells = [Cell(name, recipe, seed, fold, folds, tuple(overrides), plugins=tuple(plugins))
             for fold in range(max(1, folds)) for seed in range(seeds) for name, recipe in zip(names, recipes, strict=True)]
    run_cells(cells, folder, jobs=jobs, monitor=monitor)
    return summary(cells, folder, choice)


def match_before(recipes: Sequence[Recipe], names: Sequence[str], choice: RoleChoice) -> None:
    """Finds before the first training whether the networks of the recipes can be compared.

    Raises:
        ModaliftError: a role that does not exist, a choice that is not unique, or a recipe without a network that predicts
            classes.
    """
    networks = []
    for recipe, name in zip(recipes, names, strict=True):
        try:
            students = assemble(recipe, train=False).scheme.students
        except ModaliftError:  # e.g. a teacher that an earlier recipe of the study trains: its own training says so
            return
        networks.append({role: net.view for role, net in students.items() if net.classes})
        if not networks[-1]:
            raise ModaliftError(f"study: '{name}' trains no network that predicts classes, so it cannot be compared - train and"
                                " evaluate it on its own")
    match_roles(networks, [[name, Path(name).name] for name in names], choice)


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
        ModaliftError: a cell whose folder holds another experiment, or one that failed, with its message; finished cells are
            kept.
    """
    monitor = monitor or Monitor()
    waiting = [c for c in cells if not c.finished(folder)]
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
        for job in running:
            job.end()


class _RunningCell:
    """A cell in training: the processes of its commands, one after the other."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell, self.folder, self.started = cell, folder, time.perf_counter()
        self.commands = cell.commands(folder)
        self.messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (an unread pipe would fill and block)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        with starting_processes():
            return subprocess.Popen([sys.executable, "-m", "modalift", *self.commands.pop(0), "--json"],
                                    stdout=subprocess.DEVNULL, stderr=self.messages, text=True)

    def end(self) -> None:
        """Waits until the process that was told to end has closed its files."""
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

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


def summary(cells: Sequence[Cell], folder: Path, choice: RoleChoice = EVERY_RUN, split: str = "test") -> dict[str, Any]:
    """Accuracy of each recipe (all values, mean, standard deviation), and its paired difference to the first recipe.

    Each row also has ``n``, its labeled clips, with ``left_out`` and ``coverage`` (of the first seed) and ``held_out`` (of all
    runs) as in :mod:`~modalift.engine.scope`; accuracies are None where no clip has a label.
    """
    names = list(dict.fromkeys(c.name for c in cells))
    first = [next(c for c in cells if c.name == name).run(folder) for name in names]
    roles = match_roles([networks_of(run) for run in first], [[name, Path(name).name] for name in names], choice)
    found: dict[str, list[Predictions]] = {n: [] for n in names}
    for name, role in zip(names, roles, strict=True):
        for seed in sorted({c.seed for c in cells if c.name == name}):
            parts = [Predictions.load(c.run(folder).predictions_path(role, split))
                     for c in cells if c.name == name and c.seed == seed]
            found[name].append(Predictions.join(parts) if len(parts) > 1 else parts[0])
    rows: list[dict[str, Any]] = []
    for name in names:
        labeled = [int((p.labels >= 0).sum()) for p in found[name]]
        top1 = [float(p.correct.sum() / n) for p, n in zip(found[name], labeled, strict=True) if n]
        compute = [c.run(folder).compute() for c in cells if c.name == name]
        known, _, count = by_known_subject(found[name][0].subjects[found[name][0].labels >= 0])
        rows.append({
            "name": name, "role": roles[len(rows)], "n": min(labeled), "top1": top1, "mean": _mean(top1),
            "sd": float(np.std(top1, ddof=1)) if len(top1) > 1 else None, "epochs": compute[0].get("epochs"),
            "training_macs": _mean(s.get("training_macs") for s in compute),
            "seconds": _mean(s.get("seconds") for s in compute),
            "subjects": count, "unknown_subject": int((~known).sum()),
            **_scope([c for c in cells if c.name == name], folder, roles[len(rows)], split)})
        if name != names[0] and len(found[name]) == len(found[names[0]]) > 1 and min(labeled):
            rows[-1]["against_first"] = paired_seeds(found[names[0]], found[name])
    return {"split": split, "rows": rows, "held_out": joined_held_out([row["held_out"] for row in rows])}


def _scope(cells: Sequence[Cell], folder: Path, role: str, split: str) -> dict[str, Any]:
    """What the results of one recipe are of: the coverage of its first seed, and what all of its runs hold out."""
    results = {c: c.run(folder).results().get(role, {}).get(split, {}) for c in cells}
    first = joined_scope([found for c, found in results.items() if c.seed == cells[0].seed])
    return {**first, "held_out": joined_held_out([found.get("held_out") for found in results.values()])}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return sum(known) / len(known) if known else None
