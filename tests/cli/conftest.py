"""Running a command line in this process."""

from __future__ import annotations

import sys

import pytest

from modalift import cli


@pytest.fixture
def modalift(monkeypatch, capsys):
    """Runs a command line in this process: ``(code, stdout, stderr)``."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modalift", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def wrong(modalift):
    """Asserts that a command is refused with exit code 2 and one line, and returns the line."""

    def run(*words: object) -> str:
        code, _, said = modalift(*words)
        assert code == 2, said
        assert said.startswith("error ")
        assert len(said.strip().splitlines()) == 1, said
        assert "Traceback" not in said
        return said

    return run
