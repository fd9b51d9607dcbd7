"""The command line, `modalift VERB`: one file per group of verbs.

Verbs import what they need when they run, so that `--help` and usage errors are fast, and so that :func:`main` can configure
OpenMP before PyTorch is loaded.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from modalift.cli import data, deployment, learning, listing, start
from modalift.cli.common import out, print_error
from modalift.errors import EXIT_CODE, ModaliftError

app = typer.Typer(name="modalift", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False,
                  help="Multimodal training, unimodal deployment: train with several sensors, deploy a network"
                       " that needs one of them. See `modalift VERB --help` for each verb.")
for group in (start, data, listing, learning, deployment):
    app.registered_commands += group.verbs.registered_commands


@app.callback()
def plugins(plugin: Annotated[list[Path] | None, typer.Option(
        metavar="FILE", help="a Python file that registers your own schemes, networks, modalities or datasets; may be"
                             " repeated")] = None) -> None:
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


def main() -> None:
    """Entry point: reports a wrong input in one line on standard error and exits with code 2."""
    # Idle OpenMP threads that spin slow down everything else on a shared machine. PyTorch reads these when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        code = app(prog_name="modalift", standalone_mode=False)
    except ModaliftError as error:
        print_error(str(error))
        code = EXIT_CODE
    except KeyboardInterrupt:
        code = interrupted()
    except Exception as error:  # Typer may bundle its own copy of click's errors, so they are recognized by attributes
        kind = type(error).__name__
        if kind == "Abort":
            code = interrupted()
        elif kind == "NoArgsIsHelpError":
            out.print(error.format_message(), markup=False)  # type: ignore[attr-defined]
            code = 0
        elif hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            verb = context.command_path if context else "modalift"
            print_error(f"{error.format_message().rstrip('.')} - see `{verb} --help`")
            code = EXIT_CODE
        else:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def interrupted() -> int:
    print_error("interrupted - run the same command again to resume")
    return 130
