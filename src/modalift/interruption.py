"""Ctrl-C and the signals that end a program: one exception, so that whatever is open is closed and removed, and one message.

Python raises KeyboardInterrupt for Ctrl-C only, which libraries catch and turn into something else, and dies of the others.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

#: Signals that end a program: Ctrl-C, `kill` (also from job schedulers), and the end of the terminal's session.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Repeats of a signal after which the process ends at once, without closing anything.
_PATIENCE = 3
#: Seconds after which an exception that was dropped is raised again.
_AGAIN_S = 0.5


class Interrupted(BaseException):
    """A signal that ends the program.

    Attributes:
        number: of the signal.
        kept: what is kept and what to do, if that is known.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number
        self.kept = ""

    @property
    def exit_code(self) -> int:
        """As shells give it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


#: The signals that arrived, in order. An exception that one raises inside a library may come out as another one.
_arrived: list[int] = []
#: As many entries as there are :func:`shielded` blocks around the present line.
_shields: list[None] = []


def arrived() -> int:
    """The number of the first signal that arrived, or 0."""
    return _arrived[0] if _arrived else 0


def arrives(seconds: float = 0.1) -> int:
    """As :func:`arrived`, for an error that another process's end may have caused: its own signal may come a little later."""
    with suppress(Interrupted):
        time.sleep(0 if arrived() else seconds)
    return arrived()


@contextmanager
def watched() -> Iterator[None]:
    """Within it a signal of :data:`SIGNALS` raises :class:`Interrupted` in the main thread; one that is ignored stays so.

    Where a library drops the exception (a bare ``except`` in an import, a destructor), it is raised again. In forked
    processes the signals have no effect but SIGTERM, of which these end at once: it is their parent that reports.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        _arrived.append(number)
        if len(_arrived) > _PATIENCE:
            os._exit(128 + number)
        _again(_AGAIN_S)
        if not _shields:
            raise Interrupted(number)

    def look_again(number: int, frame: FrameType | None) -> None:
        _again(_AGAIN_S)
        if _shields:
            return
        error = sys.exc_info()[1]
        while error is not None:
            if isinstance(error, Interrupted):
                return  # files are being closed and removed
            error = error.__context__
        raise Interrupted(arrived())

    handlers = dict.fromkeys(SIGNALS, handle) | ({signal.SIGALRM: look_again} if hasattr(signal, "setitimer") else {})
    before = {number: signal.getsignal(number) for number in handlers}
    hook = sys.unraisablehook
    for number, handler in handlers.items():
        if before[number] != signal.SIG_IGN:
            signal.signal(number, handler)
    sys.unraisablehook = lambda found: None if arrived() else hook(found)  # processes that end together complain in destructors
    try:
        yield
    finally:
        _again(0)
        sys.unraisablehook = hook
        for number, known in before.items():
            if known is not None:  # None: set by another language
                signal.signal(number, known)
        _arrived.clear()


@contextmanager
def shielded() -> Iterator[None]:
    """Within it no signal raises: for a few lines that must not be left in the middle. One that came raises at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals raise in the main thread only
        return
    before = len(_arrived)
    _shields.append(None)
    try:
        yield
    finally:
        _shields.pop()
        if len(_arrived) > before and not _shields:
            raise Interrupted(arrived())


def _again(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def keeping(what: str | Callable[[], str], *, instead: bool = False) -> Iterator[None]:
    """Says for an interruption within it what is kept and what to do.

    Args:
        what: the words, or a function that gives them at that moment.
        instead: say it also where something within has said something else, such as a training in a temporary folder.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Interrupted | KeyboardInterrupt) and not arrived() \
                and not (isinstance(error, RuntimeError | OSError | EOFError) and arrives()):
            raise
        if isinstance(error, KeyboardInterrupt) and not arrived():
            raise  # of a program that uses the library, such as a notebook, which waits for this error
        # A library may have made another error of it, such as one about a process that ended at the same time.
        stopped = error if isinstance(error, Interrupted) else Interrupted(arrived() or signal.SIGINT)
        if instead or not stopped.kept:
            stopped.kept = what if isinstance(what, str) else what()
        raise stopped from None


@contextmanager
def writing(*paths: Path) -> Iterator[None]:
    """Says for an interruption within it which of these files and folders were written; each appears when it is complete."""
    before = {path: _stamp(path) for path in paths}

    def kept() -> str:
        done = [str(path) for path, stamp in before.items() if _stamp(path) != stamp]
        left = [str(path) for path, stamp in before.items() if _stamp(path) == stamp]
        return "; ".join([*([f"{', '.join(done)} was written"] if done else []),
                          *([f"{', '.join(left)} was not written"] if left else [])]) + " - run the same command again"

    with keeping(kept, instead=True):
        yield


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def starting_processes() -> Iterator[None]:
    """Within it new processes do not get Ctrl-C, which a terminal sends to all: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # multiprocessing starts this process before others, and then takes the block away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
