"""Errors for users: one line that names the file or key, says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_CODE = 2


class ModaliftError(Exception):
    """A wrong input, described in one line; the command line prints it without a traceback and exits with code 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the most similar known name, or all known names.

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
    return "known: " + ", ".join(names) if names else "none is registered"
