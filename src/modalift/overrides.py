"""Parses ``key=value`` arguments of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from modalift import yaml_text
from modalift.errors import ModaliftError

#: First characters of values that are read as YAML; any other value is the text as it stands.
_YAML = ("[", "{", '"', "'")
#: ``{seed}`` at the start of a path is no mapping.
_MARK = re.compile(r"\{\w+\}")


def key_values(texts: Iterable[str], what: str, form: str = "key=value") -> list[tuple[str, Any]]:
    """Parses ``key=value`` texts into pairs, in order.

    A value in brackets, braces or quotes is YAML. Any other value is a :class:`~modalift.yaml_text.Scalar`, which becomes a
    number, a switch or a text when the type of its key is known; so ``data.root=/data/set #1`` and ``a: b`` need no quotes.

    Args:
        texts: such as ``optim.lr=1e-3`` or ``test_subjects=[anna, 01]``.
        what: the name of such an argument in error messages.
        form: the required form, for error messages.

    Raises:
        ModaliftError: a text has no key or no ``=``, or its value is not YAML.

    Example:
        >>> key_values(["width=2", "name=", "ids=[01, on]"], "option")
        [('width', 2), ('name', ''), ('ids', ['01', 'on'])]
    """
    pairs: list[tuple[str, Any]] = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ModaliftError(f"{what} '{text}' is not of the form {form}")
        if not value.lstrip().startswith(_YAML) or _MARK.match(value):
            pairs.append((key, yaml_text.Scalar(value)))
            continue
        try:
            pairs.append((key, yaml_text.parse(value)))
        except ModaliftError as error:
            reason = str(error).partition(": ")[2] or error
            raise ModaliftError(f"{what} '{text}': the value is not YAML - quote it ({reason})") from None
    return pairs
