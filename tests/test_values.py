"""Numbers and switches as people write them: the right value, or the reason why there is none."""

from __future__ import annotations

import time

import pytest

from modalift.values import LARGEST, real, truth, whole


@pytest.mark.parametrize(("text", "value"), [
    ("1e1", 10.0), ("10.0", 10.0), (" 12 ", 12.0), ("１２", 12.0), ("٣", 3.0), ("010", 10.0), ("-007", -7.0), ("+1", 1.0),
    (".5", 0.5), ("1.", 1.0), ("1_000", 1000.0), ("1E-3", 1e-3), ("0x1F", 31.0), ("0o17", 15.0), ("0b11", 3.0), ("1e-400", 0.0),
    ("0" * 10_000 + "1", 1.0), ("1." + "0" * 10_000, 1.0)])
def test_numbers(text, value):
    assert real(text) == value
    if value.is_integer():
        assert whole(text) == value
        assert type(whole(text)) is int


@pytest.mark.parametrize(("text", "reason"), [
    ("", "is not a number"), ("   ", "is not a number"), ("²", "is not a number"), ("①", "is not a number"),
    ("½", "is not a number"),
    ("wide", "is not a number"), ("1 2", "is not a number"), ("1__0", "is not a number"), ("_1", "is not a number"),
    ("0x", "is not a number"), ("1,5", "has a comma"), ("1,000", "has a comma"), ("1:30", "is a time"), ("nan", "not a finite"),
    (".inf", "not a finite"), ("-Infinity", "not a finite"), ("1e999", "too large"), ("1e999999999999", "too large"),
    ("9" * 5000, "too large"), ("2024-01-01", "is not a number"), ("on", "is not a number")])
def test_what_is_no_number(text, reason):
    for read in (real, whole):
        with pytest.raises(ValueError, match=reason):
            read(text)


@pytest.mark.parametrize(("text", "reason"), [("1.5", "is not a whole number"), ("1e-3", "is not a whole number"),
                                              (f"{LARGEST}0", "too large for a whole number"), ("1e300", "too large")])
def test_what_is_no_whole_number(text, reason):
    real(text)
    with pytest.raises(ValueError, match=reason):
        whole(text)


def test_the_largest_whole_number_is_exact():
    assert whole(str(LARGEST)) == LARGEST
    assert whole(f"-{LARGEST - 1}") == 1 - LARGEST


@pytest.mark.parametrize("text", ["1" * 10**6 + "x", "1_" * 10**6, "1:" * 10**6, "1," * 10**6, "." * 10**6, "1e" + "1" * 10**6])
def test_a_long_text_takes_no_time(text):
    started = time.monotonic()
    with pytest.raises(ValueError, match="is"):
        whole(text)
    assert time.monotonic() - started < 5


def test_switches():
    assert [truth(word) for word in ("true", "yes", "On", "Y", "1", " TRUE ")] == [True] * 6
    assert [truth(word) for word in ("false", "no", "OFF", "n", "0")] == [False] * 5
    for word in ("", "maybe", "2", "null", "ja"):
        with pytest.raises(ValueError, match="write true or false"):
            truth(word)
