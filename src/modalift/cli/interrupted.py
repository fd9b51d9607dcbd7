"""What a verb that is interrupted says: what was written, and what the same command does next."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from modalift.interruption import keeping, writing

#: Arguments of verbs that name what they write: files and folders that appear when they are complete.
_WRITTEN = ("folder", "to", "sheet")
#: Verb -> what it says where something is kept before it is complete.
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
    paths = [Path(given[name]) for name in _WRITTEN if given.get(name)]
    if paths and verb not in _SAYS:
        return writing(*paths)
    # A training knows more, but those of a demo, a study or a diagnosis are not what the same command would resume.
    return keeping(_SAYS.get(verb, "nothing was changed - run the same command again"), instead=verb != "train")
