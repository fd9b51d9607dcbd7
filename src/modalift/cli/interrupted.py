"""What a verb that is interrupted says: what was written, and what the same command does next."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from modalift.interruption import keeping, writing

#: Verb -> its arguments -> the files and folders that it writes; each appears when it is complete.
_WRITES: dict[str, Callable[[Mapping[str, Any]], list[Any]]] = {
    "simulate": lambda given: [given["folder"], given["sheet"]],
    "derive": lambda given: [given["folder"]],
    "look": lambda given: [given["to"]],
    "compare": lambda given: [given["to"]],
    "ship": lambda given: [given["to"]],
    "export": lambda given: [given["to"]],
}
#: Verb -> what the others say.
_SAYS = {
    "cache": "decoded clips are kept - run the same command again to go on",
    "train": "what was trained before is kept - run the same command again",
    "eval": "results that are complete are kept - run the same command again",
    "fuse": "results that are complete are kept - run the same command again",
    "study": "finished trainings are kept - run the same command again to go on",
    "demo": "finished trainings are kept - run the same command again to go on",
}


def explained(verb: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a verb, with what it says when it is interrupted."""
    @functools.wraps(function)
    def run(**given: Any) -> Any:
        with _explanation(verb, given):
            return function(**given)

    return run


def _explanation(verb: str, given: Mapping[str, Any]) -> AbstractContextManager[None]:
    if verb in _WRITES:
        return writing(*(Path(path) for path in _WRITES[verb](given) if path))
    return keeping(_SAYS.get(verb, "nothing was changed - run the same command again"))
