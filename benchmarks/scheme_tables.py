"""Generates the tables of settings in `docs/schemes/*.md` from each scheme's constructor: `python benchmarks/scheme_tables.py`.

Names and defaults come from the signature, meanings from the docstring. A last column, with the value in the paper or in its
authors' code, is written by hand and kept.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from modalift.schemes import SCHEMES, settings_of

PAGES = Path(__file__).resolve().parents[1] / "docs" / "schemes"
#: Conversions from docstring markup to Markdown.
WORDS = ((r":math:`(.+?)`", r"$\1$"), (r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`"), (r"``(.+?)``", r"`\1`"))


def arguments(name: str) -> dict[tuple[str, ...], str]:
    """Names of arguments that a docstring explains together -> their explanation, as Markdown."""
    text = inspect.getdoc(SCHEMES[name]) or ""
    part = re.search(r"^Args:\n((?: {4}.*\n|\n)+)", text + "\n", re.MULTILINE)
    found: dict[tuple[str, ...], str] = {}
    for entry in re.finditer(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", part[1] if part else "", re.MULTILINE):
        said = " ".join(entry[2].split())
        for pattern, new in WORDS:
            said = re.sub(pattern, new, said)
        found[tuple(entry[1].split(", "))] = said
    return found


def shown(default: Any) -> str:
    """A default in the syntax of a recipe."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return "null" if default is None else str(default) or '""'


def table(name: str, old: str = "") -> str:
    """One row for the settings that are explained together; the last column of the ``old`` table is kept."""
    defaults = settings_of(name)
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in old.splitlines()]
    kept = {row[0]: row[3] for row in rows if len(row) == 4}
    title = kept.get("setting", "")
    lines = ["| setting | default | meaning |" + (f" {title} |" if title else ""), "|---|---|---|" + ("---|" if title else "")]
    for names, meaning in arguments(name).items():
        if all(n in defaults for n in names):
            key = ", ".join(f"`{n}`" for n in names)
            row = f"| {key} | {', '.join(f'`{shown(defaults[n])}`' for n in names)} | {meaning} |"
            lines.append(row + (f" {kept.get(key) or '.'} |" if title else ""))
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """A page with everything between `<!-- made: settings SCHEME -->` and `<!-- end -->` generated again."""
    return re.sub(r"<!-- made: settings (\w+) -->\n(.*?)<!-- end -->",
                  lambda m: f"<!-- made: settings {m[1]} -->\n{table(m[1], m[2])}\n<!-- end -->", text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(with_tables(page.read_text()))
