"""``key=value`` texts, as command lines have them; values in YAML's spelling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from modalift.errors import ModaliftError


def key_values(texts: Iterable[str], what: str, form: str = "key=value") -> list[tuple[str, Any]]:
    """Keys and values in their order.

    Args:
        texts: such as ``optim.lr=1e-3`` or ``test_subjects=[anna, ben]``; an empty value is empty text.
        what: what a text is called in an error.
        form: the form that it must have, for the same place.

    Raises:
        ModaliftError: a text without a key or without ``=``, or a value that is not YAML.

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
