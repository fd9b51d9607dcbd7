"""Charts: ticks, gaps, edge cases, and text that stays text."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from modalift.report.figures import Line, Mark, columns, diverging, forest, heat, lines, reliability, ticks
from modalift.report.numbers import duration, percent, points, points_span, quantity, shown, span


def svg_of(text: str) -> ElementTree.Element:
    """The drawing as XML: it must be well formed, and draw at numbers."""
    start, end = text.index("<svg"), text.rindex("</svg>") + 6
    assert "nan" not in text[start:end]
    return ElementTree.fromstring(text[start:end])


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0.13, 0.78, [0.0, 0.2, 0.4, 0.6, 0.8]), (0, 1, [0, 0.5, 1.0]), (5, 5, None), (0, 0, None), (-3e-9, 2e-9, None),
    (1e6, 9e6, None),
])
def test_ticks_span_the_values(low: float, high: float, expected: list[float] | None) -> None:
    found = ticks(low, high, 4)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 9
    if expected:
        assert found == pytest.approx(expected)


def test_a_gap_where_a_reading_is_not_finite() -> None:
    text = lines([Line("loss", [0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])])
    svg_of(text)
    assert text.split('class="line s1"')[1].count("M") == 2
    assert "No finite value" in lines([Line("loss", [0], [math.inf])])
    assert "No finite value" in lines([])


def test_long_logs_are_thinned() -> None:
    n = 100_000
    assert len(lines([Line("loss", list(range(n)), [1.0] * n)])) < 12_000


def test_a_key_for_several_lines_only() -> None:
    one, other = Line("<a>", [0, 1], [0, 1]), Line("b", [0, 1], [1, 0], 2)
    assert 'class="key"' not in lines([one])
    assert "&lt;a&gt;" in lines([one, other])
    svg_of(lines([one, other]))


def test_forest() -> None:
    text = forest([Mark("<b>", 0.1, (0.0, 0.2), note="p = 1"), Mark("unknown", None), Mark("lonely", -0.1)], zero=0.0,
                  difference=True)
    svg_of(text)
    assert "+10.0" in text
    assert "−10.0" in text
    assert "<b>" not in text
    assert "No estimate" in forest([Mark("nothing", None)])


@pytest.mark.parametrize("classes", [1, 3, 20, 60, 249])
def test_confusion_of_any_size(classes: int) -> None:
    matrix = [[int(r == c) * 3 + int(c == (r + 1) % classes) for c in range(classes)] for r in range(classes)]
    matrix[-1] = [0] * classes  # a class that does not occur
    svg_of(heat(matrix, [f"<class {k}>" for k in range(classes)]))


def test_columns_and_reliability_and_bars() -> None:
    svg_of(columns([Mark("1–2", 0.5, (0.4, 0.6)), Mark("2–3", None)], x_label="lux", reference=0.1, reference_label="chance"))
    svg_of(columns([]))
    svg_of(reliability([{"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None},
                        {"low": 0.5, "high": 1.0, "n": 3, "confidence": 0.8, "accuracy": 0.66}]))
    svg_of(diverging([("a" * 40, 0.5, ""), ("<b>", -0.2, ""), ("c", 0.0, "")]))
    svg_of(diverging([]))


def test_numbers_for_people() -> None:
    assert percent(0.8614) == "86.1 %"
    assert percent(None) == "–"
    assert points(-0.031) == "−3.1"
    assert quantity(1_234_567) == "1.23 M"
    assert quantity(None) == "–"
    assert duration(3725) == "62 min"
    assert duration(9000) == "2 h 30 min"
    assert duration(3.2) == "3.2 s"
    assert span([0.81, 0.9]) == "81.0–90.0 %"
    assert points_span([-0.01, 0.045]) == "−1.0 to +4.5"
    assert span(None) == points_span(None) == "–"


@pytest.mark.parametrize(("number", "expected"), [
    (0, "0"), (832, "832"), (999, "999"), (1000, "1.00 k"), (999_499, "999 k"), (999_999, "1.00 M"), (-12_345, "-12.3 k"),
    (0.25, "0.25"), (12.0, "12.0"), (3.2e21, "3200 E")])
def test_quantities(number: float, expected: str) -> None:
    assert quantity(number) == expected


def test_quantities_of_bytes() -> None:
    assert quantity(867_384_832, "B", digits=4, base=1024) == "827.2 MiB"
    assert quantity(1023, "B", base=1024) == "1023 B"


def test_a_form_that_no_column_has() -> None:
    assert shown(None, "percent") == "–"
    with pytest.raises(KeyError):
        shown(1, "promille")
