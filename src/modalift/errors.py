"""Errors that a person can act on: one line that names the thing, says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_CODE = 2


class ModaliftError(Exception):
    """A wrong input, told in one line; the command line prints it without a traceback and exits with code 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: the nearest known one, or the list of them.

    Example:
        >>> nearest("optim.lrr", ["optim.lr", "optim.name"])
        "did you mean 'optim.lr'?"
        >>> nearest("xyz", ["single", "mtut"])
        'known: mtut, single'
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(names) if names else "none is known"
