"""``key=value`` texts: YAML's values, order kept, and one line for each wrong one."""

from __future__ import annotations

import pytest

from modalift.errors import ModaliftError
from modalift.overrides import key_values
from modalift.yaml_text import fit, resolved


def test_values_are_yaml_and_their_order_stays() -> None:
    found = key_values(["a.b=1e-3", "c=[x, 2]", "d=", "a.b={e: null}", "f=x=y"], "override")
    assert [(key, resolved(value)) for key, value in found] == [
        ("a.b", 1e-3), ("c", ["x", 2]), ("d", None), ("a.b", {"e": None}), ("f", "x=y")]


@pytest.mark.parametrize("text", ["/data/set #1", "a: b", "- x", "@x", "*x", "&x", "%x", "!x", "`x`", "C:\\x", "x: [",
                                  "{seed}/x",
                                  "#", " x ", "?", "|", ">", "2024-01-01", "on", "01", "1,5", "a\nb", "\udcff"])
def test_a_value_without_brackets_and_quotes_is_its_text(text: str) -> None:
    (_, value), = key_values([f"data.root={text}"], "override")
    assert fit(value, str) == text


def test_quotes_and_brackets_are_yaml() -> None:
    found = dict(key_values(["a='[x'", 'b="\\u0041 "', "c=[01, 'on', {d: 1}]"], "override"))
    assert found == {"a": "[x", "b": "A ", "c": ["01", "on", {"d": "1"}]}


@pytest.mark.parametrize(("text", "message"), [
    ("plain", "setting 'plain' is not of the form section.key=value"), ("=3", "is not of the form"),
    ("a=[1", "setting 'a=.1': the value is not YAML - quote it")])
def test_wrong_texts_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ModaliftError, match=message):
        key_values([text], "setting", "section.key=value")
