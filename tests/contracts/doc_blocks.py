"""Blocks of code in the documentation, and how they are run.

A page whose first line is ``<!-- test: run -->`` is run: its ``bash`` and ``python`` blocks, in order, in one folder; with
``<!-- test: run after OTHER.md -->`` in the folder of another page, after that page. All other pages are only parsed.

A comment before a block says what differs in the test, and nothing else may differ:

- ``<!-- test: skip: REASON -->``: the block is parsed, not run;
- ``<!-- test: "A" as "B", "C" as "D" -->``: in the block, A is replaced by B, so that minutes become seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- test: ((?:(?!-->).)+) -->\n\Z", re.DOTALL)
_SWAP = re.compile(r'"([^"]*)" as "([^"]*)"')


@dataclass(frozen=True)
class Block:
    """A block of a page, as it is shown.

    Attributes:
        page: the file; line: where the block starts.
        language: bash, console, python, yaml, ...
        text: what is shown.
        skipped: whether it is not run.
        swaps: what is replaced when it is run.
    """

    page: Path
    line: int
    language: str
    text: str
    skipped: bool = False
    swaps: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def run_as(self) -> str:
        """The text that the test runs."""
        text = self.text
        for shown, run in self.swaps:
            assert shown in text, f"{self.where}: the block does not hold '{shown}'"
            text = text.replace(shown, run)
        return text

    def commands(self) -> list[str]:
        """The command lines of a shell block, without what it prints (``console``) and without the files that it writes."""
        text = re.sub(r"<<'(\w+)'.*?^\1$", "", self.text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
        lines = [line.strip() for line in text.splitlines()]
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line and not line.startswith("#")]


def pages() -> list[Path]:
    """Every page that people read: README, CONTRIBUTING and the pages of docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text()
    found = []
    for each in _BLOCK.finditer(text):
        mark = _MARK.search(text[: each.start()])
        said = mark[1] if mark else ""
        shown = re.sub(rf"^{each['indent']}", "", each["text"], flags=re.MULTILINE)
        found.append(Block(page, text[: each.start()].count("\n") + 1, each["language"], shown,
                           skipped=said.startswith("skip: "), swaps=tuple(_SWAP.findall(said))))
    return found


def runs_after(page: Path) -> Path | None:
    """Whether a page is run: after which page, itself if after none, None if it is not run."""
    mark = re.match(r"<!-- test: run(?: after (\S+))? -->\n", page.read_text())
    if not mark:
        return None
    return (page.parent / mark[1]).resolve() if mark[1] else page
