"""Checks the arguments that a recipe gives to a function against the function's signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt
from pydantic import ConfigDict, ValidationError, create_model

from modalift.errors import ModaliftError, nearest
from modalift.settings import explain
from modalift.yaml_text import fit, resolved

#: Common ranges for annotations in signatures: weights; factors and temperatures; fractions below 1; counts. Other ranges
#: are written where they are needed, such as ``Annotated[int, Ge(2)]``.
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]


def parameters(maker: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The arguments of a function: name -> (resolved annotation with its range, default)."""
    hints = typing.get_type_hints(maker, include_extras=True)
    return {p.name: (hints.get(p.name, Any), p.default) for p in inspect.signature(maker).parameters.values()
            if p.name != "self"}


def checked(maker: Callable[..., Any], given: Mapping[str, Any], known: Mapping[str, Any], where: str,
            who: str) -> dict[str, Any]:
    """Checks arguments against a signature, and converts the scalars of a YAML text to the annotated types.

    Args:
        maker: the function or constructor that will be called.
        given: the arguments to check.
        known: names of the arguments that may be given.
        where: prefix of keys in error messages, e.g. ``scheme`` for ``scheme.weight``.
        who: the object to be made, for error messages, e.g. ``scheme 'mtut'``.

    Returns:
        The arguments, converted to the annotated types.

    Raises:
        ModaliftError: an unknown key or choice (the message suggests the nearest one), a value of the wrong type, or a number
            that is not finite or outside its annotated range.
    """
    for key in given:
        if key not in known:
            raise ModaliftError(f"unknown key '{where}.{key}' for {who} - {nearest(key, known)}")
    hints = parameters(maker)
    fields: dict[str, Any] = {k: (hints[k][0], ...) for k in given}
    config = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True, allow_inf_nan=False)
    model = create_model("arguments", __config__=config, **fields)
    try:
        made = model(**{k: fit(value, hints[k][0]) for k, value in given.items()})
    except ValidationError as error:
        raise ModaliftError(explain(error, model, where)) from None
    return {key: resolved(getattr(made, key)) for key in given}
