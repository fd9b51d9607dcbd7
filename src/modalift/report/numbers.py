"""Formats numbers for tables and pages: percentages, intervals, differences, quantities, durations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

#: Shown where a number is unknown.
UNKNOWN = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """Formats a fraction in percent.

    Example:
        >>> percent(0.8712), percent(None)
        ('87.1 %', '–')
    """
    return UNKNOWN if share is None else f"{100 * share:.{digits}f} %"


def span(interval: Sequence[float] | None, digits: int = 1) -> str:
    """Formats an interval of a fraction in percent.

    Example:
        >>> span([0.81, 0.9])
        '81.0–90.0 %'
    """
    return UNKNOWN if not interval else f"{100 * interval[0]:.{digits}f}–{100 * interval[1]:.{digits}f} %"


def points(difference: float | None, digits: int = 1) -> str:
    """Formats a difference of fractions in percentage points, with its sign.

    Example:
        >>> points(-0.024)
        '−2.4'
    """
    return UNKNOWN if difference is None else f"{100 * difference:+.{digits}f}".replace("-", "−")


def points_span(interval: Sequence[float] | None, digits: int = 1) -> str:
    """Formats an interval of a difference in percentage points.

    Example:
        >>> points_span([-0.01, 0.045])
        '−1.0 to +4.5'
    """
    return UNKNOWN if not interval else f"{points(interval[0], digits)} to {points(interval[1], digits)}"


def quantity(number: float | None, unit: str = "", *, digits: int = 3, base: int = 1000) -> str:
    """Formats a number with a unit prefix: ``k``, ``M``, ``G``, ... or, of ``base=1024``, ``Ki``, ``Mi``, ``Gi``, ...

    Args:
        number: the number; integers below ``base`` are written exactly.
        unit: the unit.
        digits: number of significant digits.
        base: 1000 or 1024.

    Example:
        >>> quantity(1234567), quantity(999999), quantity(832), quantity(867384832, "B", digits=4, base=1024)
        ('1.23 M', '1.00 M', '832', '827.2 MiB')
    """
    if number is None:
        return UNKNOWN
    prefixes = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei") if base == 1024 else ("", "k", "M", "G", "T", "P", "E")
    size, power = float(number), 0

    def rounded() -> str:
        if power == 0 and (isinstance(number, int) or abs(size) < 1):
            return f"{number:.{digits}g}" if abs(size) < 1 else str(number)
        return f"{size:.{max(0, digits - len(str(int(abs(size)))))}f}"

    while power < len(prefixes) - 1 and abs(float(rounded())) >= base:  # after rounding: 999999 is 1.00 M, not 1000 k
        size, power = size / base, power + 1
    return f"{rounded()} {prefixes[power]}{unit}".strip()


def duration(seconds: float) -> str:
    """Formats a duration in its two largest units.

    Example:
        >>> duration(4.25), duration(3725), duration(7500)
        ('4.2 s', '62 min', '2 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def figure_of(value: Any) -> str:
    """Formats any JSON value briefly.

    Example:
        >>> figure_of({"top1": 0.71234, "seeds": [0, 1], "ema": None})
        'top1 0.7123, seeds 0, 1, ema –'
    """
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: UNKNOWN}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {figure_of(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(figure_of(v) for v in value)
    return str(value)


def shown(value: Any, form: str) -> str:
    """Formats a value in one of the formats of result columns.

    Args:
        value: a JSON value; None is unknown.
        form: ``percent``, ``number1`` or ``number3`` (decimal places), ``count``, ``text`` or ``interval`` (of a
            fraction).

    Example:
        >>> shown(0.5, "percent"), shown(21.64, "number1"), shown([0.4, 0.6], "interval"), shown(12, "count")
        ('50.0 %', '21.6', '40.0–60.0 %', '12')
    """
    if value is None:
        return UNKNOWN
    forms: dict[str, Callable[[Any], str]] = {
        "percent": percent, "interval": span, "number1": lambda v: f"{v:.1f}", "number3": lambda v: f"{v:.3f}",
        "count": lambda v: f"{v:,}", "text": str}
    return forms[form](value)
