"""Settings: frozen, checked values that a person writes; a wrong one is explained in one line that names its key."""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, ValidationError

from modalift.errors import ModaliftError, nearest

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

#: What pydantic calls a number outside its range.
_OUTSIDE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


class _OneLine(ModelMetaclass):
    """Direct construction raises ModaliftError. Nested validation does not pass here and keeps pydantic's locations."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as error:
            raise ModaliftError(explain(error, self, self.__name__.lower())) from None  # type: ignore[arg-type]


class Settings(BaseModel, metaclass=_OneLine):
    """Base of everything that recipes and bundles set: unknown keys and numbers that are not finite are errors.

    Raises:
        ModaliftError: on construction, in one line that names the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, given: Any, where: str = "", *, strict: bool = False) -> Self:
        """Settings from plain values, such as those of a file.

        Args:
            given: a mapping.
            where: what the settings are called in messages; by default the class's name in lower case.
            strict: refuse values of another type instead of converting them (``"3"`` for 3).
        """
        try:
            return cls.model_validate(given, strict=strict or None)
        except ValidationError as error:
            raise ModaliftError(explain(error, cls, where or cls.__name__.lower())) from None

    def replace(self, **changes: Any) -> Self:
        """The same settings with some changed; the changed ones are checked as on construction."""
        made: Self = type(self)(**{**dict(self), **changes})
        return made


def explain(error: ValidationError, model: type[BaseModel], where: str = "", missing: str = "give it") -> str:
    """The first mistake that validation found, in one line.

    Args:
        error: what validation raised.
        model: what was validated.
        where: what ``model`` is called in messages; empty where its keys stand alone.
        missing: what to do about a missing key, ``{}`` stands for its name.

    Returns:
        For example ``data.frames = 0: must be 1 or more``, or ``unknown key 'data.siez' - did you mean 'data.size'?``.
    """
    first = error.errors()[0]
    path, hint = _follow(model, first["loc"])
    key = _joined(where, path)
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}' - {_nearest_key(key, model, first['loc'][:-1], where)}"
    if first["type"] == "missing":
        return f"'{key}' is missing - {missing.format(key)}"
    told = first["msg"].removeprefix("Value error, ")
    if first["type"] == "finite_number":
        told = "must be a finite number"
    elif first["type"] in _OUTSIDE:
        told = f"must {span_of(hint)}"
    words = choices(hint)
    meant = nearest(first["input"], words) if words else ""
    if meant.startswith("did you") or (meant and first["type"] != "literal_error"):  # that one lists the known ones
        told += f" - {meant}"
    return f"{key} = {reprlib.repr(first['input'])}: {told}"


def keys(model: type[BaseModel], where: str = "") -> list[str]:
    """All keys of a model and of the models in it, with dots: ``data``, ``data.frames``, ``data.augment.flip``, ..."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{where}.{name}" if where else name
        found.append(key)
        if _is_model(field.annotation):
            found += keys(field.annotation, key)  # type: ignore[arg-type]
    return found


def span_of(hint: Any) -> str:
    """The range of a number's annotation in words.

    Example:
        >>> span_of(typing.Annotated[float, Ge(0), Lt(1)]), span_of(typing.Annotated[int, Ge(1)] | None)
        ('lie in [0, 1)', 'be 1 or more')
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


def _joined(where: str, path: Sequence[int | str]) -> str:
    """A key with dots, numbers of items in brackets: ``augment.scale[0]``."""
    key = where
    for part in path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _follow(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[int | str], Any]:
    """The keys of an error's location, and the type at its end; what pydantic adds for members of a union is left out."""
    path: list[int | str] = []
    hint: Any = model
    for part in location:
        plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        inside = typing.get_args(plain)
        if _is_model(plain):
            field = plain.model_fields.get(part)
            hint = None if field is None else field.rebuild_annotation()
        elif typing.get_origin(plain) in (dict, Mapping):
            hint = inside[1]
        elif typing.get_origin(plain) in (list, tuple) and isinstance(part, int):
            hint = inside[0] if inside[-1] is Ellipsis else inside[min(part, len(inside) - 1)]
        else:
            break
        path.append(part)
    return path, hint


def _nearest_key(key: str, model: type[BaseModel], inside: Sequence[int | str], where: str) -> str:
    """The tail of an error about an unknown key: a key of the same section, else of any, else the section's keys."""
    path, section = _follow(model, inside)
    before = _joined(where, path)
    own = [_joined(before, [name]) for name in section.model_fields] if _is_model(section) else []
    for known in (own, keys(model, where)):
        meant = nearest(key, known)
        if meant.startswith("did you"):
            return meant
    return nearest(key, own)
