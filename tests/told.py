"""A monitor that keeps its messages."""

from __future__ import annotations

from modalift.engine.monitor import Monitor


class Told(Monitor):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, *, warning: bool = False) -> None:
        self.lines.append(text)
