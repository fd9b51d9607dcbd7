"""The command line: `modalift VERB`."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from modalift.errors import EXIT_CODE, ModaliftError

if TYPE_CHECKING:
    from modalift.modalities import Table

app = typer.Typer(name="modalift", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False,
                  help="Train with every sensor there is; ship a network that needs one of them.")
# Into a file or a pipe there is no width to keep to: tables must not be cut.
out, err = Console(width=None if sys.stdout.isatty() else 160), Console(stderr=True)

Overrides = Annotated[list[str] | None, typer.Argument(help="changes to the recipe, as section.key=value")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
RecipePath = Annotated[Path, typer.Argument(help="a recipe file, or a run folder")]
RunPath = Annotated[Path, typer.Argument(help="a run folder")]
Scale = Annotated[str, typer.Option(help="'tiny' shrinks any recipe to seconds, to test its wiring")]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="the dataset's options, as key=value")]


def say(as_json: bool, data: Any, *renderables: Any) -> None:
    """One result, for a person or for a program."""
    if as_json:
        print(json.dumps(data, default=str))
    else:
        # Text, not str: names of files and classes may hold brackets, which are markup to Rich.
        for part in renderables:
            out.print(Text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))


def recipe_of(path: Path, overrides: list[str] | None, scale: str = "") -> Any:
    from modalift.recipe import TINY, load_recipe

    if scale not in ("", "tiny"):
        raise ModaliftError(f"--scale {scale}: only 'tiny' is known")
    return load_recipe(path, [*(TINY if scale else ()), *(overrides or [])])


def table_of(data: Path, dataset: str, options: list[str] | None) -> Table:
    """The table of a folder: of the named dataset, or of whichever fits."""
    from modalift import datasets

    return datasets.open(dataset or datasets.guess(data), data, **key_values(options, "option"))


def key_values(texts: list[str] | None, what: str) -> dict[str, Any]:
    """``key=value`` texts, the values in YAML's spelling."""
    from modalift.recipe import yaml_value

    given = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ModaliftError(f"{what} '{text}' is not of the form key=value")
        given[key] = yaml_value(value, f"{what} '{text}'")
    return given


