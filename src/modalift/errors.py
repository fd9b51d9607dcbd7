"""Errors for users: one line that names the file or key, says what is wrong and what to do."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping

EXIT_CODE = 2


class ModaliftError(Exception):
    """A wrong input, described in one line; the command line prints it without a traceback and exits with code 2."""


#: Characters that change the direction of the text after them.
_DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """Text whose control characters, changes of direction and bytes that are not UTF-8 are written out.

    So names cannot act on a terminal, or look like others.

    Example:
        >>> print(printable("a\\x1b[31m\\rb\\tc\\udce9"))
        a\\x1b[31m\\rb\\tc\\xe9
    """
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or (unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") and c not in _DIRECTION) else
                   f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else repr(c)[1:-1] for c in text)


#: What differs between equal complaints about many clips: names in quotes, paths and numbers.
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|[^\s'\"]*[/\\\\][^\s'\"]*|[^\s'\"]+\.\w{1,5}\b|\d+(?:\.\d+)?")


def grouped(complaints: Iterable[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """Equal complaints about several clips as one: the first clip, what is said of it, and of how many.

    Complaints are equal if they differ only in the clip's name, in paths and in numbers. Up to three are left as they are.

    Args:
        complaints: the clip's name and the complaint, one for each clip.

    Returns:
        In the order of the first ones.

    Example:
        >>> grouped((f"c{i}", f"data/c{i}.mp4 has zero bytes - copy it again") for i in range(448))
        [('c0', 'data/c0.mp4 has zero bytes - copy it again', 448)]
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, text in complaints:
        kind = _VARIES.sub("", text.replace(name, "") if name else text)
        groups.setdefault(" ".join(kind.split()), []).append((name, text))
    few = [[(name, text, 1) for name, text in group] if len(group) <= 3 else [(*group[0], len(group))]
           for group in groups.values()]
    return [complaint for group in few for complaint in group]


def told(complaints: Mapping[str, str], what: str = "left out") -> list[str]:
    """A line for each complaint of :func:`grouped`, from clip -> complaint.

    Example:
        >>> told({f"c{i}": f"c{i}.mp4 has zero bytes - copy it again" for i in range(5)})
        ['left out 5 clips, the first c0: c0.mp4 has zero bytes - copy it again']
        >>> told({"c0": "c0.mp4 has zero bytes - copy it again"})
        ['left out c0: c0.mp4 has zero bytes - copy it again']
    """
    return [f"{what} {name}: {text}" if n == 1 else f"{what} {n} clips, the first {name}: {text}"
            for name, text, n in grouped(complaints.items())]


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
