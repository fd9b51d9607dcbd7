"""Messages and progress of long tasks: a bar with the remaining time on a terminal, single lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from modalift.engine.monitor import Monitor

#: Seconds between two lines about progress if the console is not a terminal.
EVERY = 30.0


class ConsoleMonitor(Monitor):
    """Prints messages and progress on a console.

    Args:
        console: on a terminal, progress is a bar; in a file or a pipe, lines.
        every: seconds between two such lines.
    """

    def __init__(self, console: Console, every: float = EVERY) -> None:
        self.console, self.every = console, every

    def message(self, text: str, *, warning: bool = False) -> None:
        # Text, not str: names of files may hold brackets, which are markup to Rich.
        self.console.print(Text(text, "yellow" if warning else ""), soft_wrap=True)

    @contextmanager
    def progress(self, task: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
        if not self.console.is_terminal:
            yield self._lines(task, total, done)
            return
        with Progress(TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                      TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
                      console=self.console) as bar:
            shown = bar.add_task(task, total=total, completed=done, note="")
            last = ""

            def update(done: int, note: str = "") -> None:
                nonlocal last
                last = note or last  # a note stays next to the bar until the next one
                bar.update(shown, completed=done, note=last)

            yield update

    def _lines(self, task: str, total: int, initial: int) -> Callable[[int, str], None]:
        started = last_line = time.monotonic()

        def update(done: int, note: str = "") -> None:
            nonlocal last_line
            now = time.monotonic()
            if now - last_line < self.every or done <= initial:
                return
            last_line = now
            left = (now - started) / (done - initial) * (total - done)
            self.message(f"{task} {done}/{total}, {clock(left)} left" + (f", {note}" if note else ""))

        return update


def clock(seconds: float) -> str:
    """Formats a time as h:mm:ss or m:ss.

    Example:
        >>> clock(70), clock(3725)
        ('1:10', '1:02:05')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
