"""A function's signature as a schema: what a recipe hands in is checked against it before it is called."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, ValidationError, create_model

from modalift.errors import ModaliftError, nearest
from modalift.settings import explain

#: Ranges of numbers in a signature: weights; factors and temperatures; shares that leave something; numbers of things. Any
#: other range is written where it is needed, as ``Annotated[int, Ge(2)]``.
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]


def parameters(maker: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Keyword argument -> (resolved annotation with its range, default)."""
    hints = typing.get_type_hints(maker, include_extras=True)
    return {p.name: (hints.get(p.name, Any), p.default) for p in inspect.signature(maker).parameters.values()
            if p.name != "self"}


def checked(maker: Callable[..., Any], given: Mapping[str, Any], known: Mapping[str, Any], where: str,
            who: str) -> dict[str, Any]:
    """The given arguments with their types checked (and numbers in YAML's spelling understood).

    Args:
        maker: the function or constructor that will be called.
        given: what was handed in.
        known: which of its arguments may be.
        where: what a key is called in messages, e.g. ``scheme`` for ``scheme.weight``.
        who: what is made, for messages, e.g. ``scheme 'mtut'``.

    Raises:
        ModaliftError: an unknown key or word, with the nearest one, a value of the wrong type, or a number that is not finite
            or outside the range that its annotation states.
    """
    for key in given:
        if key not in known:
            raise ModaliftError(f"unknown key '{where}.{key}' for {who} - {nearest(key, known)}")
    hints = parameters(maker)
    fields: dict[str, Any] = {k: (hints[k][0], ...) for k in given}
    config = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True, allow_inf_nan=False)
    model = create_model("arguments", __config__=config, **fields)
    try:
        made = model(**given)
    except ValidationError as error:
        raise ModaliftError(explain(error, model, where)) from None
    return {key: getattr(made, key) for key in given}
