"""What a long task tells while it runs: the one way in which the engine speaks to a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: ``update(done, note)``: how many of the total are done, and a word beside the bar.
Update = Callable[..., None]


class Monitor:
    """What a long task tells while it runs. This one is silent; the command line's prints (:mod:`modalift.report.console`)."""

    def message(self, text: str, *, warning: bool = False) -> None:
        """One line for a person."""

    @contextmanager
    def progress(self, task: str, total: int, done: int = 0) -> Iterator[Update]:
        """Yields ``update(done, note="")``."""
        def update(done: int, note: str = "") -> None:
            pass

        yield update