@app.callback()
def common(plugin: Annotated[list[Path] | None, typer.Option(
        help="a Python file of yours that registers schemes, networks, modalities or datasets")] = None) -> None:
    for path in plugin or []:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise ModaliftError(f"--plugin {path}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ModaliftError(f"--plugin {path}: {type(error).__name__}: {error} - correct the file") from None


# ---- data -----------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: `modalift simulate data/darkroom --clips 1600 --workers 2 --sheet sheet.png`")
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to make")],
    clips: Annotated[int, typer.Option(help="clips in all")] = 960,
    size: Annotated[int, typer.Option(help="height and width in pixels")] = 64,
    frames: Annotated[int, typer.Option(help="frames a clip")] = 16,
    lux: Annotated[tuple[float, float], typer.Option(help="darkest and brightest illuminance")] = (1.0, 8.0),
    seed: Annotated[int, typer.Option(help="same seed, same bytes")] = 0,
    workers: Annotated[int, typer.Option(help="processes")] = 1,
    test_subjects: Annotated[int, typer.Option(help="subjects of the test split")] = 5,
    sheet: Annotated[Path | None, typer.Option(
        help="also draw a contact sheet to this .png; of a folder that is there already, only draw")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a dataset of simulated people who gesture in dark rooms, seen by five sensors."""
    from modalift import darkroom
    from modalift.engine.logs import progress_bar

    if sheet is None or not (folder / "dataset.json").is_file():
        with progress_bar(err) as bar:
            task = bar.add_task("simulating", total=clips, says="clips")
            darkroom.simulate(folder, clips=clips, size=size, frames=frames, lux=lux, seed=seed, workers=workers,
                              test_subjects=test_subjects, progress=lambda done, _: bar.update(task, completed=done))
    drawn = darkroom.sheet(sheet, folder) if sheet else None
    say(as_json, {"folder": folder, "sheet": drawn},
        f"simulated clips: {folder} (`modalift check {folder}` says what is in it)"
        + (f"; contact sheet: {drawn}" if drawn else ""))


@app.command(epilog="Example: `modalift check recordings/ -o test_subjects=[anna]`")
def check(
    data: Annotated[Path, typer.Argument(help="a dataset's folder")],
    dataset: Annotated[str, typer.Option(help="how to read it (`modalift list datasets`); by default, what fits")] = "",
    option: Options = None,
    quick: Annotated[bool, typer.Option("--quick", help="do not decode every clip")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a dataset holds and what is wrong with it; exits with 1 on real trouble."""
    from modalift.loading import doctor

    findings = doctor.examine(table_of(data, dataset, option), decode=not quick)
    say(as_json, doctor.as_json(findings), doctor.render(findings))
    raise typer.Exit(1 if findings.trouble else 0)


@app.command(epilog="Example: `modalift derive flow recordings/ recordings_with_flow/ --method dis`")
def derive(
    what: Annotated[str, typer.Argument(help="flow, pose_map, ... (`modalift list derived`)")],
    data: Annotated[Path, typer.Argument(help="a dataset's folder")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write")],
    settings: Annotated[list[str] | None, typer.Argument(
        help="of what is computed, as key=value: bundle=irt.modalift for pseudo_ir, sigma=2 for pose_map")] = None,
    view: Annotated[str, typer.Option(help="the view to compute it from")] = "",
    method: Annotated[str, typer.Option(help="flow: dis or farneback")] = "",
    dataset: Annotated[str, typer.Option(help="how to read the data")] = "",
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """Compute a view from another one, once, and write a dataset that has both."""
    from modalift import derive as derived

    given: dict[str, Any] = {k: v for k, v in (("view", view), ("method", method)) if v}
    given |= key_values(settings, "setting")
    table = derived.derive(what, table_of(data, dataset, option), folder, **given)
    say(as_json, {"folder": folder, "clips": len(table), "views": list(table.views)},
        f"{len(table)} clips with the views {', '.join(table.views)} in {folder}")


@app.command(epilog="Example: `modalift cache recordings/ cache/ --short-side 256`")
def cache(
    data: Annotated[Path, typer.Argument(help="a dataset's folder")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the cache folder; give it to recipes as data.cache")],
    views: Annotated[list[str] | None, typer.Option("--view", help="which views; by default all")] = None,
    short_side: Annotated[int, typer.Option(help="resize to this short side first; 0: as recorded")] = 0,
    codec: Annotated[str, typer.Option(help="auto, raw, jpeg or lz4")] = "auto",
    dataset: Annotated[str, typer.Option(help="how to read the data")] = "",
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """Decode a dataset once, so that training is not bound by it."""
    from modalift.loading.cache import build_cache

    table = table_of(data, dataset, option)
    made = build_cache(table, folder, views or list(table.views), short_side=short_side or None, codec=codec)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    say(as_json, {"folder": folder, "bytes": size, "left_out": made.skipped},
        f"{len(table) - len(made.skipped)} clips, {size / 1e6:.1f} MB in {folder}",
        *(f"left out {k}: {v}" for k, v in made.skipped.items()))


@app.command(epilog="Example: `modalift look recipes/darkroom/taught_thermal.yaml --out look.png`")
def look(
    recipe: RecipePath,
    overrides: Overrides = None,
    to: Annotated[Path, typer.Option("--out", help="the picture to write")] = Path("look.png"),
    clips: Annotated[int, typer.Option(help="how many clips", min=1)] = 4,
    epoch: Annotated[int, typer.Option(help="which epoch's augmentation; -1: none, as in evaluation", min=-1)] = 0,
) -> None:
    """Draw exactly what each network receives."""
    from modalift.engine.experiment import assemble
    from modalift.report.look import look as draw

    experiment = assemble(recipe_of(recipe, overrides), train=False)
    seen = experiment.clips(experiment.train, experiment.scheme.needs(), augment=epoch >= 0)
    step = max(1, len(seen) // clips)
    nets = {net.view: net for net in experiment.scheme.roles.values()}
    draw(seen, list(range(0, len(seen), step))[:clips], to, epoch=max(epoch, 0),
         prepare=lambda view, clip: nets[view].prepare(clip) if view in nets else clip)  # what only the scheme looks at
    out.print(f"what the networks receive: {to}")


# ---- what there is --------------------------------------------------------------------------------------------------


@app.command("list", epilog="Example: `modalift list networks`")
def list_things(
    what: Annotated[str, typer.Argument(help="schemes, networks, modalities, datasets, derived or recipes")] = "schemes",
    as_json: AsJson = False,
) -> None:
    """List what is registered."""
    from modalift.report import listing

    data, table = listing.listing(what)
    say(as_json, data, table)


@app.command(epilog="Example: `modalift explain recipes/utd_mhad/distill_pose.yaml`")
def explain(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print the cast before any training: who sees what, learns, ships, at what cost, and who teaches whom."""
    from modalift.engine.experiment import assemble
    from modalift.report import explain as explaining

    experiment = assemble(recipe_of(recipe, overrides), train=False)
    say(as_json, explaining.as_json(experiment), explaining.render(experiment))


@app.command(epilog="Example: `modalift cost tsm backbone=resnet50 --classes 83 --input 3x8x224x224 --paper-msd`")
def cost(
    network: Annotated[str, typer.Argument(help="a family: `modalift list networks`")],
    options: Annotated[list[str] | None, typer.Argument(help="its options, as key=value")] = None,
    classes: Annotated[int, typer.Option(help="number of classes")] = 27,
    clip: Annotated[str | None, typer.Option("--input", metavar="CxTxHxW", help="channels, frames, height and width of a "
                                             "clip, such as 3x8x224x224, or 60x32x1x1 for a signal; by default the "
                                             "family's")] = None,
    paper_msd: Annotated[bool, typer.Option("--paper-msd", help="also what the MSD paper's GFLOPs columns say")] = False,
    as_json: AsJson = False,
) -> None:
    """Count a network's parameters, multiply-accumulates and the activations that a backward pass keeps."""
    from modalift.networks import has_classes
    from modalift.recipe import yaml_value
    from modalift.report import costing

    given = {}
    for text in options or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ModaliftError(f"option '{text}' is not of the form key=value")
        given[key] = yaml_value(value, f"{key}=")
    extents = costing.clip_of(network) if clip is None else costing.read_extents(clip)
    found = costing.figures(costing.make(network, classes, extents, given), extents, paper_msd)
    told = {"classes": classes} if has_classes(network) else {}
    named = ", ".join([" ".join([network, *(options or [])]), *(f"{v} {k}" for k, v in told.items())])
    say(as_json, {"network": network, "options": given, **told, "input": str(extents), **found},
        costing.render(f"{named}, a clip of {str(extents).replace('x', ' x ')}", found),
        *([costing.LEGACY_NOTE] if paper_msd else []))


# ---- learning -------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: `modalift train recipes/darkroom/labels_only.yaml optim.lr=1e-3 run.seed=1 run.dir=runs/mine`")
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    scale: Scale = "",
    match_compute: Annotated[Path | None, typer.Option(
        help="a run or a recipe: train for as many epochs as spend what it spends, its teachers included")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe. The same command goes on where it was stopped, killed or out of power."""
    from modalift.engine.train import match_compute as matched
    from modalift.engine.train import train as run_training

    asked = recipe_of(recipe, overrides, scale)
    if match_compute:
        asked = matched(asked, recipe_of(match_compute, None))
    if recipe.is_dir():
        asked.run.dir = recipe
    run = run_training(asked, err)
    say(as_json, {"run": run.folder, "networks": run.roles(), **run.compute()},
        f"trained {', '.join(run.roles()) or 'every fold'} in {run.folder}; `modalift eval {run.folder}` evaluates it")


@app.command("eval", epilog="Example: `modalift eval runs/mine --split val`")
def evaluate(
    run: RunPath,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="test, val or train")] = "test",
    student: Annotated[str, typer.Option(help="which network; by default all that may ship")] = "",
    report: Annotated[bool, typer.Option(help="also write report.html")] = True,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run's networks by the recipe's protocol; looks at the test split are kept in a ledger."""
    from modalift.engine.evaluate import evaluate as measure
    from modalift.engine.run import open_run
    from modalift.report import terminal

    opened = open_run(run)
    results = measure(opened, split, [student] if student else [], overrides or [])
    if report and not opened.folds():
        from modalift.report.page import write_report

        write_report(run)
    say(as_json, {k: terminal.brief(v) for k, v in results.items()}, terminal.results(results, split),
        *([f"\nreport: {run / 'report.html'}"] if report and not opened.folds() else []))


@app.command(epilog="Example: `modalift fuse runs/utd_mhad/single_depth/seed0 runs/utd_mhad/single_pose/seed0`")
def fuse(
    runs: Annotated[list[Path], typer.Argument(help="run folders; one that trained several networks gives all of them")],
    split: Annotated[str, typer.Option(help="test, val or train")] = "test",
    student: Annotated[list[str] | None, typer.Option(help="only the networks in these roles")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, as for `modalift eval`")] = None,
    as_json: AsJson = False,
) -> None:
    """Late fusion: the mean of several networks' probabilities, on the clips that all of them saw."""
    from modalift.engine.fusion import fuse as fusing
    from modalift.engine.run import open_run
    from modalift.report import terminal

    found = fusing([open_run(run) for run in runs], split, student or [], change or [])
    rows = {**found["members"], "their mean": found["fusion"]}
    left = found["left_out"]
    say(as_json, {**found, "members": {k: terminal.brief(v) for k, v in found["members"].items()},
                  "fusion": terminal.brief(found["fusion"])}, terminal.results(rows, split),
        *([f"{left} clips that not all of them saw were left out"] if left else []))


@app.command(epilog="Example: `modalift compare runs/labels_only runs/taught --out comparison.html`")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="two run folders or more; the first is the baseline")],
    split: Annotated[str, typer.Option(help="test or val")] = "test",
    student: Annotated[str, typer.Option(help="which network, where a run trained several")] = "",
    to: Annotated[Path, typer.Option("--out", help="the page to write")] = Path("comparison.html"),
    as_json: AsJson = False,
) -> None:
    """Compare runs on the same clips, in pairs: differences with intervals over clips and over subjects."""
    from modalift.report import terminal
    from modalift.report.compare import compare_runs, write_comparison

    if len(runs) < 2:
        raise ModaliftError("compare needs two run folders or more")
    found = compare_runs(runs, split=split, role=student)
    write_comparison(runs, to, split=split, role=student)
    say(as_json, found, terminal.comparison(found), f"\npage: {to}")


@app.command(epilog="Example: `modalift diagnose runs/mine --full`")
def diagnose(run: RunPath, full: Annotated[bool, typer.Option(
        "--full", help="also overfit eight clips and train on shuffled labels (minutes)")] = False,
        as_json: AsJson = False) -> None:
    """Ask why an accuracy is wrong: reversed, frozen, mirrored, BGR and misaligned clips, and more."""
    from modalift.engine import diagnose as doctor
    from modalift.engine.run import open_run

    findings = doctor.diagnose(open_run(run), full=full)
    say(as_json, doctor.as_json(findings), doctor.render(findings))


@app.command(epilog="Example: `modalift study recipes/ucl_rgbd_gesture/single_rgb.yaml MINE.yaml --seeds 3`")
def study(
    recipes: Annotated[list[Path], typer.Argument(help="recipes; the first is the baseline")],
    seeds: Annotated[int, typer.Option(help="seeds 0 .. N-1 of each", min=1)] = 3,
    folds: Annotated[int, typer.Option(help="cross-validation over subjects; 0: the dataset's split")] = 0,
    folder: Annotated[Path, typer.Option("--out", help="where the runs go")] = Path("runs/study"),
    jobs: Annotated[int, typer.Option(help="trainings at a time", min=1)] = 1,
    change: Annotated[list[str] | None, typer.Option("--set", help="section.key=value for every recipe")] = None,
    as_json: AsJson = False,
) -> None:
    """Train recipes with several seeds (and folds), finished cells reused, and compare them in pairs."""
    from modalift.engine import study as studying
    from modalift.report import terminal

    found = studying.study(recipes, folder, seeds=seeds, folds=folds, jobs=jobs, overrides=change or [], console=err)
    say(as_json, found, terminal.study(found))


# ---- what goes home -------------------------------------------------------------------------------------------------


@app.command(epilog="Example: `modalift ship runs/mine -o dark.modalift`")
def ship(
    run: RunPath,
    to: Annotated[Path, typer.Option("--out", "-o", help="the bundle to write")] = Path("student.modalift"),
    student: Annotated[str, typer.Option(help="which network, where a run trained several")] = "",
    as_json: AsJson = False,
) -> None:
    """Write the file that goes home: one network, its preprocessing and class names, nothing else."""
    from modalift.engine.run import open_run
    from modalift.engine.ship import ship as shipping

    facts = shipping(open_run(run), student, to)
    say(as_json, facts, f"{to}: reads {facts['view']}, {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.2f} MB;"
                        f" `modalift predict {to} CLIP` asks it")


@app.command(epilog="Example: `modalift predict dark.modalift clip.mp4 --json`")
def predict(
    bundle: Annotated[Path, typer.Argument(help="a bundle that `modalift ship` wrote")],
    clips: Annotated[list[Path], typer.Argument(help="videos, folders of images, or .npz signals")],
    top: Annotated[int, typer.Option(help="how many answers", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Ask a bundle what clips show."""
    from modalift.deploy import bundle as deploying
    from modalift.deploy import predict as predicting

    found = predicting.predict_many(deploying.load(bundle), clips, top=top)
    answered = [f for f in found if not f.error]
    if answered or as_json:
        say(as_json, predicting.as_json(found), predicting.render(answered))
    for failed in found:
        if failed.error:
            complain(failed.error)
    raise typer.Exit(predicting.exit_code(found))


@app.command(epilog="Example: `modalift export dark.modalift -o dark.onnx`")
def export(
    bundle: Annotated[Path, typer.Argument(help="a bundle that `modalift ship` wrote")],
    to: Annotated[Path, typer.Option("--out", "-o", help="the ONNX file to write")],
    as_json: AsJson = False,
) -> None:
    """Export a bundle to ONNX, and refuse to where the answers differ."""
    from modalift.deploy import bundle as deploying
    from modalift.deploy.export import export_onnx

    report = export_onnx(deploying.load(bundle), to)
    say(as_json, vars(report), f"{to}: one input, largest difference {report.difference:.1e} of the largest answer")


def main() -> None:
    """Entry point: a wrong input is one line on standard error and exit code 2."""
    try:
        code = app(prog_name="modalift", standalone_mode=False)
    except ModaliftError as error:
        complain(str(error))
        code = EXIT_CODE
    except KeyboardInterrupt:
        code = stopped()
    except Exception as error:  # typer brings its own copy of click's errors, or not: they are told by what they have
        kind = type(error).__name__
        if kind == "Abort":
            code = stopped()
        elif kind == "NoArgsIsHelpError":
            out.print(Text(error.format_message()))  # type: ignore[attr-defined]
            code = 0
        elif hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            verb = context.command_path if context else "modalift"
            complain(f"{error.format_message().rstrip('.')} - `{verb} --help` explains")
            code = EXIT_CODE
        else:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def stopped() -> int:
    complain("stopped - the same command goes on where it was")
    return 130


def complain(message: str) -> None:
    """One line on standard error."""
    err.print(Text.assemble(("error ", "bold red"), " ".join(message.split("\n"))), soft_wrap=True)


if __name__ == "__main__":
    main()
