"""YAML as Modalift reads and writes it: a value that is written without quotes keeps its text until its type is known.

YAML 1.1 turns `01` into 1, `010` into 8, `1:30` into 90, `on` and `no` into booleans and `2024-01-01` into a date, but leaves
`1e-3` a text; a subject `01` or a class `on` would be lost. So every scalar without quotes becomes a :class:`Scalar`, and
:func:`fit` makes of it what the key's annotation asks for. Where no type is known, :func:`resolved` applies the core schema of
YAML 1.2 (https://yaml.org/spec/1.2.2/, section 10.3), except that numbers with leading zeros or of another base than ten stay
text.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from modalift import values
from modalift.errors import ModaliftError

#: How YAML writes "nothing".
NULLS = ("", "~", "null", "Null", "NULL")
#: Largest depth of a text, and number of values after its aliases are followed.
DEPTH, SIZE = 50, 200_000

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,300})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)


class Scalar(str):
    """The text of a scalar that was written without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        """As YAML reads it, for messages: ``0``, ``true``, ``'fast'``."""
        return str(self) if self and not isinstance(plain(self), str) else repr(str(self))


class Unreadable:
    """A scalar that is no number or switch where one is wanted: of no type, so that validation refuses it, too."""

    def __init__(self, text: Scalar) -> None:
        self.text = text

    def __str__(self) -> str:
        return str(self.text)

    def __repr__(self) -> str:
        return repr(self.text)


