"""Verbs about training and results: train, eval, fuse, compare, diagnose, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalift.cli.common import AsJson, Overrides, RecipeName, RunPath, err, print_result, recipe_of
from modalift.errors import ModaliftError

verbs = typer.Typer()


Split = Annotated[str, typer.Option(metavar="SPLIT", help="test, val or train")]
#: Options that select a network by its role in the recipe, and recipe changes that are given as an option.
OneRole = Annotated[str, typer.Option("--student", metavar="ROLE",
                                      help="the network's role in the recipe; required if the run trained several")]
Students = Annotated[list[str] | None, typer.Option(
    "--student", metavar="[RUN=]ROLE", help="a network's role in the recipe, where runs trained several; of one run: RUN=ROLE;"
                                            " may be repeated; default: networks that read the same view")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE",
                                                   help="a change to the recipe, as section.key=value; may be repeated")]


@verbs.command(rich_help_panel="Training and results", epilog="Example: `modalift train darkroom/labels_only"
               " optim.lr=1e-3 run.seed=1 run.dir=runs/mine`")
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    scale: Annotated[str, typer.Option(
        metavar="tiny", help="'tiny' shrinks the recipe to a few seconds, to test that it runs")] = "",
    match_compute: Annotated[str, typer.Option(
        metavar="RECIPE", help="a recipe or a run folder: train for as many epochs as its training, including that of its "
             "teachers, costs in multiply-accumulates")] = "",
    as_json: AsJson = False,
) -> None:
    """Train the networks of a recipe. Repeat the same command to resume a training that was interrupted or killed."""
    from modalift.engine.compute import match_compute as with_matched_compute
    from modalift.engine.train import train as run_training
    from modalift.report import scope
    from modalift.report.console import ConsoleMonitor

    asked = recipe_of(recipe, overrides, scale)
    if match_compute:
        asked = with_matched_compute(asked, recipe_of(match_compute, None))
    run = run_training(asked, ConsoleMonitor(err))
    compute = run.compute()
    on = f" on {scope.counted({'n': compute['clips'], **compute})}" if compute else ""
    print_result(as_json, {"run": run.folder, "networks": run.roles(), **compute},
        f"trained {', '.join(run.roles()) or 'every fold'}{on} in {run.folder} (next: `modalift eval {run.folder}`)")


@verbs.command("eval", rich_help_panel="Training and results", epilog="Example: `modalift eval runs/mine --split val`")
def evaluate(
    run: RunPath,
    overrides: Overrides = None,
    split: Split = "test",
    student: Annotated[str, typer.Option(metavar="ROLE", help="evaluate only the network in this role; default: every"
                                                              " network that can be deployed")] = "",
    report: Annotated[bool, typer.Option(help="also write report.html")] = True,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run's networks by the recipe's protocol. Every evaluation on the test split is logged in the run."""
    from modalift.engine.evaluate import evaluate as measure
    from modalift.engine.run import open_run
    from modalift.report import results as tables
    from modalift.report.console import ConsoleMonitor

    opened = open_run(run)
    results = measure(opened, split, [student] if student else [], overrides or [], ConsoleMonitor(err))
    if report and not opened.folds():
        from modalift.report.page import write_report

        write_report(run)
    print_result(as_json, {k: tables.brief(v) for k, v in results.items()},
        tables.terminal_tables(results, tables.title_of(results, split)),
        *([f"\nreport: {opened.report_path}"] if report and not opened.folds() else []))


@verbs.command(rich_help_panel="Training and results",
               epilog="Example: `modalift fuse runs/utd_mhad/single_depth/seed0 runs/utd_mhad/single_pose/seed0`")
