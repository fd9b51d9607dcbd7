"""The verb to start with: demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalift.cli.common import AsJson, err, out, print_result
from modalift.errors import ModaliftError

verbs = typer.Typer()


@verbs.command(rich_help_panel="Start here", epilog="Example: `modalift demo --scale tiny`")
def demo(
    scale: Annotated[str, typer.Option(metavar="full|tiny", help="tiny: a test run in seconds")] = "full",
    folder: Annotated[Path | None, typer.Option(
        "--out", metavar="FOLDER", help="the folder for all files; default: runs/demo, or runs/demo-tiny")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate, train, compare and deploy in minutes: a thermal camera in training improves a color camera in the dark."""
    from modalift.demo import demo as run

    if scale not in ("full", "tiny"):
        raise ModaliftError(f"--scale {scale}: only 'full' and 'tiny' are available")
    tiny = scale == "tiny"
    result = run(folder or Path("runs/demo-tiny" if tiny else "runs/demo"), tiny, err if as_json else out)
    print_result(as_json, result)
