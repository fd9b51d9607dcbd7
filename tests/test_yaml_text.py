"""YAML: what is written stays until its type is known, and what cannot be read is refused with its line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from annotated_types import Ge

from modalift.errors import ModaliftError
from modalift.yaml_text import Scalar, dump, fit, parse, plain, resolved

#: Scalars that YAML 1.1 turns into something else than their text, or that other readers do.
AMBIGUOUS = ["01", "007", "010", "0o10", "0x1F", "1e5", "1e-3", "1:30", "1_000", "yes", "no", "on", "off", "y", "n", "null",
             "~", "true", "False", "2024-01-01", "2024-01-01 10:00:00", ".5", "1.", "+1", "-1", ".inf", ".nan", "=", "1,5",
             "1.10", "<<", "0b11", "12e03", "-0", "é", "１２", "²"]


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_text_stays_as_it_was_written(text):
    assert fit(parse(f"key: {text}"), dict[str, str]) == {"key": text}
    assert fit(parse(f"[{text}, x]") if "," not in text else [Scalar(text), "x"], Sequence[str]) == [text, "x"]
    if text != "<<":  # which merges
        assert parse(f"{text}: 1") == {text: "1"}
    assert fit(parse(f"'{text}'"), str) == fit(parse(f'"{text}"'), Any) == text


@pytest.mark.parametrize("text", [*AMBIGUOUS, "", " x ", "a: b", "#", "[a", "- a", "a\nb", "\t", "\udcff", "\x00", "\x1b[31m",
                                  "😀", "&a", "*a", "!x", "%", "@", "`", "|", ">", "'", '"', "\\", "x" * 10_000])
def test_what_is_written_reads_back_as_it_was(text):
    written = dump({"text": text, "list": [text], "in": {"key": text}, text or "empty": 1})
    read = parse(written)
    assert fit(read, dict[str, Any])["text"] == text
    assert resolved(read["text"]) == text, "even where no type is known"
    assert (resolved(read["list"]), resolved(read["in"])) == ([text], {"key": text})
    assert (text or "empty") in read
    assert yaml.safe_load(written)["text"] == text or text == "0o10", "and other readers understand it"


@pytest.mark.parametrize("value", [0, -1, 10**15, 0.1, 1e-5, 1e22, -0.5, True, False, None, [], {}, [1, [2.5]],
                                   {"a": {"b": None}}])
def test_values_read_back_as_they_were(value):
    assert resolved(parse(dump({"v": value}))) == {"v": value}


@pytest.mark.parametrize(("text", "hint", "value"), [
    ("010", int, 10), ("1e1", int, 10), ("10.0", int, 10), ("1_0", int, 10), ("0x10", int, 16), ("1e1", float, 10.0),
    ("2", float, 2), ("yes", bool, True), ("off", bool, False), ("1", bool, True), ("n", bool | None, False),
    ("~", int | None, None), ("null", float | None, None), ("none", int | None, None), ("", int | None, None),
    ("null", str | None, None), ("none", str | None, "none"), ("null", str, "null"), ("", str, ""),
    ("1", Literal[1, 3, 5], 1), ("on", Literal["on", "off"], "on"), ("3", int | str, 3), ("first", int | str, "first"),
    ("7", Annotated[int, Ge(1)] | None, 7), ("runs/01", Path, "runs/01"), ("01", Path, "01"), ("", list[str], []),
    ("", dict[str, int], {}), ("~", Sequence[int], [])])
def test_a_scalar_becomes_what_the_annotation_asks_for(text, hint, value):
    made = fit(Scalar(text), hint)
    assert made == value
    assert type(made) is type(value)


def test_containers_are_fitted_through():
    tree = parse("{a: [01, 1e1], b: [010, 2]}")
    assert fit(tree, Mapping[str, list[str]]) == {"a": ["01", "1e1"], "b": ["010", "2"]}
    assert fit(tree, dict[str, tuple[float, int]]) == {"a": [1.0, 10], "b": [10.0, 2]}
    assert fit(parse("[[0, 01], [2]]"), Sequence[Sequence[int]]) == [[0, 1], [2]]
    assert fit((Scalar("1"), 2), tuple[int, ...]) == (1, 2), "a tuple stays one"
    assert isinstance(fit(parse("x"), Any), Scalar), "another annotation may follow"


def test_where_no_type_is_known_the_core_schema_holds():
    assert [plain(t) for t in ("1", "-1", "1.5", "1e5", ".5", "true", "null", "~", "")] == \
        [1, -1, 1.5, 1e5, 0.5, True, None, None, None]
    for text in ("01", "on", "y", "1:30", "1_000", "0x1F", "2024-01-01", ".inf", "1e999", "9" * 5000, "=", "１"):
        assert plain(text) == text


@pytest.mark.parametrize(("text", "message"), [
    ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' was already given in line 1 - remove one of them"),
    ("x:\n  on: 1\n  'on': 2", "line 3, column 3: the key 'on' was already given in line 2"),
    ("{a: 1, a: 1}", "column 8: the key 'a' was already given in line 1"),
    ("a:\n\tb: 1", "line 2, column 1: found character"), ("a: b: c", "line 1, column 5: mapping values"),
    ("a: [1,", "line 1"), ("a: 'x", "line 1"), ("a: *b", "undefined alias 'b'"), ("a: &a [*a]", "nested more than 50 levels"),
    ("[" * 60 + "]" * 60, "nested more than 50 levels"), ("[" * 100_000, "nested more than 50 levels"),
    ("{a: " * 5000, "nested more than 50 levels"), ("--- 1\n--- 2", "a single document"), ("a: @x", "line 1, column 4"),
    ("a: !!python/object:os.system x", "the tag '.*' is not supported"), ("!mine a: 1", "the tag '!mine' is not supported"),
    ("a: !!timestamp x", "the tag '.*timestamp' is not supported"), ("? [a]\n: b", "a key must be a word"),
    ("? {a: b}\n: b", "a key must be a word"), ("<<: 3", "line 1, column 5"), ("\x00", "unacceptable character"),
    ("a: \udcff", "unacceptable character")])
def test_what_cannot_be_read_is_one_line(text, message):
    with pytest.raises(ModaliftError, match=message) as told:
        parse(text)
    assert "\n" not in str(told.value)


def test_aliases_that_multiply_are_refused_at_once():
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    started = time.monotonic()
    with pytest.raises(ModaliftError, match="holds more than 200000 values"):
        parse(text)
    assert time.monotonic() - started < 5


def test_merges_and_tags_of_plain_types_are_understood():
    merged = parse("b: &b {p: 1, q: 2}\na: &a {<<: *b, p: 3}\nc: {<<: *a, r: 4}")
    assert (merged["a"], merged["c"]) == ({"p": "3", "q": "2"}, {"p": "3", "q": "2", "r": "4"})
    assert fit(parse("[!!str 01, !!int 010, !!bool yes]"), list[str]) == ["01", "010", "yes"]
    assert parse("\ufeffa: 1") == {"a": "1"}
    assert parse("a: |\n  01\n") == {"a": "01\n"}
    assert parse("") == parse("# nothing\n") == ""


def test_messages_show_a_scalar_as_it_is_read():
    assert [repr(Scalar(t)) for t in ("0", "1e-3", "true", "fast", "01", "")] == ["0", "1e-3", "true", "'fast'", "'01'", "''"]
