"""Messages and progress of a long task: the engine itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: ``update(done, note)``: how much of the total is done, and a short text beside the progress bar.
Update = Callable[..., None]


class Monitor:
    """Receives messages and progress of a long task, and ignores them; :mod:`modalift.report.console` prints them."""

    def message(self, text: str, *, warning: bool = False) -> None:
        """Receives one line of text."""

    @contextmanager
    def progress(self, task: str, total: int, done: int = 0) -> Iterator[Update]:
        """Yields a function ``update(done, note="")``.

        Args:
            task: name of the task.
            total: number of steps.
            done: number of steps that are done at the start.
        """
        def update(done: int, note: str = "") -> None:
            pass

        yield update
