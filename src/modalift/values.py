"""Numbers and words as people write them: the one place that turns text into a value, for recipes, options and tables.

A text that is not the value it should be raises ValueError with the reason; who calls adds the file, line and key.
"""

from __future__ import annotations

import math
import re

#: Words of a switch; case does not matter.
TRUE, FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")
#: Largest whole number: every smaller one is a float, and an integer of any library.
LARGEST = 2**53
NO_NUMBER = "is not a number - give one"

_DIGITS = r"(?:\d+(?:_\d+)*)"
_NUMBER = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.{_DIGITS}?)?|\.{_DIGITS})(?:[eE][+-]?\d+)?")
_BASES = re.compile(r"[+-]?0(?:x[0-9a-f]+|o[0-7]+|b[01]+)", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?[\d,]+,\d+(?:\.\d*)?")
_TIME = re.compile(r"[+-]?\d+(?::\d+)+(?:\.\d*)?")
_INFINITE = re.compile(r"[+-]?\.?(?:inf|infinity|nan)", re.IGNORECASE)


def real(text: str) -> float:
    """A finite number: digits with a point, an exponent, a sign, underscores between digits, or leading zeros.

    Raises:
        ValueError: the text is not such a number; the message is the reason.

    Example:
        >>> real("1e1"), real(".5"), real("-007"), real("1_000"), real("+2.")
        (10.0, 0.5, -7.0, 1000.0, 2.0)
        >>> real("1,5")
        Traceback (most recent call last):
        ValueError: has a comma - write a decimal point, and no separator of thousands
    """
    found = text.strip()
    if _BASES.fullmatch(found) and len(found) < 200:
        found = str(int(found, 0))
    if _INFINITE.fullmatch(found):
        raise ValueError("is not a finite number - give one")
    if _COMMA.fullmatch(found):
        raise ValueError("has a comma - write a decimal point, and no separator of thousands")
    if _TIME.fullmatch(found):
        raise ValueError("is a time, not a number - give one number")
    if not _NUMBER.fullmatch(found):
        raise ValueError(NO_NUMBER)
    value = float(found)
    if not math.isfinite(value):
        raise ValueError("is too large for a number - give a smaller one")
    return value


def whole(text: str) -> int:
    """A whole number, in any spelling that :func:`real` understands; leading zeros do not make it octal.

    Raises:
        ValueError: the text is not a number, or not a whole one; the message is the reason.

    Example:
        >>> whole("010"), whole("1e3"), whole("10.0"), whole("0x10"), whole("12")
        (10, 1000, 10, 16, 12)
        >>> whole("1.5")
        Traceback (most recent call last):
        ValueError: is not a whole number - give one
    """
    found = text.strip()
    near = real(found)
    if not near.is_integer():
        raise ValueError("is not a whole number - give one")
    if abs(near) > LARGEST:
        raise ValueError("is too large for a whole number - give a smaller one")
    return int(near)


def truth(text: str) -> bool:
    """A switch: one of :data:`TRUE` or :data:`FALSE`.

    Raises:
        ValueError: the text is neither; the message is the reason.

    Example:
        >>> truth("yes"), truth("Off"), truth("true")
        (True, False, True)
    """
    word = text.strip().lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise ValueError("is neither true nor false - write true or false")
