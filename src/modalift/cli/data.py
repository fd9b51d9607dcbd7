"""Verbs about data: simulate, check, derive, cache, look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modalift.cli.common import (
    AsJson,
    DataFolder,
    DatasetName,
    DatasetOptions,
    Overrides,
    RecipePath,
    err,
    recipe_of,
    say,
    table_of,
)

verbs = typer.Typer()


@verbs.command(rich_help_panel="Data",
               epilog="Example: `modalift simulate data/darkroom --clips 1600 --workers 2 --sheet sheet.png`")
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write")],
    clips: Annotated[int, typer.Option(help="number of clips")] = 960,
    size: Annotated[int, typer.Option(help="height and width in pixels")] = 64,
    frames: Annotated[int, typer.Option(help="frames per clip")] = 16,
    lux: Annotated[tuple[float, float], typer.Option(help="lowest and highest illuminance, in lux")] = (1.0, 8.0),
    seed: Annotated[int, typer.Option(help="random seed: the same seed writes the same bytes")] = 0,
    workers: Annotated[int, typer.Option(help="number of processes")] = 1,
    test_subjects: Annotated[int, typer.Option(help="number of subjects in the test split")] = 5,
    sheet: Annotated[Path | None, typer.Option(
        help="also write a contact sheet to this .png; of a folder that exists, write the sheet alone")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a dataset: people gesture in dark rooms, recorded by five sensors."""
    from modalift import darkroom
    from modalift.report.console import ConsoleMonitor

    if sheet is None or not (folder / "dataset.json").is_file():
        with ConsoleMonitor(err).progress("simulating", clips) as update:
            darkroom.simulate(folder, clips=clips, size=size, frames=frames, lux=lux, seed=seed, workers=workers,
                              test_subjects=test_subjects, progress=lambda done, _: update(done, "clips"))
    drawn = darkroom.sheet(sheet, folder) if sheet else None
    say(as_json, {"folder": folder, "sheet": drawn},
        f"simulated dataset: {folder} (next: `modalift check {folder}`)" + (f"; contact sheet: {drawn}" if drawn else ""))


@verbs.command(rich_help_panel="Data", epilog="Example: `modalift check recordings/ -o test_subjects=[anna]`")
def check(
    data: DataFolder,
    dataset: DatasetName = "",
    option: DatasetOptions = None,
    quick: Annotated[bool, typer.Option("--quick", help="open every clip, but do not decode it")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a dataset contains and what is wrong with it. Exit code 1: a problem that makes results wrong."""
    from modalift.loading import check as checking
    from modalift.report import check as checked

    findings = checking.examine(table_of(data, dataset, option), decode=not quick)
    say(as_json, checked.as_json(findings), checked.render(findings))
    raise typer.Exit(1 if findings.trouble else 0)


@verbs.command(rich_help_panel="Data",
               epilog="Example: `modalift derive flow recordings/ recordings_with_flow/ --method dis`")
def derive(
    what: Annotated[str, typer.Argument(
        metavar="WHAT", help="the view to compute: flow, pose_map, ... (see `modalift list derived`)")],
    data: DataFolder,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write")],
    settings: Annotated[list[str] | None, typer.Argument(
        metavar="KEY=VALUE", help="settings of the computation: sigma=2 for pose_map, bundle=FILE for pseudo_ir")] = None,
    view: Annotated[str, typer.Option(help="the view to compute it from; default: the one that fits")] = "",
    method: Annotated[str, typer.Option(help="of flow: dis or farneback")] = "",
    dataset: DatasetName = "",
    option: DatasetOptions = None,
    as_json: AsJson = False,
) -> None:
    """Compute one view from another, once, and write a dataset that has both."""
    from modalift import derive as derived
    from modalift.overrides import key_values
    from modalift.report.console import ConsoleMonitor

    given: dict[str, Any] = {k: v for k, v in (("view", view), ("method", method)) if v}
    given |= dict(key_values(settings or [], "setting"))
    table = table_of(data, dataset, option)
    with ConsoleMonitor(err).progress(f"computing {what}", len(table)) as update:
        table = derived.derive(what, table, folder, **{**given, "progress": lambda done, _: update(done, "clips")})
    say(as_json, {"folder": folder, "clips": len(table), "views": list(table.views)},
        f"{folder}: {len(table)} clips with the views {', '.join(table.views)}")


@verbs.command(rich_help_panel="Data", epilog="Example: `modalift cache recordings/ cache/ --short-side 256`")
def cache(
    data: DataFolder,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the cache to write; recipes read it with data.cache=OUT")],
    views: Annotated[list[str] | None, typer.Option("--view", help="a view to cache; may be repeated; default: all")] = None,
    short_side: Annotated[int, typer.Option(help="shorter side in pixels to resize frames to; 0: as recorded")] = 0,
    codec: Annotated[str, typer.Option(help="auto, raw, jpeg or lz4")] = "auto",
    dataset: DatasetName = "",
    option: DatasetOptions = None,
    as_json: AsJson = False,
) -> None:
    """Decode a dataset once, so that training need not wait for decoding."""
    from modalift.loading.cache import build_cache
    from modalift.report.console import ConsoleMonitor

    table = table_of(data, dataset, option)
    with ConsoleMonitor(err).progress("decoding", len(table)) as update:
        made = build_cache(table, folder, views or list(table.views), short_side=short_side or None, codec=codec,
                           progress=lambda done, _: update(done, "clips"))
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    say(as_json, {"folder": folder, "bytes": size, "left_out": made.skipped},
        f"{folder}: {len(table) - len(made.skipped)} clips, {size / 1e6:.1f} MB",
        *(f"left out {k}: {v}" for k, v in made.skipped.items()))


@verbs.command(rich_help_panel="Data", epilog="Example: `modalift look recipes/darkroom/taught_thermal.yaml --out look.png`")
def look(
    recipe: RecipePath,
    overrides: Overrides = None,
    to: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="the picture to write")] = Path("look.png"),
    clips: Annotated[int, typer.Option(help="number of clips", min=1)] = 4,
    epoch: Annotated[int, typer.Option(
        help="draw the clips with this epoch's augmentation; -1: without, as in evaluation", min=-1)] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw exactly what each network receives: cropped, resized, augmented and normalized clips."""
    from modalift.engine.build import assemble
    from modalift.report.look import look as draw

    experiment = assemble(recipe_of(recipe, overrides), train=False)
    seen = experiment.clips(experiment.train, experiment.scheme.needs(), augment=epoch >= 0)
    step = max(1, len(seen) // clips)
    nets = {net.view: net for net in experiment.scheme.roles.values()}
    draw(seen, list(range(0, len(seen), step))[:clips], to, epoch=max(epoch, 0),
         prepare=lambda view, clip: nets[view].prepare(clip) if view in nets else clip)  # a view that only the scheme reads
    say(as_json, {"picture": to}, f"what the networks receive: {to}")
