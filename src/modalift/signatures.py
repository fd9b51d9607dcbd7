"""A function's signature as a schema: what a recipe hands in is checked against it before it is called."""

from __future__ import annotations

import inspect
import reprlib
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, ValidationError, create_model

from modalift.errors import ModaliftError, nearest

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
        first = error.errors()[0]
        key, told = str(first["loc"][0]), first["msg"]
        if first["type"] == "finite_number":
            raise ModaliftError(f"{where}.{key} = {first['input']} - it must be a finite number") from None
        if first["type"] in _OUTSIDE:
            place = "".join(f"[{part}]" for part in first["loc"][1:] if isinstance(part, int))
            raise ModaliftError(f"{where}.{key}{place} = {first['input']}: must {span_of(hints[key][0])}") from None
        words = choices(hints[key][0])
        meant = nearest(given[key], words) if words else ""
        if meant.startswith("did you") or (meant and first["type"] != "literal_error"):  # that one lists the known ones
            told += f" - {meant}"
        raise ModaliftError(f"{where}.{key} = {reprlib.repr(first['input'])}: {told}") from None
    return {key: getattr(made, key) for key in given}


#: What pydantic calls a number outside its range.
_OUTSIDE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def span_of(hint: Any) -> str:
    """The range of a number's annotation in words.

    Example:
        >>> span_of(Share), span_of(Positive | None), span_of(Count)
        ('lie in [0, 1)', 'be above 0', 'be 1 or more')
    """
    low = high = ""
    lower = upper = ""
    for bound in bounds(hint):
        match bound:
            case Ge(ge=value):
                low, lower = f"[{value}", f"be {value} or more"
            case Gt(gt=value):
                low, lower = f"({value}", f"be above {value}"
            case Le(le=value):
                high, upper = f"{value}]", f"be {value} or less"
            case Lt(lt=value):
                high, upper = f"{value})", f"be below {value}"
    return f"lie in {low}, {high}" if low and high else lower or upper


def bounds(hint: Any) -> Iterator[Any]:
    """What an annotation says beside the type, that of the parts of a union included."""
    yield from getattr(hint, "__metadata__", ())
    for part in typing.get_args(hint):
        yield from bounds(part)


def choices(hint: Any) -> list[str]:
    """The words that a type allows: those of a ``Literal``, alone or in a union.

    Example:
        >>> choices(float | typing.Literal["median"])
        ['median']
    """
    if typing.get_origin(hint) is typing.Literal:
        return [word for word in typing.get_args(hint) if isinstance(word, str)]
    return [word for part in typing.get_args(hint) for word in choices(part)]
