"""Charts as inline SVG: lines, bars with error bars, forest plots, heat maps, reliability. The page defines the colors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from modalift.report.html import esc
from modalift.report.numbers import percent, points

_MAX_POINTS = 300


@dataclass(frozen=True)
class Line:
    """One curve: its name, points, color (1..6), and whether it is thin (single steps) or dashed."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 1
    thin: bool = False
    dash: bool = False


@dataclass(frozen=True)
class Mark:
    """One estimate: its name, value, interval and color, a note, and a second, wider interval."""

    name: str
    value: float | None
    interval: Sequence[float] | None = None
    color: int = 1
    note: str = ""
    wide: Sequence[float] | None = None


def lines(curves: Sequence[Line], *, x_label: str = "epoch", shares: bool = False, low: float | None = None,
          high: float | None = None, reference: float | None = None) -> str:
    """Curves over a common axis, with a legend if there are several. Values that are not finite leave a gap."""
    W, H, left, right, top, bottom = 360, 200, 46, 10, 10, 30
    drawn = [_downsampled(c) for c in curves]
    xs = [x for c in drawn for x, y in zip(c.x, c.y, strict=True) if math.isfinite(y)]
    ys = [y for c in drawn for y in c.y if math.isfinite(y)]
    if not xs:
        return '<p class="note">No finite value.</p>'
    grid = ticks(min([*ys, *([low] if low is not None else [])]), max([*ys, *([high] if high is not None else [])]), 4)
    bottom_y, top_y = grid[0], grid[-1]
    x0, x1 = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def px(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (W - left - right)

    def py(y: float) -> float:
        return H - bottom - (y - bottom_y) / (top_y - bottom_y) * (H - top - bottom)

    parts = [_y_axis(grid, py, left, W - right, shares)]
    for tick in ticks(x0, x1, 5, inside=True):
        parts.append(f'<text x="{px(tick):.1f}" y="{H - 14}" text-anchor="middle">{_number(tick)}</text>')
    parts.append(f'<text x="{W - right}" y="{H - 2}" text-anchor="end">{esc(x_label)}</text>')
    if reference is not None and bottom_y <= reference <= top_y:
        parts.append(f'<path class="line thin dash s6" d="M{left} {py(reference):.1f}H{W - right}"/>')
    for c in drawn:
        path, pen = [], "M"
        for x, y in zip(c.x, c.y, strict=True):
            if math.isfinite(y):
                path.append(f"{pen}{px(x):.1f} {py(y):.1f}")
                pen = "L"
            else:
                pen = "M"
        css = f"line s{c.color}" + (" thin" if c.thin else "") + (" dash" if c.dash else "")
        parts.append(f'<path class="{css}" d="{"".join(path)}"/>')
        if not c.thin and (last := _last(c)) is not None:
            text = percent(last[1]) if shares else f"{last[1]:.4g}"
            parts.append(f'<circle class="f{c.color}" cx="{px(last[0]):.1f}" cy="{py(last[1]):.1f}" r="3">'
                         f"<title>{esc(c.name)}: {text}</title></circle>")
    named = [c for c in curves if c.name and not c.thin]
    key = "".join(f'<span style="--c:var(--s{c.color})">{esc(c.name)}</span>' for c in named) if len(named) > 1 else ""
    chart = _svg(W, H, "".join(parts), ", ".join(c.name for c in curves))
    return chart + (f'<div class="key">{key}</div>' if key else "")


def forest(marks: Sequence[Mark], *, zero: float | None = None, difference: bool = False,
           unit: str = "% top-1") -> str:
    """A forest plot: one row per estimate with its interval; names are above the intervals, so that it fits a phone screen.

    Args:
        marks: the estimates.
        zero: position of a reference line (no difference, or chance).
        difference: whether values are differences, which are written in percentage points.
        unit: label of the axis otherwise.
    """
    W, row, left, right = 420, 40, 8, 74
    ends = [v for m in marks for v in (m.value, *(m.interval or ()), *(m.wide or ())) if v is not None]
    if not ends:
        return '<p class="note">No estimate.</p>'
    ends += [zero] if zero is not None else []
    grid = ticks(min(ends), max(ends), 5)
    low, high = grid[0], grid[-1]
    H = row * len(marks) + 26

    def px(v: float) -> float:
        return left + (v - low) / (high - low) * (W - left - right)

    parts = []
    for tick in grid:
        parts.append(f'<path class="axis" d="M{px(tick):.1f} 4V{H - 22}"/>')
        label = points(tick, 0) if difference else f"{100 * tick:.0f}"
        parts.append(f'<text x="{px(tick):.1f}" y="{H - 8}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{W}" y="{H - 8}" text-anchor="end">{"points" if difference else esc(unit)}</text>')
    if zero is not None:
        parts.append(f'<path class="line s6" d="M{px(zero):.1f} 4V{H - 22}"/>')
    for k, m in enumerate(marks):
        y = k * row + 30
        note = f" · {m.note}" if m.note else ""
        parts.append(f'<text class="ink halo" x="{left}" y="{y - 12}">{esc(m.name)}'
                     f'<tspan fill="var(--soft)">{esc(note)}</tspan></text>')
        if m.wide:
            parts.append(f'<path class="line s{m.color}" opacity=".35" d="M{px(m.wide[0]):.1f} {y}'
                         f'H{px(m.wide[1]):.1f}"/>')
        if m.interval:
            parts.append(f'<path class="line s{m.color}" style="stroke-width:4" d="M{px(m.interval[0]):.1f} {y}'
                         f'H{px(m.interval[1]):.1f}"/>')
        if m.value is not None:
            text = points(m.value) if difference else percent(m.value)
            parts.append(f'<circle class="f{m.color}" stroke="var(--card)" stroke-width="2" cx="{px(m.value):.1f}"'
                         f' cy="{y}" r="6"/>')
            parts.append(f'<text class="ink" x="{W}" y="{y + 4}" text-anchor="end" font-weight="600">{text}</text>')
    return _svg(W, H, "".join(parts), "; ".join(m.name for m in marks))


def columns(marks: Sequence[Mark], *, x_label: str = "", reference: float | None = None,
            reference_label: str = "") -> str:
    """A column chart of fractions with error bars (such as accuracy by brightness), and a dashed line at ``reference``."""
    W, H, left, right, top, bottom = 420, 230, 40, 8, 12, 44
    grid = ticks(0, max([m.value or 0 for m in marks] + [m.interval[1] for m in marks if m.interval] + [0.1]), 4)
    step = (W - left - right) / max(1, len(marks))

    def py(v: float) -> float:
        return H - bottom - v / grid[-1] * (H - top - bottom)

    parts = [_y_axis(grid, py, left, W - right, True)]
    for k, m in enumerate(marks):
        x = left + (k + 0.5) * step
        if m.value is not None:
            half = min(26.0, step * 0.32)
            parts.append(f'<rect class="f{m.color}" opacity=".75" rx="3" x="{x - half:.1f}" y="{py(m.value):.1f}"'
                         f' width="{2 * half:.1f}" height="{H - bottom - py(m.value):.1f}">'
                         f"<title>{esc(m.name)}: {percent(m.value)} {esc(m.note)}</title></rect>")
        if m.interval:
            ends = f"M{x:.1f} {py(m.interval[0]):.1f}V{py(m.interval[1]):.1f}"
            parts.append(f'<path class="line" stroke="var(--ink)" style="stroke-width:1.5" d="{ends}"/>')
        parts.append(f'<text class="ink" x="{x:.1f}" y="{H - bottom + 15}" text-anchor="middle">{esc(m.name)}</text>')
        parts.append(f'<text x="{x:.1f}" y="{H - bottom + 28}" text-anchor="middle">{esc(m.note)}</text>')
    if reference is not None and reference <= grid[-1]:
        parts.append(f'<path class="line thin dash s6" style="opacity:1" d="M{left} {py(reference):.1f}H{W - right}">'
                     f"<title>{esc(reference_label)}</title></path>")
    parts.append(f'<text x="{W - right}" y="{H - 2}" text-anchor="end">{esc(x_label)}</text>')
    return _svg(W, H, "".join(parts), x_label)


def heat(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """A confusion matrix: rows are true classes, columns predicted ones; the shade is the fraction of the row."""
    K = len(names)
    cell = 30 if K <= 12 else 21 if K <= 32 else 13 if K <= 64 else max(3, 700 // K)
    labels, upright = K <= 64, K <= 12
    left = 8 + (min(22, max(len(n) for n in names)) * 6.3 + 18 if labels else 4)
    top = (min(22, max(len(n) for n in names)) * 4.6 + 16) if upright else 22 if labels else 6
    W, H = left + K * cell + (40 if upright else 8), top + K * cell + 22
    parts = [f'<rect x="{left:.0f}" y="{top:.0f}" width="{K * cell}" height="{K * cell}" fill="var(--faint)" rx="3"/>']
    for r, row in enumerate(matrix):
        total = sum(row)
        for c, n in enumerate(row):
            if n:
                x, y = left + c * cell, top + r * cell
                share = n / total
                parts.append(f'<rect class="{"good" if r == c else "bad"}" x="{x + 0.5:.1f}" y="{y + 0.5:.1f}" rx="2"'
                             f' width="{cell - 1}" height="{cell - 1}" fill-opacity="{0.14 + 0.86 * share:.2f}">'
                             f"<title>{esc(names[r])} predicted as {esc(names[c])}: {n} of {total}</title></rect>")
                if cell >= 20:
                    ink = "var(--card)" if share > 0.55 else "var(--ink)"
                    parts.append(f'<text x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle"'
                                 f' style="fill:{ink};font-size:{11 if n < 100 else 9}px">{n}</text>')
    if labels:
        size = 11 if cell >= 20 else 9
        for k, name in enumerate(names):
            short = name if len(name) <= 22 else name[:21] + "…"
            middle = top + (k + 0.5) * cell + 4
            number = "" if upright else f" {k + 1}"
            parts.append(f'<text class="ink" style="font-size:{size}px" x="{left - 6:.1f}" y="{middle:.1f}"'
                         f' text-anchor="end">{esc(short)}{number}<title>{esc(name)}</title></text>')
            x = left + (k + 0.5) * cell
            turned = f' transform="rotate(-45 {x:.1f} {top - 6:.1f})"' if upright else ' text-anchor="middle"'
            parts.append(f'<text style="font-size:{size}px" x="{x:.1f}" y="{top - 6:.1f}"{turned}>'
                         f"{esc(short) if upright else k + 1}</text>")
    parts.append(f'<text x="{left:.0f}" y="{H - 6:.0f}">rows: true class · columns: predicted class</text>')
    svg = _svg(W, H, "".join(parts), "confusion matrix", stretch=1.5)
    # A matrix may be wider than a phone screen: it keeps its size and scrolls.
    return f'<div class="scroll"><div style="min-width:{min(W, 620):.0f}px;max-width:{1.5 * W:.0f}px">{svg}</div></div>'


def reliability(bins: Sequence[dict[str, float | None]]) -> str:
    """A reliability diagram: accuracy against confidence per bin; on the diagonal they are equal."""
    W, H, left, right, top, bottom = 360, 270, 46, 10, 10, 44
    most = max((b["n"] or 0 for b in bins), default=0) or 1

    def px(v: float) -> float:
        return left + v * (W - left - right)

    def py(v: float) -> float:
        return H - bottom - v * (H - top - bottom)

    parts = [_y_axis([0, 0.25, 0.5, 0.75, 1], py, left, W - right, True)]
    for b in bins:
        if not b["n"] or b["accuracy"] is None or b["confidence"] is None:
            continue
        x0, x1 = px(b["low"] or 0) + 1, px(b["high"] or 0) - 1
        parts.append(f'<rect class="f1" rx="2" x="{x0:.1f}" y="{py(b["accuracy"]):.1f}" width="{x1 - x0:.1f}"'
                     f' height="{py(0) - py(b["accuracy"]):.1f}" fill-opacity="{0.25 + 0.6 * b["n"] / most:.2f}">'
                     f'<title>{b["n"]} clips, confidence {percent(b["confidence"])}, accuracy'
                     f' {percent(b["accuracy"])}</title></rect>')
    parts.append(f'<path class="line thin dash s6" style="opacity:1" d="M{px(0)} {py(0)}L{px(1)} {py(1)}"/>')
    for v in (0, 0.25, 0.5, 0.75, 1):
        anchor = "end" if v == 1 else "middle"
        parts.append(f'<text x="{px(v):.1f}" y="{H - bottom + 15}" text-anchor="{anchor}">{100 * v:.0f}</text>')
    parts.append(f'<text x="{W - right}" y="{H - 6}" text-anchor="end">confidence, %</text>')
    return _svg(W, H, "".join(parts), "reliability diagram")


def diverging(rows: Sequence[tuple[str, float, str]]) -> str:
    """Bars on both sides of zero: (name, difference, note), such as the difference in recall per class."""
    W, row, left, right = 420, 22, 140, 60
    top = max([abs(d) for _, d, _ in rows] + [0.05])
    H, middle = row * len(rows) + 6, left + (W - left - right) / 2
    parts = [f'<path class="axis" d="M{middle} 0V{H}"/>']
    for k, (name, d, note) in enumerate(rows):
        y, length = k * row + 4, abs(d) / top * (W - left - right) / 2
        x = middle if d >= 0 else middle - length
        short = name if len(name) <= 22 else name[:21] + "…"
        parts.append(f'<text class="ink" x="{left - 8}" y="{y + 12}" text-anchor="end">{esc(short)}'
                     f"<title>{esc(name)}</title></text>")
        parts.append(f'<rect class="{"good" if d >= 0 else "bad"}" rx="2" x="{x:.1f}" y="{y + 2}"'
                     f' width="{max(length, 0.5):.1f}" height="13">'
                     f"<title>{esc(name)}: {points(d)} points {esc(note)}</title></rect>")
        parts.append(f'<text x="{W}" y="{y + 12}" text-anchor="end">{points(d, 0)}</text>')
    return _svg(W, H, "".join(parts), "difference by class")


def ticks(low: float, high: float, count: int, inside: bool = False) -> list[float]:
    """Round numbers that span low..high (with ``inside``: lie within it), in about ``count`` steps of 1, 2 or 5.

    Example:
        >>> ticks(0.13, 0.78, 4)
        [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    if high <= low:
        low, high = (low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9) if low else (0.0, 1.0)
    raw = (high - low) / max(1, count)
    unit = 10 ** math.floor(math.log10(raw))
    step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if inside:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)] or [low]


def _y_axis(grid: Sequence[float], py: object, left: float, right: float, shares: bool) -> str:
    assert callable(py)
    out = []
    for tick in grid:
        y = py(tick)
        out.append(f'<path class="axis" d="M{left} {y:.1f}H{right}"/>')
        label = f"{100 * tick:.3g} %" if shares else _number(tick)
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(out)


def _number(v: float) -> str:
    if v and (abs(v) >= 1e5 or abs(v) < 1e-3):  # longer numbers do not fit next to the axis
        return f"{v:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    return f"{v:.4g}".replace("-", "−")


def _last(c: Line) -> tuple[float, float] | None:
    return next(((x, y) for x, y in zip(reversed(c.x), reversed(c.y), strict=True) if math.isfinite(y)), None)


def _downsampled(c: Line) -> Line:
    """Reduces a curve to at most 300 points: means of equally long sections."""
    n = len(c.x)
    if n <= _MAX_POINTS:
        return c
    cuts = [round(k * n / _MAX_POINTS) for k in range(_MAX_POINTS + 1)]
    spans = [slice(a, b) for a, b in pairwise(cuts)]
    x = [sum(c.x[s]) / len(c.x[s]) for s in spans]
    y = [sum(c.y[s]) / len(c.y[s]) for s in spans]
    return Line(c.name, x, y, c.color, c.thin, c.dash)


def _svg(width: float, height: float, body: str, label: str, stretch: float = 1.25) -> str:
    return (f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{esc(label)}"'
            f' style="width:100%;max-width:{stretch * width:.0f}px">{body}</svg>')
