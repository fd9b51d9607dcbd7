"""Verbs about data: simulate, check, index, derive, cache, look."""

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
    RecipeName,
    dataset_of,
    err,
    print_result,
    recipe_of,
    table_of,
)
from modalift.errors import ModaliftError, nearest, told
from modalift.files import is_file, read_json

verbs = typer.Typer()


@verbs.command(rich_help_panel="Data",
               epilog="Example: `modalift simulate data/darkroom --clips 1600 --workers 2 --sheet sheet.png`")
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write")],
    clips: Annotated[int, typer.Option(help="number of clips")] = 960,
    size: Annotated[int, typer.Option(help="height and width of frames, in pixels")] = 64,
    frames: Annotated[int | None, typer.Option(help="frames per clip; default: 16, or the preset's")] = None,
    lux: Annotated[tuple[float, float], typer.Option(help="lowest and highest illuminance, in lux")] = (1.0, 8.0),
    seed: Annotated[int, typer.Option(help="random seed; the same seed writes identical files")] = 0,
    workers: Annotated[int, typer.Option(help="number of processes")] = 1,
    test_subjects: Annotated[int, typer.Option(help="number of subjects in the test split")] = 5,
    preset: Annotated[str, typer.Option(help="the likeness of a published set: mgr_dark (45 to 210 frames at 25 fps; color,"
                                             " depth and thermal, in the dark and by daylight)")] = "",
    sheet: Annotated[Path | None, typer.Option(
        help="also write a contact sheet to this .png file; if OUT is a simulated dataset, write only the sheet")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a dataset: people who gesture in dark rooms, recorded by five sensors."""
    from modalift import darkroom
    from modalift.report.console import ConsoleMonitor

    if preset and preset not in darkroom.PRESETS:
        raise ModaliftError(f"there is no preset '{preset}' - {nearest(preset, darkroom.PRESETS)}")
    given = {**darkroom.PRESETS.get(preset, {}), "test_subjects": test_subjects}
    if frames is not None:
        given["frames"] = frames
    if sheet is None or not (folder / "dataset.json").is_file():
        with ConsoleMonitor(err).progress("simulating", clips) as update:
            darkroom.simulate(folder, clips=clips, size=size, lux=lux, seed=seed, workers=workers,
                              progress=lambda done, _: update(done, "clips"), **given)
    drawn = darkroom.sheet(sheet, folder) if sheet else None
    print_result(as_json, {"folder": folder, "sheet": drawn},
        f"simulated dataset: {folder} (next: `modalift check {folder}`)" + (f"; contact sheet: {drawn}" if drawn else ""))


@verbs.command(rich_help_panel="Data", epilog="Example: `modalift check recordings/ -o test_subjects=[anna]`")
def check(
    data: DataFolder,
    dataset: DatasetName = "",
    option: DatasetOptions = None,
    quick: Annotated[bool, typer.Option("--quick", help="open every clip without decoding it")] = False,
    as_json: AsJson = False,
) -> None:
    """Summarize a dataset and report the problems in it. Exit code 1: there are errors that must be corrected."""
    from modalift import datasets
    from modalift.loading import check as checking
    from modalift.report import check as checked

    name, options = dataset_of(data, dataset, option)
    table = datasets.open(name, data, **options)
    findings = checking.examine(table, decode=not quick)
    comparison = datasets.compare_with_release(table, name, guessed=not dataset, **options)
    print_result(as_json, checked.as_json(findings, comparison), checked.render(findings, comparison))
    raise typer.Exit(1 if findings.has_errors else 0)


@verbs.command(rich_help_panel="Data", epilog="Example: `modalift index nvgesture data/nvGesture_v1 -o nvgesture.csv`")
def index(
    dataset: Annotated[str, typer.Argument(
        metavar="NAME", help="the dataset's format (`modalift list datasets`), or auto: detected from the folder")],
    data: DataFolder,
    to: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.csv", help="the manifest to write")],
    option: Annotated[list[str] | None, typer.Option(
        "--option", metavar="KEY=VALUE", help="an option of the dataset's format; may be repeated")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the table of a dataset as a manifest, which the dataset csv reads, beside a .json file with its options."""
    from modalift.datasets.writing import write_manifest
    from modalift.modalities import SPLITS

    table = table_of(data, "" if dataset == "auto" else dataset, option)
    written = write_manifest(table, to.parent, to.name)
    clips = {split: n for split in SPLITS if (n := len(table.split(split)))}
    print_result(as_json, {"manifest": written, "options": written.with_suffix(".json"), "clips": clips,
                           "views": list(table.views), "missing": list(table.missing)},
        f"{written}: {', '.join(f'{n} {split}' for split, n in clips.items())} clips with the views {', '.join(table.views)}"
        f" (next: `modalift check {written}`)",
        *([f"{len(table.missing)} clips of the dataset's lists have no recording here, and are left out"]
          if table.missing else []))


@verbs.command(rich_help_panel="Data",
               epilog="Example: `modalift derive flow recordings/ recordings_with_flow/ --method dis`")
def derive(
    what: Annotated[str, typer.Argument(
        metavar="WHAT", help="the view to compute: flow, pose_map, ... (see `modalift list derived`)")],
    data: DataFolder,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write")],
    settings: Annotated[list[str] | None, typer.Argument(
        metavar="KEY=VALUE", help="settings of the computation: sigma=2 for pose_map, bundle=FILE for pseudo_ir")] = None,
    view: Annotated[str, typer.Option(help="the view to compute it from; default: the first suitable one")] = "",
    method: Annotated[str, typer.Option(help="optical flow method, for flow only: dis or farneback")] = "",
    dataset: DatasetName = "",
    option: DatasetOptions = None,
    as_json: AsJson = False,
) -> None:
    """Compute a new view from an existing one, and write a dataset that has both."""
    from modalift import derive as derived
    from modalift.overrides import key_values
    from modalift.report.console import ConsoleMonitor

    given: dict[str, Any] = {k: v for k, v in (("view", view), ("method", method)) if v}
    given |= dict(key_values(settings or [], "setting"))
    table = table_of(data, dataset, option)
    before = set(table.views)
    with ConsoleMonitor(err).progress(f"computing {what}", len(table)) as update:
        table = derived.derive(what, table, folder, **{**given, "progress": lambda done, _: update(done, "clips")})
    made = next(name for name in table.views if name not in before)
    lacking = sum(made not in row.tracks for row in table)
    skipped = folder / "skipped.json"
    unreadable = read_json(skipped, dict, "derive the view again") if is_file(skipped) else {}
    print_result(as_json, {"folder": folder, "clips": len(table), "views": list(table.views), "without": {made: lacking},
                           "left_out": unreadable},
        f"{folder}: {len(table)} clips with the views {', '.join(table.views)}",
        *([f"{lacking} clips lack '{made}': the view that it is computed from is missing, or unreadable (see skipped.json)"]
          if lacking else []), *told(unreadable, f"'{made}' was not computed for"))


@verbs.command(rich_help_panel="Data", epilog="Example: `modalift cache recordings/ cache/ --short-side 256`")
def cache(
    data: DataFolder,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the cache to write; recipes read it with data.cache=OUT")],
    views: Annotated[list[str] | None, typer.Option("--view", help="a view to cache; may be repeated; default: all, or"
                                                        " those of an existing cache")] = None,
    short_side: Annotated[int, typer.Option(
        help="downscale frames so that their shorter side has this many pixels; 0: do not resize", min=0)] = 0,
    codec: Annotated[str, typer.Option(help="compression of the frames: auto, raw, jpeg or lz4")] = "auto",
    dataset: DatasetName = "",
    option: DatasetOptions = None,
    as_json: AsJson = False,
) -> None:
    """Decode a dataset once and store its frames for training. If OUT is its cache, decode only new and changed clips."""
    from modalift.loading.cache_writing import build_cache
    from modalift.report.console import ConsoleMonitor

    table = table_of(data, dataset, option)
    monitor = ConsoleMonitor(err)
    with monitor.progress("decoding", len(table)) as update:
        made = build_cache(table, folder, views, short_side=short_side or None, codec=codec,
                           progress=lambda done, _: update(done, "clips"),
                           waiting=lambda holder: monitor.message(f"{folder}: waiting for {holder}, which writes this cache"))
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print_result(as_json, {"folder": folder, "bytes": size, "left_out": made.skipped},
        f"{folder}: {sum(row.id not in made.skipped for row in table)} clips, {size / 1e6:.1f} MB",
        *told(made.skipped))


@verbs.command(rich_help_panel="Data", epilog="Example: `modalift look darkroom/taught_thermal --out look.png`")
def look(
    recipe: RecipeName,
    overrides: Overrides = None,
    to: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="the image to write")] = Path("look.png"),
    clips: Annotated[int, typer.Option(help="number of clips", min=1)] = 4,
    epoch: Annotated[int, typer.Option(
        help="show the augmentation of this epoch; -1: no augmentation, as in evaluation", min=-1)] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw the exact input of each network: cropped, resized, augmented and normalized clips."""
    from modalift.engine.build import assemble
    from modalift.engine.store import names_folder
    from modalift.report.look import look as draw_inputs
    from modalift.report.look import spread

    asked = recipe_of(recipe, overrides)
    if names_folder(asked) and not Path(asked.data.cache).exists():
        asked = asked.changed({"data.cache": ""})  # the training makes it; the recordings show the same
    experiment = assemble(asked, train=False)
    seen = experiment.clips(experiment.train, experiment.scheme.required_views(), augment=epoch >= 0)
    chosen, left_out = spread(seen, clips, max(epoch, 0))
    nets = {net.view: net for net in experiment.scheme.roles.values()}
    draw_inputs(seen, chosen, to, epoch=max(epoch, 0),
         prepare=lambda view, clip: nets[view].prepare(clip) if view in nets else clip)  # a view that only the scheme reads
    print_result(as_json, {"image": to, "left_out": left_out}, f"inputs of the networks: {to}",
        *told(left_out))
