"""Tables for the terminal: results, comparisons, studies."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from modalift.engine.statistics import main_interval
from modalift.report import scope
from modalift.report.numbers import UNKNOWN, percent, points, points_span, quantity

#: Characters of a name that stay on one line however narrow the terminal is.
WORD_WIDTH = 7


def figures(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], words: Collection[str] = ()) -> Table:
    """A table that fits 80 columns if possible: headings, text and intervals are wrapped, numbers are not.

    Args:
        title: the title above the table.
        head: the headings.
        rows: cells, str or :class:`~rich.text.Text`.
        words: headings of the text columns, which are left-aligned.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
                  show_edge=False)
    for k, name in enumerate(head):
        if name in words:
            longest = max((len(str(row[k])) for row in rows), default=0)
            table.add_column(name, overflow="fold", min_width=min(longest, WORD_WIDTH))
        else:
            cells = [str(row[k]) for row in rows]
            width = max(map(len, (*name.split(), *cells)))
            may_fold = any(" to " in cell for cell in cells)
            table.add_column(name if may_fold else textwrap.fill(name, width), justify="right", no_wrap=not may_fold)
    for row in rows:  # Text, not str: names may contain brackets, which Rich would read as markup
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def comparison(found: Mapping[str, Any]) -> Group:
    """One row per run, with its paired difference from the first; warnings come first, notes last."""
    more = " and seeds" if any("seeds" in (row["against_first"] or {}) for row in found["rows"]) else ""
    head = ("run", "view", "epochs", "training MACs", "top-1", "Δ, points", f"95 % CI over clips{more}",
            f"95 % CI over subjects{more}")
    rows = []
    for row in found["rows"]:
        pair = row["against_first"]
        gap: tuple[str, ...] = ("", "", "")
        if pair:
            gap = (points(pair["difference"]), *(points_span(pair["intervals"][over]) for over in ("clips", "subjects")))
        rows.append((row["name"], row["view"] or UNKNOWN, str(row["epochs"] or UNKNOWN),
                     quantity(row["training_macs"]), Text(percent(row["top1"]), "bold"), *gap))
    table = figures(f"top-1 on {scope.clips_of(found['rows'][0])} clips of the split '{found['split']}', Δ: difference"
                    f" from '{found['baseline']}'", head, rows, ("run", "view"))
    return _with_notes(table, found)


def study(found: Mapping[str, Any]) -> Group:
    """One row per recipe, with its paired difference from the first; warnings come first, notes last."""
    pairs = [pair for row in found["rows"] if (pair := row.get("against_first"))]
    over = main_interval(pairs[0])[1] if pairs else "over clips and seeds"
    head = ("recipe", "epochs", "training MACs", "seconds", "seeds", "mean", "standard deviation", "Δ, points",
            f"95 % CI {over}")
    rows = []
    for row in found["rows"]:
        pair = row.get("against_first")
        gap = (points(pair["difference"]), points_span(main_interval(pair)[0])) if pair else ("", "")
        seconds = UNKNOWN if row["seconds"] is None else f"{row['seconds']:.0f}"
        rows.append((row["name"], str(row["epochs"]), quantity(row["training_macs"]), seconds,
                     str(len(row["top1"])), Text(percent(row["mean"]), "bold"), percent(row["sd"]), *gap))
    table = figures(f"top-1 on {scope.clips_of(found['rows'][0])} clips of the split '{found['split']}', over seeds; Δ:"
                    " difference from the first", head, rows, ("recipe",))
    return _with_notes(table, found)


def _with_notes(table: Table, found: Mapping[str, Any]) -> Group:
    named = scope.compared(found)
    return Group(*warned(scope.warnings(named)), table, *map(Text, scope.notes(named)))


def warned(lines: Sequence[str]) -> list[Text]:
    """Warnings, each a line."""
    return [Text(f"warning: {line}", "bold yellow") for line in lines]