class _Loader(yaml.SafeLoader):
    """Reads mappings, sequences and texts only."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}  # noqa: RUF012

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        return Scalar(text) if node.style is None else text

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


def _problem(node: yaml.Node, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, message, node.start_mark)


def _refuse(loader: _Loader, node: yaml.Node) -> Any:
    raise _problem(node, f"the tag '{node.tag}' is not supported - remove it")


def _text(loader: Any, node: Any) -> str:
    return loader.construct_scalar(node)


def _untyped(loader: Any, node: Any) -> Scalar:
    return Scalar(loader.construct_scalar(node))


_Loader.yaml_constructors = {
    "tag:yaml.org,2002:seq": yaml.SafeLoader.construct_yaml_seq, "tag:yaml.org,2002:map": yaml.SafeLoader.construct_yaml_map,
    "tag:yaml.org,2002:str": _text, None: _refuse,
    # A tag of these says no more than the type of the key; `<<` may be a value.
    **{f"tag:yaml.org,2002:{name}": _untyped for name in ("int", "float", "bool", "null", "merge")}}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that :func:`plain`, or another reader of YAML, would not read as this text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_multi_representer(str, lambda dumper, text: dumper.represent_str(str(text)))


def parse(text: str) -> Any:
    """Dictionaries, lists and texts of one YAML document; those without quotes are :class:`Scalar`.

    Raises:
        ModaliftError: what is wrong with the text, and in which line.

    Example:
        >>> parse("subjects: [01, on, 'x']")
        {'subjects': ['01', 'on', 'x']}
        >>> parse("a: 1\\na: 2")
        Traceback (most recent call last):
        modalift.errors.ModaliftError: line 2, column 1: the key 'a' was already given in line 1 - remove one of them
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Scalar("")
        _measure(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context or "cannot be parsed"
        if problem.startswith("but "):
            problem = f"{error.context}, {problem}"
        raise ModaliftError(where + " ".join(problem.split())) from None
    except yaml.YAMLError as error:
        raise ModaliftError(str(error).splitlines()[0]) from None
    except RecursionError:
        raise ModaliftError(f"is nested more than {DEPTH} levels deep - flatten it") from None
    finally:
        if loader is not None:
            loader.dispose()


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Depth and number of the values below a node; each alias counts as what it stands for."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = (DEPTH + 1, 0)  # met again below itself: without end
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [value for _, value in node.value]
        _check_keys(node)
    below = [_measure(child, known) for child in children]
    depth, size = 1 + max((d for d, _ in below), default=0), 1 + sum(n for _, n in below)
    if depth > DEPTH:
        raise _problem(node, f"is nested more than {DEPTH} levels deep - flatten it")
    if size > SIZE:
        raise _problem(node, f"holds more than {SIZE} values - write fewer, or fewer aliases")
    known[id(node)] = (depth, size)
    return depth, size


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _problem(key, "a key must be a word, not a list or a mapping - correct it")
        if key.value in lines:
            raise _problem(key, f"the key '{key.value}' was already given in line {lines[key.value]} - remove one of them")
        lines[key.value] = key.start_mark.line + 1


def plain(text: str) -> Any:
    """What the core schema of YAML 1.2 makes of a scalar without quotes; numbers with leading zeros stay text.

    Example:
        >>> plain("1e-3"), plain("8"), plain("true"), plain("~"), plain("007"), plain("on"), plain("2024-01-01")
        (0.001, 8, True, None, '007', 'on', '2024-01-01')
    """
    if text in NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        try:
            return values.real(text)
        except ValueError:
            return str(text)
    return str(text)


def resolved(tree: Any) -> Any:
    """A tree with the values of :func:`plain` instead of scalars, for what has no annotation."""
    if isinstance(tree, Scalar):
        return plain(tree)
    if isinstance(tree, Mapping):
        return {key: resolved(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(resolved(value) for value in tree)
    return tree


def fit(value: Any, hint: Any) -> Any:
    """A value whose scalars are what an annotation asks for; those that cannot be are left for validation to refuse.

    Text stays as it was written, a number is read by :mod:`modalift.values`, a switch may be ``true`` or ``yes``. An empty
    section is one without keys, and an empty list one without members. Scalars of type Any stay as they are, because another
    annotation may follow; see :func:`resolved`.

    Example:
        >>> fit(parse("[01, 1e5, on]"), list[str]), fit(Scalar("010"), int), fit(Scalar("yes"), bool | None)
        (['01', '1e5', 'on'], 10, True)
    """
    members = _members(hint)
    if isinstance(value, Scalar):
        return _fit_scalar(value, members)
    if isinstance(value, Mapping):
        for member in members:
            if _is(member, Mapping):
                key, inside = typing.get_args(member) or (Any, Any)
                return {fit(k, key): fit(v, inside) for k, v in value.items()}
            if hasattr(member, "model_fields"):
                return value  # fits its own values
    if isinstance(value, list | tuple):
        for member in members:
            if _is(member, Sequence) and not _is(member, str):
                inside = typing.get_args(member) or (Any,)
                if _is(member, tuple) and inside[-1] is not Ellipsis:
                    inside = (*inside, *[inside[-1]] * max(0, len(value) - len(inside)))
                    return type(value)(fit(v, h) for v, h in zip(value, inside, strict=False))
                return type(value)(fit(v, inside[0]) for v in value)
    return value


def _fit_scalar(text: Scalar, members: Sequence[Any]) -> Any:
    for member in members:
        if typing.get_origin(member) is typing.Literal:
            for choice in typing.get_args(member):
                if (text.strip() if isinstance(choice, str) else _tried(values.whole, text)) == choice:
                    return choice
    if types.NoneType in members and text.strip() in (NULLS if str in members else (*NULLS, "none", "None")):
        return None
    for kind, read in ((bool, values.truth), (int, values.whole), (float, values.real)):
        if kind in members and (found := _tried(read, text)) is not None:
            return int(text) if kind is float and _INTEGER.fullmatch(text) else found  # in messages, 2 stays 2
    if str in members or Path in members:
        return str(text)
    if text in NULLS and Any not in members:
        for member in members:
            if _is(member, Mapping) or hasattr(member, "model_fields"):
                return {}
            if _is(member, Sequence):
                return []
    return Unreadable(text) if {bool, int, float} & set(members) and Any not in members else text


def _tried(read: Any, text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        return None


def _members(hint: Any) -> list[Any]:
    """The members of a union, without their metadata."""
    if typing.get_origin(hint) is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(hint) for member in _members(part)]
    return [hint]


def _is(hint: Any, kind: type) -> bool:
    found = typing.get_origin(hint) or hint
    return isinstance(found, type) and issubclass(found, kind)


def dump(tree: Any) -> str:
    """A tree as YAML that :func:`parse` reads back as the same values, and that other readers understand alike."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
