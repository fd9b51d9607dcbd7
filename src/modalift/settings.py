"""Settings: immutable, validated values that users write; an error names the wrong key in one line."""

from __future__ import annotations

import reprlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from modalift import values, yaml_text
from modalift.errors import ModaliftError, nearest

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

#: Pydantic's error types for a number outside its range.
_OUTSIDE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
#: Its error types for a text that is not a value of its type -> what reads such a value, and says why the text is none.
_READERS = {"int_parsing": values.whole, "int_parsing_size": values.whole, "int_from_float": values.whole,
            "float_parsing": values.real, "bool_parsing": values.truth, "int_type": values.whole, "float_type": values.real,
            "bool_type": values.truth}
_NO_TEXT, _NO_MAPPING = ("string_type", "path_type"), ("dict_type", "mapping_type")
_NO_LIST = ("list_type", "tuple_type", "sequence_str", "sequence_type")


class _OneLineErrors(ModelMetaclass):
    """Makes direct construction raise ModaliftError; nested validation bypasses this and keeps pydantic's locations."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as error:
            raise ModaliftError(explain(error, self, self.__name__.lower())) from None  # type: ignore[arg-type]


class Settings(BaseModel, metaclass=_OneLineErrors):
    """Base class of all settings in recipes and bundles: unknown keys and numbers that are not finite are errors.

    Raises:
        ModaliftError: on construction, in one line that names the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _fit(cls, value: Any, info: ValidationInfo) -> Any:
        return yaml_text.fit(value, cls.model_fields[info.field_name or ""].annotation)

    @classmethod
    def parse(cls, given: Any, where: str = "", *, strict: bool = False) -> Self:
        """Validates plain values, such as those read from a file.

        Args:
            given: a mapping.
            where: prefix of keys in error messages; by default the class's name in lower case.
            strict: reject values of another type instead of converting them (``"3"`` for 3).
        """
        try:
            return cls.model_validate(given, strict=strict or None)
        except ValidationError as error:
            raise ModaliftError(explain(error, cls, where or cls.__name__.lower())) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, validated as on construction."""
        made: Self = type(self)(**{**dict(self), **changes})
        return made


def explain(error: ValidationError, model: type[BaseModel], where: str = "", missing: str = "give it") -> str:
    """Describes the first error that validation found, in one line.

    Args:
        error: the error that validation raised.
        model: the model that was validated.
        where: prefix of the keys of ``model``; empty for none.
        missing: advice for a missing key; ``{}`` stands for its name.

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
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] in _READERS and isinstance(first["input"], str | yaml_text.Unreadable):
        try:
            _READERS[first["type"]](str(first["input"]))
        except ValueError as reason:
            problem = problem if str(reason) == values.NO_NUMBER else str(reason)
    elif first["type"] in _NO_TEXT and isinstance(first["input"], list | dict):
        problem = "must be text - quote it"
    elif first["type"] in _NO_MAPPING:
        problem = "must be a mapping, such as {name: value}"
    elif first["type"] in _NO_LIST:
        problem = f"must be a list, such as [{first['input'] if isinstance(first['input'], str) else 'one, two'}]"
    elif first["type"] == "finite_number":
        problem = "must be a finite number"
    elif first["type"] == "model_type":
        problem = f"must be a section with keys, such as {key}.{next(iter(hint.model_fields), 'key')}"
    elif first["type"] in _OUTSIDE:
        problem = f"must {span_of(hint)}"
    allowed = choices(hint)
    suggestion = nearest(first["input"], allowed) if allowed else ""
    if suggestion.startswith("did you") or (suggestion and first["type"] != "literal_error"):  # whose message lists the choices
        problem += f" - {suggestion}"
    return f"{key} = {reprlib.repr(first['input'])}: {problem}"


def fields(model: type[BaseModel], where: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All keys of a model and its nested models, joined by dots (``data``, ``data.frames``, ``data.augment.flip``, ...), and
    their fields."""
    for name, field in model.model_fields.items():
        key = f"{where}.{name}" if where else name
        yield key, field
        if _is_model(field.annotation):
            yield from fields(field.annotation, key)  # type: ignore[arg-type]


def keys(model: type[BaseModel], where: str = "") -> list[str]:
    """The keys of :func:`fields`."""
    return [key for key, _ in fields(model, where)]


def span_of(hint: Any) -> str:
    """Describes the range of an annotated number, for error messages.

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
    """The metadata of an annotation, including that of the members of a union."""
    yield from getattr(hint, "__metadata__", ())
    for part in typing.get_args(hint):
        yield from bounds(part)


def choices(hint: Any) -> list[str]:
    """The strings that a ``Literal`` type allows, alone or in a union.

    Example:
        >>> choices(float | typing.Literal["median"])
        ['median']
    """
    if typing.get_origin(hint) is typing.Literal:
        return [word for word in typing.get_args(hint) if isinstance(word, str)]
    return [word for part in typing.get_args(hint) for word in choices(part)]


def _joined(where: str, path: Sequence[int | str]) -> str:
    """Joins a key by dots, with list indices in brackets: ``augment.scale[0]``."""
    key = where
    for part in path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _follow(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[int | str], Any]:
    """The keys of an error's location and the type at its end, without what pydantic adds for members of a union."""
    path: list[int | str] = []
    hint: Any = model
    for part in location:
        plain = _plain(hint)
        inside = typing.get_args(plain)
        if member := next((m for m in inside if _is_model(m) and m.__name__ == part), None):
            hint = member  # of a union
            continue
        if _is_model(plain):
            field = plain.model_fields.get(part)
            hint = None if field is None else field.rebuild_annotation()
        elif typing.get_origin(plain) in (dict, Mapping):
            hint = inside[1]
        elif typing.get_origin(plain) in (list, tuple, Sequence) and isinstance(part, int):
            hint = inside[0] if inside[-1] is Ellipsis else inside[min(part, len(inside) - 1)]
        else:
            break
        path.append(part)
    return path, hint


def _plain(hint: Any) -> Any:
    """An annotation without its metadata and without None."""
    if typing.get_origin(hint) is typing.Annotated:
        return _plain(typing.get_args(hint)[0])
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return _plain(parts[0]) if len(parts) == 1 and type(None) in typing.get_args(hint) else hint


def _nearest_key(key: str, model: type[BaseModel], inside: Sequence[int | str], where: str) -> str:
    """The end of an error message about an unknown key: the nearest key of the same section or of any, else all keys."""
    path, section = _follow(model, inside)
    before = _joined(where, path)
    own = [_joined(before, [name]) for name in section.model_fields] if _is_model(section) else []
    for known in (own, keys(model, where)):
        suggestion = nearest(key, known)
        if suggestion.startswith("did you"):
            return suggestion
    return nearest(key, own)
