"""Progress and messages on a terminal, in a log, and of the silent monitor."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from modalift.engine.monitor import Monitor
from modalift.report import console as consoles
from modalift.report.console import ConsoleMonitor


def monitor(terminal: bool) -> tuple[ConsoleMonitor, io.StringIO]:
    out = io.StringIO()
    return ConsoleMonitor(Console(file=out, force_terminal=terminal, width=120)), out


def test_a_monitor_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Monitor()
    silent.message("words", warning=True)
    with silent.progress("training", 10) as update:
        update(3, "note")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar_with_the_last_note() -> None:
    own, out = monitor(terminal=True)
    with own.progress("training", 10, done=2) as update:
        update(5, "val 0.5 [x]")
        update(10, "")
    text = out.getvalue()
    assert "training" in text
    assert "10/10" in text
    assert "val 0.5 [x]" in text


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(consoles.time, "monotonic", lambda: now[0])
    own, out = monitor(terminal=False)
    with own.progress("training", 400, done=100) as update:
        for done in range(101, 401):
            now[0] += 0.35
            update(done, "val 0.5")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3  # 105 seconds, one line every 30
    assert lines[0] == "training 186/400, 1:15 left, val 0.5"


def test_nothing_in_a_log_of_a_short_task() -> None:
    own, out = monitor(terminal=False)
    with own.progress("training", 10) as update:
        update(10, "")
    assert out.getvalue() == ""


def test_brackets_in_messages_stay_text() -> None:
    own, out = monitor(terminal=False)
    own.message("left out a [red]b[/x]: broken", warning=True)
    assert out.getvalue() == "left out a [red]b[/x]: broken\n"
