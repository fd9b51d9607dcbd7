"""``key=value`` texts: YAML's values, order kept, and one line for each wrong one."""

from __future__ import annotations

import pytest

from modalift.errors import ModaliftError
from modalift.overrides import key_values


def test_values_are_yaml_and_their_order_stays() -> None:
    found = key_values(["a.b=1e-3", "c=[x, 2]", "d=", "a.b={e: null}", "f=x=y"], "override")
    assert found == [("a.b", "1e-3"), ("c", ["x", 2]), ("d", ""), ("a.b", {"e": None}), ("f", "x=y")]


@pytest.mark.parametrize(("text", "message"), [
    ("plain", "setting 'plain' is not of the form section.key=value"), ("=3", "is not of the form"),
    ("a=[1", "setting 'a=.1': the value is not YAML - quote it")])
def test_wrong_texts_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ModaliftError, match=message):
        key_values([text], "setting", "section.key=value")
