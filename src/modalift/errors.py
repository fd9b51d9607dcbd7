"""Errors for users: one line that names the file or key, says what is wrong and what to do."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

EXIT_CODE = 2


class ModaliftError(Exception):
    """A wrong input, described in one line; the command line prints it without a traceback and exits with code 2."""


def printable(text: str) -> str:
    """Text whose control characters and bytes that are not UTF-8 are written out, so that names cannot act on a terminal.

    Example:
        >>> print(printable("a\\x1b[31m\\rb\\tc\\udce9"))
        a\\x1b[31m\\rb\\tc\\xe9
    """
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") else
                   f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else repr(c)[1:-1] for c in text)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the most similar known name, or all known names.

    Example:
        >>> nearest("optim.lrr", ["optim.lr", "optim.name"])
        "did you mean 'optim.lr'?"
        >>> nearest("xyz", ["single", "mtut"])
        'known: mtut, single'
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(word)[:200], names, n=1, cutoff=0.6)  # long ones take minutes
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(names) if names else "none is registered"
