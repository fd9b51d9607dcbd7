"""A bundle's predictions for several recordings, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from modalift.deploy.predict import Outcome
from modalift.report.numbers import percent


def as_json(results: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Plain values: those of each Prediction, or ``{"clip": ..., "error": ...}``."""
    return [{"clip": a.clip, "error": a.error} if a.prediction is None else a.prediction.to_dict() for a in results]


def render(results: Sequence[Outcome]) -> Group:
    """A table of the predictions, followed by one line per recording that could not be read."""
    parts: list[Table | Text] = []
    good = [(a.clip, a.prediction) for a in results if a.prediction is not None]
    if good:
        table = Table(title_justify="left", expand=True)
        # Long paths are wrapped, not truncated: clips of one folder differ at the end of their paths.
        table.add_column("clip", overflow="fold", ratio=1)
        table.add_column("label", style="bold")
        table.add_column("probability", justify="right")
        table.add_column("next most probable")
        for clip, found in good:
            others = ", ".join(f"{name} {percent(p, 0)}" for name, p in found.top[1:])
            # Text, not str: names of files and classes may hold brackets, which are markup to Rich.
            table.add_row(Text(clip), Text(found.label), percent(found.probability), Text(others))
        parts.append(table)
    parts += [Text.assemble(("error ", "bold red"), a.error) for a in results if a.error]
    return Group(*parts)
