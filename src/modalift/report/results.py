"""Evaluation results as tables and sentences, from the columns that each kind of model declares.

A kind of model declares its headline metric and the columns of its result tables; this module does not depend on their
meaning. Further content of a kind, such as a confusion matrix, is in :mod:`modalift.report.extras`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from modalift.models import KINDS, Column
from modalift.report import html, scope
from modalift.report.html import esc
from modalift.report.numbers import shown
from modalift.report.terminal import figures, warned

#: Metrics of one network on one split, as ``results.json`` has them.
Metrics = Mapping[str, Any]
#: The leading cells of a table row (the network, the split), and its metrics.
ResultRow = tuple[tuple[str, ...], Metrics]
#: Long tables in the metrics, which are not shown on a terminal.
_LONG = ("confusion", "per_class", "by_metadata", "by_subject", "per_clip", "calibration")


#: The only column for results of a kind that is not registered.
_CLIPS = Column("n", "clips", "count")


@dataclass(frozen=True)
class Presentation:
    """How results of a kind of model are shown: the headline metric, and the table columns."""

    kind: str
    headline: Column
    columns: tuple[Column, ...]


def kind_of(metrics: Metrics) -> Presentation:
    """How the metrics of a kind of model are shown; for a kind that is not registered, only the number of clips."""
    name = str(metrics.get("kind"))
    if name not in KINDS:
        return Presentation(name, _CLIPS, (_CLIPS,))
    return Presentation(name, KINDS[name].headline, KINDS[name].columns)


def headlines() -> list[Column]:
    """The headline metrics of all kinds, without duplicates."""
    return list(dict.fromkeys(kind.headline for kind in map(KINDS.__getitem__, KINDS)))


def headline_value(metrics: Metrics) -> float:
    """The headline metric, or 0 if it is unknown; networks are sorted by it."""
    return float(kind_of(metrics).headline.of(metrics) or 0)


def brief(metrics: Metrics) -> dict[str, Any]:
    """The metrics of one evaluation without the long tables."""
    return {k: v for k, v in metrics.items() if k not in _LONG}


def column_of(key: str) -> Column | None:
    """The column that some kind declares for a key, if any."""
    return next((c for kind in map(KINDS.__getitem__, KINDS) for c in kind.columns if c.key == key), None)


# ---- tables ---------------------------------------------------------------------------------------------------------


def grouped(rows: Iterable[ResultRow]) -> list[list[ResultRow]]:
    """Groups rows that have the same columns."""
    groups: dict[tuple[Column, ...], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(kind_of(row[1]).columns, []).append(row)
    return list(groups.values())


def terminal_tables(found: Mapping[str, Metrics], split: str) -> Group:
    """One row per network; kinds with different columns are in separate tables. Warnings come first, notes last."""
    tables: list[RenderableType] = [*warned(scope.warnings(found.items()))]
    for members in grouped(((role,), m) for role, m in found.items()):
        kind = kind_of(members[0][1])
        rows = [(*names, *(Text(_cell(m, c), "bold" if c == kind.headline else "") for c in kind.columns))
                for names, m in members]
        words = ["network", *(c.title for c in kind.columns if c.format == "text")]
        tables.append(figures(f"split: {split}", ("network", *(c.title for c in kind.columns)), rows, words))
    return Group(*tables, *(Text(line) for line in scope.notes([*found.items()])))


def title_of(found: Mapping[str, Metrics], split: str) -> str:
    """The split, with the conditions of the evaluation that are not the run's own."""
    conditions = {str((m.get("evidence") or {}).get("conditions", "")) for m in found.values()} - {""}
    return ", ".join([split, *sorted(conditions)])


def page_table(members: Sequence[ResultRow]) -> str:
    """One row per network and split, as HTML; all rows have the same columns."""
    columns = kind_of(members[0][1]).columns
    rows = [(*names, *(_cell(m, c) for c in columns)) for names, m in members]
    return html.table(("network", "split", *(c.title for c in columns)), rows,
                      [2 + k for k, c in enumerate(columns) if c.format != "text"])


def _cell(metrics: Metrics, column: Column) -> str:
    """One figure; the number of clips tells how many there are in all."""
    return scope.clips_of(metrics) if column == _CLIPS else shown(column.of(metrics), column.format)


# ---- the head of a page ---------------------------------------------------------------------------------------------


def sentence(metrics: Metrics, split: str) -> str:
    """Sentences with the headline metric, its widest interval and for whom it holds, as HTML."""
    kind = kind_of(metrics)
    if not metrics["n"]:
        return f"No clip of the {esc(split)} split could be scored: {esc(scope.left_out(metrics) or 'there is none')}."
    subjects = scope.subjects_of(metrics)
    of = "" if not subjects else " of one subject" if subjects == 1 else f" of {subjects} subjects"
    texts = "".join(f", {esc(c.title)} <b>{_value(metrics, c)}</b>" for c in kind.columns if c.format == "text")
    known = [c for c in kind.columns if c.format == "interval" and c.of(metrics)]
    interval = f" ({esc(known[-1].title)}: {_value(metrics, known[-1])})" if known else ""
    clips = scope.clips_of(metrics)
    people = scope.people(metrics)
    return (f"On the {clips} clip{'s' * (clips != '1')}{of} in the {esc(split)} split{texts}, its {esc(kind.headline.title)} is"
            f" <b>{_value(metrics, kind.headline)}</b>{interval}.{f' {esc(people)}' if people else ''}")


def tiles(metrics: Metrics, split: str) -> list[tuple[str, str]]:
    """The headline metric and the next one, each with its name."""
    kind = kind_of(metrics)
    over = next((c for c in kind.columns if c.format == "interval"), None)
    interval = f"; {over.title}: {shown(over.of(metrics), over.format)}" if over else ""
    entries = [(shown(kind.headline.of(metrics), kind.headline.format), f"{kind.headline.title}, {split}{interval}")]
    more = [c for c in kind.columns if c != kind.headline and c.format in ("percent", "number1", "number3")]
    return entries + [(shown(c.of(metrics), c.format), c.title) for c in more[:1]]


def _value(metrics: Metrics, column: Column) -> str:
    return esc(shown(column.of(metrics), column.format))