def fuse(
    runs: Annotated[list[Path], typer.Argument(
        metavar="RUN", help="run folders; all networks that a run trained are used")],
    split: Split = "test",
    student: Annotated[list[str] | None, typer.Option(
        metavar="[RUN=]ROLE", help="of runs that have it, use only the network in this role; of one run: RUN=ROLE; may be"
                                   " repeated")] = None,
    change: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Late fusion: average the class probabilities of several networks, on the clips that have all of their sensors."""
    from modalift.engine.fuse import fuse as fuse_runs
    from modalift.engine.run import open_run
    from modalift.report import results as tables
    from modalift.report.console import ConsoleMonitor

    found = fuse_runs([open_run(run) for run in runs], split, student or [], change or [], ConsoleMonitor(err))
    rows = {**found["members"], "mean of all": found["fusion"]}
    print_result(as_json, {**found, "members": {k: tables.brief(v) for k, v in found["members"].items()},
                  "fusion": tables.brief(found["fusion"])}, tables.terminal_tables(rows, split))


@verbs.command(rich_help_panel="Training and results",
               epilog="Example: `modalift compare runs/labels_only runs/taught --out comparison.html`")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="two or more run folders; the first is the baseline")],
    split: Split = "test",
    student: Students = None,
    to: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="the page to write")] = Path("comparison.html"),
    as_json: AsJson = False,
) -> None:
    """Compare runs on the same clips: paired differences from the first run, with 95 % intervals over clips and subjects."""
    from modalift.engine.roles import RoleChoice
    from modalift.report import terminal
    from modalift.report.compare import compare_runs, write_comparison

    if len(runs) < 2:
        raise ModaliftError("compare needs at least two run folders")
    choice = RoleChoice.parse(student or [])
    found = compare_runs(runs, split=split, choice=choice)
    write_comparison(runs, to, split=split, choice=choice)
    print_result(as_json, found, terminal.comparison(found), f"\npage: {to}")


@verbs.command(rich_help_panel="Training and results", epilog="Example: `modalift diagnose runs/mine --full`")
def diagnose(
    run: RunPath,
    split: Annotated[str, typer.Option(
        metavar="SPLIT", help="test, val or train; default: val, or test if there is no val split")] = "",
    student: OneRole = "",
    full: Annotated[bool, typer.Option(
        "--full", help="also train on eight clips and on shuffled labels (takes minutes)")] = False,
    as_json: AsJson = False,
) -> None:
    """Find out why an accuracy is low: tries changed inputs (reversed, frozen, mirrored, BGR, delayed) and overfitting."""
    from modalift.engine import diagnose as checks
    from modalift.engine.run import open_run
    from modalift.report import diagnosis

    findings = checks.diagnose(open_run(run), full=full, role=student, split=split)
    print_result(as_json, diagnosis.as_json(findings), diagnosis.render(findings))


@verbs.command(rich_help_panel="Training and results",
               epilog="Example: `modalift study ucl_rgbd_gesture/single_rgb MINE.yaml --seeds 3`")
def study(
    context: typer.Context,
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE", help="recipes; the first is the baseline")],
    seeds: Annotated[int, typer.Option(help="number of seeds per recipe (0 .. N-1)", min=1)] = 3,
    folds: Annotated[int, typer.Option(
        help="number of subject-disjoint folds for cross-validation; 0: the dataset's own split", min=0)] = 0,
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="the folder for all runs")] = Path("runs/study"),
    jobs: Annotated[int, typer.Option(help="number of trainings that run at the same time", min=1, max=1024)] = 1,
    student: Students = None,
    change: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Train recipes with several seeds (and folds) and compare each with the first. Finished trainings are reused."""
    from modalift.engine import study as studies
    from modalift.engine.roles import RoleChoice
    from modalift.report import terminal
    from modalift.report.console import ConsoleMonitor

    found = studies.study(recipes, folder, seeds=seeds, folds=folds, jobs=jobs, overrides=change or [],
                          choice=RoleChoice.parse(student or []), plugins=context.find_root().params.get("plugin") or (),
                          monitor=ConsoleMonitor(err))
    print_result(as_json, found, terminal.study(found))
