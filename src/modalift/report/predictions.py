"""What a bundle predicted for many recordings, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from modalift.deploy.predict import Answer
from modalift.report.numbers import percent


def as_json(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Plain values: each a Prediction's, or ``{"clip": ..., "error": ...}``."""
    return [{"clip": a.clip, "error": a.error} if a.prediction is None else a.prediction.to_dict() for a in answers]


def render(answers: Sequence[Answer]) -> Group:
    """A table of the predictions, and a line for each recording that has none."""
    parts: list[Table | Text] = []
    good = [(a.clip, a.prediction) for a in answers if a.prediction is not None]
    if good:
        table = Table(title_justify="left", expand=True)
        # A long path folds: its end tells clips of one folder apart.
        table.add_column("clip", overflow="fold", ratio=1)
        table.add_column("label", style="bold")
        table.add_column("probability", justify="right")
        table.add_column("next most probable")
        for clip, found in good:
            others = ", ".join(f"{name} {percent(p, 0)}" for name, p in found.top[1:])
            # Text, not str: names of files and classes may hold brackets, which are markup to Rich.
            table.add_row(Text(clip), Text(found.label), percent(found.probability), Text(others))
        parts.append(table)
    parts += [Text.assemble(("error ", "bold red"), a.error) for a in answers if a.error]
    return Group(*parts)
