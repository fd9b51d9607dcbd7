"""Findings about a network as a table and as JSON."""

from __future__ import annotations

import io

from rich.console import Console

from modalift.engine.diagnose import Finding
from modalift.report import diagnosis


def test_brackets_in_findings_stay_text() -> None:
    findings = [Finding("[red]x", "wrong", "a [bold] clip", {"p": 0.1})]
    assert diagnosis.as_json(findings) == [
        {"check": "[red]x", "state": "wrong", "message": "a [bold] clip", "figures": {"p": 0.1}}]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(diagnosis.render(findings))
    said = console.export_text()
    assert "[red]x" in said
    assert "a [bold] clip" in said
