"""Parses ``key=value`` arguments of the command line; values are YAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from modalift.errors import ModaliftError


def yaml_problem(error: Exception) -> str:
    """What is wrong with a YAML text, and in which line, from the error of its parser."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem or 'cannot be parsed'}"


def key_values(texts: Iterable[str], what: str, form: str = "key=value") -> list[tuple[str, Any]]:
    """Parses ``key=value`` texts into pairs, in order.

    Args:
        texts: such as ``optim.lr=1e-3`` or ``test_subjects=[anna, ben]``; an empty value gives the empty string.
        what: the name of such an argument in error messages.
        form: the required form, for error messages.

    Raises:
        ModaliftError: a text has no key or no ``=``, or its value is not YAML.

    Example:
        >>> key_values(["width=2", "name="], "option")
        [('width', 2), ('name', '')]
    """
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ModaliftError(f"{what} '{text}' is not of the form {form}")
        try:
            pairs.append((key, yaml.safe_load(value) if value else ""))
        except yaml.YAMLError:
            raise ModaliftError(f"{what} '{text}': the value is not YAML - quote it") from None
    return pairs
