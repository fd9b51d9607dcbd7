"""Which network of each run is compared: matched by what it reads, or named."""

from __future__ import annotations

import pytest

from modalift.engine.roles import RoleChoice, match_roles
from modalift.errors import ModaliftError

SINGLE, MTUT = {"student": "depth"}, {"rgb": "rgb", "depth": "depth"}


@pytest.mark.parametrize(("networks", "choice", "expected"), [
    ([SINGLE, MTUT], [], ["student", "depth"]),
    ([MTUT, SINGLE], [], ["depth", "student"]),
    ([MTUT, {"student": "rgb"}, SINGLE], [], ["rgb", "student", "student"]),
    ([SINGLE, {"student": "depth", "assistant": "depth"}], [], ["student", "student"]),
    ([SINGLE, {"student": "rgb", "helper": "depth"}], [], ["student", "helper"]),
    ([{"student": "pose"}, {"student": "rgb", "helper": "depth"}], [], ["student", "student"]),
    ([MTUT, MTUT], ["rgb"], ["rgb", "rgb"]),
    ([SINGLE, MTUT], ["rgb"], ["student", "rgb"]),
    ([MTUT, MTUT], ["b=rgb"], ["rgb", "rgb"]),
    ([MTUT, MTUT], ["a=rgb", "runs/b=depth"], ["rgb", "depth"]),
    ([{"student": "depth", "fusion": ""}, MTUT], [], ["student", "depth"]),
    ([{"student": "depth", "fusion": ""}, SINGLE], ["a=fusion"], ["fusion", "student"]),
])
def test_networks_are_matched_by_what_they_read(networks, choice, expected):
    names = [[name, f"runs/{name}"] for name in "abc"[:len(networks)]]
    assert match_roles(networks, names, RoleChoice.parse(choice)) == expected


@pytest.mark.parametrize(("networks", "choice", "message"), [
    ([MTUT, MTUT], [], r"a trained rgb \(reads rgb\), depth \(reads depth\) - name one, e.g. --student a=rgb"),
    ([{"student": "pose"}, MTUT], [], r"b trained .* e.g. --student b=rgb"),
    ([SINGLE, {"one": "depth", "two": "depth"}], [], r"b trained one \(reads depth\), two"),
    ([SINGLE, MTUT], ["b=dept"], "--student b=dept: it has no network in the role 'dept' - did you mean 'depth'"),
    ([SINGLE, MTUT], ["bb=depth"], "'bb' is not one of the runs - "),
    ([SINGLE, MTUT], ["dept"], "no run has a network in the role 'dept' - did you mean 'depth'"),
    ([MTUT, MTUT], ["rgb", "depth"], "a has networks in the roles rgb, depth - name one: --student a=rgb"),
])
def test_what_is_not_unique_or_not_there_is_said(networks, choice, message):
    with pytest.raises(ModaliftError, match=message):
        match_roles(networks, [["a"], ["b"]], RoleChoice.parse(choice))


@pytest.mark.parametrize("texts", [["="], ["a="], ["=rgb"], ["a=rgb", "a=depth"], [""]])
def test_options_that_cannot_be_meant(texts):
    with pytest.raises(ModaliftError, match=r"--student .*: "):
        RoleChoice.parse(texts)


def test_a_folder_is_the_same_with_a_slash_at_its_end():
    assert RoleChoice.parse(["./runs/a/=rgb"]).own == {"runs/a": "rgb"}


def test_a_folder_may_contain_an_equals_sign():
    assert RoleChoice.parse(["runs/lr=3/seed0=rgb"]).own == {"runs/lr=3/seed0": "rgb"}
