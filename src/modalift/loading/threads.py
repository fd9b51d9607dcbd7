"""Work in a few threads, with results in order and a bounded number of them in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")


def in_order(function: Callable[[_A], _B], items: Iterable[_A], threads: int = 0) -> Iterator[tuple[_A, _B]]:
    """Items with the function's results, in order; at most two results per thread wait. Decoding releases the GIL.

    Args:
        function: called in threads.
        items: its arguments.
        threads: their number; 0: one per processor, at most 8.

    Example:
        >>> list(in_order(str, [3, 1]))
        [(3, '3'), (1, '1')]
    """
    threads = threads or min(8, os.cpu_count() or 1)
    pending: deque[tuple[_A, Future[_B]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append((item, pool.submit(function, item)))
                if len(pending) > 2 * threads:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()
