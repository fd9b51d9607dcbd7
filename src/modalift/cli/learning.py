"""Verbs about training and results: train, eval, fuse, compare, diagnose, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalift.cli.common import AsJson, Overrides, RecipePath, RunPath, err, recipe_of, say
from modalift.errors import ModaliftError

verbs = typer.Typer()


Split = Annotated[str, typer.Option(metavar="SPLIT", help="test, val or train")]
#: Options that name networks by their role in the recipe, and changes that are given as an option.
OneRole = Annotated[str, typer.Option("--student", metavar="ROLE",
                                      help="the network's role in the recipe; needed where a run trained several")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE",
                                                   help="a change to the recipe, as section.key=value; may be repeated")]


@verbs.command(rich_help_panel="Training and results", epilog="Example: `modalift train recipes/darkroom/labels_only.yaml"
               " optim.lr=1e-3 run.seed=1 run.dir=runs/mine`")
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    scale: Annotated[str, typer.Option(metavar="tiny", help="'tiny' shrinks any recipe to seconds, to test that it runs")] = "",
    match_compute: Annotated[Path | None, typer.Option(
        help="a run or a recipe: train for as many epochs as cost the same multiply-accumulates as it and its "
             "teachers' trainings")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe. The same command resumes a training that was interrupted or killed."""
    from modalift.engine.compute import match_compute as matched
    from modalift.engine.train import train as run_training
    from modalift.report.console import ConsoleMonitor

    asked = recipe_of(recipe, overrides, scale)
    if match_compute:
        asked = matched(asked, recipe_of(match_compute, None))
    if recipe.is_dir():
        asked = asked.changed({"run.dir": recipe})
    run = run_training(asked, ConsoleMonitor(err))
    say(as_json, {"run": run.folder, "networks": run.roles(), **run.compute()},
        f"trained {', '.join(run.roles()) or 'every fold'} in {run.folder} (next: `modalift eval {run.folder}`)")


@verbs.command("eval", rich_help_panel="Training and results", epilog="Example: `modalift eval runs/mine --split val`")
def evaluate(
    run: RunPath,
    overrides: Overrides = None,
    split: Split = "test",
    student: Annotated[str, typer.Option(metavar="ROLE", help="only the network in this role; default: every network that "
                                                              "can be deployed")] = "",
    report: Annotated[bool, typer.Option(help="also write report.html")] = True,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run's networks by the recipe's protocol. Every evaluation on the test split is recorded in a ledger."""
    from modalift.engine.evaluate import evaluate as measure
    from modalift.engine.run import open_run
    from modalift.report import results as tables

    opened = open_run(run)
    results = measure(opened, split, [student] if student else [], overrides or [])
    if report and not opened.folds():
        from modalift.report.page import write_report

        write_report(run)
    say(as_json, {k: tables.brief(v) for k, v in results.items()}, tables.terminal_tables(results, split),
        *([f"\nreport: {opened.report}"] if report and not opened.folds() else []))


@verbs.command(rich_help_panel="Training and results",
               epilog="Example: `modalift fuse runs/utd_mhad/single_depth/seed0 runs/utd_mhad/single_pose/seed0`")
def fuse(
    runs: Annotated[list[Path], typer.Argument(
        metavar="RUN", help="run folders; a run that trained several networks contributes all")],
    split: Split = "test",
    student: Annotated[list[str] | None, typer.Option(
        metavar="ROLE", help="only networks in this role; may be repeated")] = None,
    change: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Late fusion: average the class probabilities of several networks, on the clips that all their sensors recorded."""
    from modalift.engine.fuse import fuse as fusing
    from modalift.engine.run import open_run
    from modalift.report import results as tables

    found = fusing([open_run(run) for run in runs], split, student or [], change or [])
    rows = {**found["members"], "mean of all": found["fusion"]}
    left = found["left_out"]
    say(as_json, {**found, "members": {k: tables.brief(v) for k, v in found["members"].items()},
                  "fusion": tables.brief(found["fusion"])}, tables.terminal_tables(rows, split),
        *([f"left out: {left} clips that lack one of the sensors"] if left else []))


@verbs.command(rich_help_panel="Training and results",
               epilog="Example: `modalift compare runs/labels_only runs/taught --out comparison.html`")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="two or more run folders; the first is the baseline")],
    split: Split = "test",
    student: OneRole = "",
    to: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="the page to write")] = Path("comparison.html"),
    as_json: AsJson = False,
) -> None:
    """Compare runs on the same clips: paired differences to the first, with intervals over clips and over subjects."""
    from modalift.report import terminal
    from modalift.report.compare import compare_runs, write_comparison

    if len(runs) < 2:
        raise ModaliftError("compare needs two run folders or more")
    found = compare_runs(runs, split=split, role=student)
    write_comparison(runs, to, split=split, role=student)
    say(as_json, found, terminal.comparison(found), f"\npage: {to}")


@verbs.command(rich_help_panel="Training and results", epilog="Example: `modalift diagnose runs/mine --full`")
def diagnose(
    run: RunPath,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="default: val, or test where there is no val")] = "",
    student: OneRole = "",
    full: Annotated[bool, typer.Option(
        "--full", help="also overfit eight clips, and train on shuffled labels (minutes)")] = False,
    as_json: AsJson = False,
) -> None:
    """Find out why an accuracy is low: clips reversed, frozen, mirrored, BGR or late, overfitting, a bundle that differs."""
    from modalift.engine import diagnose as checks
    from modalift.engine.run import open_run
    from modalift.report import diagnosis

    findings = checks.diagnose(open_run(run), full=full, role=student, split=split)
    say(as_json, diagnosis.as_json(findings), diagnosis.render(findings))


@verbs.command(rich_help_panel="Training and results",
               epilog="Example: `modalift study recipes/ucl_rgbd_gesture/single_rgb.yaml MINE.yaml --seeds 3`")
def study(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE", help="recipes; the first is the baseline")],
    seeds: Annotated[int, typer.Option(help="number of seeds per recipe (0 .. N-1)", min=1)] = 3,
    folds: Annotated[int, typer.Option(help="subject-disjoint folds of cross-validation; 0: the dataset's own split")] = 0,
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="the folder for all runs")] = Path("runs/study"),
    jobs: Annotated[int, typer.Option(help="number of trainings at the same time", min=1)] = 1,
    change: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Train recipes with several seeds (and folds) and compare them in pairs. Finished trainings are reused."""
    from modalift.engine import study as studying
    from modalift.report import terminal
    from modalift.report.console import ConsoleMonitor

    found = studying.study(recipes, folder, seeds=seeds, folds=folds, jobs=jobs, overrides=change or [],
                           monitor=ConsoleMonitor(err))
    say(as_json, found, terminal.study(found))
