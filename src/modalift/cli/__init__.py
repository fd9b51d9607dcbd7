"""The command line, `modalift VERB`: one file per group of verbs.

Verbs import what they need when they run, so that `--help` and usage errors are fast, and so that :func:`main` can configure
OpenMP before PyTorch is loaded. This file imports next to nothing, so that Ctrl-C has its one line from the start.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Any

from modalift import interruption


def main() -> None:
    """Entry point: reports a wrong input in one line on standard error and exits with code 2."""
    # Idle OpenMP threads that spin slow down everything else on a shared machine. PyTorch reads these when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    with interruption.watched():
        code = _run()
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # nothing is left to do that a late Ctrl-C could stop
    sys.exit(code)


def _run() -> int:
    """Runs a command line; returns its exit code."""
    kept = "nothing was changed - run the same command again"
    try:
        from modalift.cli.program import run

        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (interruption.Interrupted, KeyboardInterrupt) as error:
        return _interrupted(getattr(error, "number", signal.SIGINT), getattr(error, "kept", "") or kept)
    except BaseException as error:
        if isinstance(error, SystemExit) or not interruption.arrives():
            raise
        return _interrupted(interruption.arrived(), kept)  # a library made another error of it


def _interrupted(number: int, kept: str) -> int:
    if os.environ.get("RANK", "0") == "0":  # of several processes of one training, one speaks
        what = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        sys.stderr.write(f"error {what} - {kept.replace(' - ', '; ')}\n")
    return 128 + number


def __getattr__(name: str) -> Any:
    if name == "app":
        from modalift.cli.program import app

        return app
    raise AttributeError(f"module 'modalift.cli' has no attribute '{name}'")
