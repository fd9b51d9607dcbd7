"""Results of evaluations as tables, figures and sentences, from what each kind of model declares about them.

A kind of model declares its headline figure and the columns of its result tables; nothing here knows what they mean. What a
kind shows besides, such as a confusion matrix, stands in :mod:`modalift.report.extras`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from modalift.models import KINDS, Column
from modalift.report import html
from modalift.report.html import esc
from modalift.report.numbers import shown
from modalift.report.terminal import figures

#: Metrics of one network on one split, as ``results.json`` has them.
Metrics = Mapping[str, Any]
#: Words in front of a row of a table (the network, the split), and the metrics in it.
ResultRow = tuple[tuple[str, ...], Metrics]
#: Long tables inside of metrics, which a terminal leaves out.
_LONG = ("confusion", "per_class", "by_fact", "by_subject", "per_clip", "calibration")


#: What is shown of results whose kind is not registered here.
_CLIPS = Column("n", "clips", "count")


@dataclass(frozen=True)
class Shown:
    """What is shown of a kind of results: its headline figure, and the columns of its tables."""

    kind: str
    headline: Column
    columns: tuple[Column, ...]


def kind_of(metrics: Metrics) -> Shown:
    """What the kind of model that metrics are of declares; of one that is not registered here, no more than the clips."""
    name = str(metrics.get("kind"))
    if name not in KINDS:
        return Shown(name, _CLIPS, (_CLIPS,))
    return Shown(name, KINDS[name].headline, KINDS[name].columns)


def headlines() -> list[Column]:
    """The headline figure of every kind, each once."""
    return list(dict.fromkeys(kind.headline for kind in map(KINDS.__getitem__, KINDS)))


def headline_value(metrics: Metrics) -> float:
    """The headline figure, or 0 where it is not known: what networks are ordered by."""
    return float(kind_of(metrics).headline.of(metrics) or 0)


def brief(metrics: Metrics) -> dict[str, Any]:
    """The figures of one evaluation without its long tables."""
    return {k: v for k, v in metrics.items() if k not in _LONG}


def column_of(key: str) -> Column | None:
    """The column that any kind declares for a key."""
    return next((c for kind in map(KINDS.__getitem__, KINDS) for c in kind.columns if c.key == key), None)


# ---- tables ---------------------------------------------------------------------------------------------------------


def grouped(rows: Iterable[ResultRow]) -> list[list[ResultRow]]:
    """Rows in groups that have the same columns."""
    groups: dict[tuple[Column, ...], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(kind_of(row[1]).columns, []).append(row)
    return list(groups.values())


def terminal_tables(found: Mapping[str, Metrics], split: str) -> Group:
    """One row per network; networks whose kinds have other columns are in a table of their own."""
    tables = []
    for members in grouped(((role,), m) for role, m in found.items()):
        kind = kind_of(members[0][1])
        rows = [(*names, *(Text(shown(c.of(m), c.format), "bold" if c == kind.headline else "")
                           for c in kind.columns)) for names, m in members]
        words = ["network", *(c.title for c in kind.columns if c.format == "text")]
        tables.append(figures(f"split: {split}", ("network", *(c.title for c in kind.columns)), rows, words))
    return Group(*tables)


def page_table(members: Sequence[ResultRow]) -> str:
    """One row per network and split, as HTML; all rows have the same columns."""
    columns = kind_of(members[0][1]).columns
    rows = [(*names, *(shown(c.of(m), c.format) for c in columns)) for names, m in members]
    return html.table(("network", "split", *(c.title for c in columns)), rows,
                      [2 + k for k, c in enumerate(columns) if c.format != "text"])


# ---- the head of a page ---------------------------------------------------------------------------------------------


def sentence(metrics: Metrics, split: str) -> str:
    """The headline figure with its widest interval, as HTML."""
    kind = kind_of(metrics)
    people = len(metrics.get("by_subject") or [])
    of = "" if not people else " of one subject" if people == 1 else f" of {people} subjects"
    texts = "".join(f", {esc(c.title)} <b>{_value(metrics, c)}</b>" for c in kind.columns if c.format == "text")
    known = [c for c in kind.columns if c.format == "interval" and c.of(metrics)]
    said = f" ({esc(known[-1].title)}: {_value(metrics, known[-1])})" if known else ""
    return (f"On the {metrics['n']:,} clips{of} in the {esc(split)} split{texts}, its {esc(kind.headline.title)} is"
            f" <b>{_value(metrics, kind.headline)}</b>{said}.")


def tiles(metrics: Metrics, split: str) -> list[tuple[str, str]]:
    """The headline figure and the next one, each with its name."""
    kind = kind_of(metrics)
    over = next((c for c in kind.columns if c.format == "interval"), None)
    said = f"; {over.title}: {shown(over.of(metrics), over.format)}" if over else ""
    entries = [(shown(kind.headline.of(metrics), kind.headline.format), f"{kind.headline.title}, {split}{said}")]
    more = [c for c in kind.columns if c != kind.headline and c.format in ("percent", "number1", "number3")]
    return entries + [(shown(c.of(metrics), c.format), c.title) for c in more[:1]]


def _value(metrics: Metrics, column: Column) -> str:
    return esc(shown(column.of(metrics), column.format))
