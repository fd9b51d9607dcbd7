"""Messages: many equal complaints are one, names cannot act on a terminal, and a long word is compared in no time."""

from __future__ import annotations

import time

import pytest

import modalift
from modalift.errors import ModaliftError, grouped, nearest, printable, told


def test_it_is_exported():
    assert modalift.ModaliftError is ModaliftError
    assert "ModaliftError" in modalift.__all__
    with pytest.raises(modalift.ModaliftError, match="no such file"):
        modalift.load("missing.modalift")


def test_equal_complaints_are_one_with_their_number_and_the_first():
    many = {f"c{i:03d}": f"/data/my set/turn left/c{i:03d}.mp4 is truncated: {7 * i} bytes are missing - copy it again"
            for i in range(448)}
    assert grouped(many.items()) == [("c000", many["c000"], 448)]
    assert told(many) == [f"left out 448 clips, the first c000: {many['c000']}"]


def test_different_complaints_stay_apart_and_few_are_all_named():
    zero = {f"a{i}": f"d/a{i}.mp4 has zero bytes - copy it again" for i in range(4)}
    gone = {f"b{i}": f"d/b{i}.mp4 does not exist - correct the path" for i in range(3)}
    mixed = dict(zip(["a0", "b0", "a1", "b1", "a2", "b2", "a3"], [None] * 7, strict=True))
    mixed = {name: (zero | gone)[name] for name in mixed}
    assert told(mixed, "skipped") == [f"skipped 4 clips, the first a0: {zero['a0']}",
                                      *(f"skipped {name}: {text}" for name, text in gone.items())]


def test_names_of_classes_in_quotes_do_not_matter():
    texts = [("", f"class 'move {i}' has {i} clips in val and test, but none in train - remove it") for i in range(40)]
    assert grouped(texts) == [(*texts[0], 40)]
    assert grouped([]) == []
    assert told({}) == []


def test_names_do_not_act_on_a_terminal():
    assert printable("plain é 日本 \u00a0😀") == "plain é 日本 \u00a0😀"
    assert printable("a\x1b[31m\r\x07\x00\u2028\x85\udce9") == r"a\x1b[31m\r\x07\x00\u2028\x85\xe9"
    assert printable("two\nlines") == "two\nlines"


def test_a_long_word_is_compared_in_no_time():
    started = time.monotonic()
    assert nearest("x" * 10**6, ["one", "two"]) == "known: one, two"
    assert time.monotonic() - started < 2
