"""All verbs as one program, and what it reports in one line."""

from __future__ import annotations

import errno
import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from modalift.cli import data, deployment, learning, listing, start
from modalift.cli.common import out, print_error
from modalift.cli.interrupted import explained
from modalift.errors import EXIT_CODE, ModaliftError
from modalift.files import is_file

app = typer.Typer(name="modalift", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False,
                  help="Multimodal training, unimodal deployment: train with several sensors, deploy a network"
                       " that needs one of them. See `modalift VERB --help` for each verb.")
for group in (start, data, listing, learning, deployment):
    for command in group.verbs.registered_commands:
        if command.callback is not None:
            command.callback = explained(command.name or command.callback.__name__, command.callback)
        app.registered_commands.append(command)


@app.callback()
def plugins(plugin: Annotated[list[Path] | None, typer.Option(
        metavar="FILE", help="a Python file that registers your own schemes, networks, modalities or datasets; may be"
                             " repeated")] = None) -> None:
    for path in plugin or []:
        spec = importlib.util.spec_from_file_location(path.stem, path) if is_file(path) else None
        if spec is None or spec.loader is None:
            raise ModaliftError(f"--plugin {path}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ModaliftError(f"--plugin {path}: {type(error).__name__}: {error} - correct the file") from None


def run() -> int:
    """Runs the command line of this process; returns its exit code. A wrong input is reported in one line, with code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names may hold letters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="modalift", standalone_mode=False)
    except ModaliftError as error:
        return wrong(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:  # what no function that knows more has caught
        where = f"{error.filename}: " if error.filename is not None else ""
        advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the path"
        return wrong(f"{where}{error.strerror or error} - {advice} and run the same command again")
    except Exception as error:  # Typer may bundle its own copy of click's errors, so they are recognized by attributes
        if type(error).__name__ == "NoArgsIsHelpError":
            out.print(error.format_message())  # type: ignore[attr-defined]
            return 0
        if is_out_of_memory(error):
            reason = str(error).splitlines()[0][:160] if str(error) else "no reason was given"
            return wrong(f"not enough memory ({reason}) - lower optim.batch, data.size or data.frames, or use fewer clips")
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        verb = context.command_path if context else "modalift"
        return wrong(f"{error.format_message().rstrip('.')} - see `{verb} --help`")
    return code if isinstance(code, int) else 0


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or PyTorch could not get memory; PyTorch has an error of its own for GPUs only."""
    words = ("DefaultCPUAllocator", "array is too big", "Maximum allowed dimension exceeded",
             "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(w in str(error) for w in words)


def wrong(message: str) -> int:
    """Prints an error; returns the exit code for a wrong input."""
    print_error(message)
    return EXIT_CODE
