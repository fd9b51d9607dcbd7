"""The findings of `modalift diagnose` about a trained network, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from modalift.engine.diagnose import Finding

_COLORS = {"good": "green", "warning": "yellow", "wrong": "bold red", "unknown": "dim"}


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as plain dictionaries."""
    return [asdict(f) for f in findings]


def render(findings: Sequence[Finding]) -> Table:
    """One row per check."""
    table = Table(title="diagnosis", title_justify="left", show_lines=True)
    for name in ("check", "state", "finding"):
        table.add_column(name)
    for f in findings:
        table.add_row(Text(f.check), Text(f.state, _COLORS.get(f.state, "")), Text(f.message))
    return table
