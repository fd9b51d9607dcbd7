"""Verbs about the network that is deployed: ship, predict, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalift.cli.common import AsJson, RunPath, err, print_error, print_result
from modalift.errors import grouped

verbs = typer.Typer()


BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a bundle written by `modalift ship`")]


@verbs.command(rich_help_panel="Deployment", epilog="Example: `modalift ship runs/mine -o dark.modalift`")
def ship(
    run: RunPath,
    to: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="the bundle to write")] = Path("student.modalift"),
    student: Annotated[str, typer.Option(metavar="ROLE", help="the network's role in the recipe; required if the run trained"
                                                              " several")] = "",
    as_json: AsJson = False,
) -> None:
    """Write a bundle: one file with the network to deploy, its preprocessing and its class names."""
    from modalift.engine.run import open_run
    from modalift.engine.ship import ship as ship_run
    from modalift.report.console import ConsoleMonitor

    summary = ship_run(open_run(run), student, to, ConsoleMonitor(err))
    print_result(as_json, summary, f"{to}: reads {summary['view']}, {summary['parameters']:,} parameters,"
                                   f" {summary['bytes'] / 1e6:.2f} MB (next: `modalift predict {to} CLIP`)")


@verbs.command(rich_help_panel="Deployment", epilog="Example: `modalift predict dark.modalift clip.mp4 --json`")
def predict(
    bundle: BundlePath,
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP", help="videos, folders of images, or .npz signals")],
    top: Annotated[int, typer.Option(help="number of classes to print, the most probable first", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Predict the class of clips with a bundle. Exit code 2: some clips could not be read; the others are still predicted."""
    from modalift.deploy import predict as predicting
    from modalift.models import load
    from modalift.report import predictions

    predicted = predicting.predict_many(load(bundle), clips, top=top)
    read = [f for f in predicted if not f.error]
    if read or as_json:
        print_result(as_json, predictions.as_json(predicted), predictions.render(read))
    for _, error, n in grouped((failed.clip, failed.error) for failed in predicted if failed.error):
        print_error(f"{n} clips cannot be predicted, the first: {error}" if n > 1 else error)
    raise typer.Exit(predicting.exit_code(predicted))


@verbs.command(rich_help_panel="Deployment", epilog="Example: `modalift export dark.modalift -o dark.onnx`")
def export(
    bundle: BundlePath,
    to: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.onnx", help="the ONNX file to write")],
    as_json: AsJson = False,
) -> None:
    """Export a bundle to ONNX, and verify that ONNX Runtime's outputs equal PyTorch's."""
    from modalift.deploy.export import export_onnx
    from modalift.models import load

    report = export_onnx(load(bundle), to)
    print_result(as_json, vars(report), f"{to}: one input; largest difference from PyTorch: {report.difference:.1e} of the"
                                        " largest output")
