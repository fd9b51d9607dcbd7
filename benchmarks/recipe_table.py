"""Generates the table of keys in `docs/recipes.md` from the typed sections of a recipe: `python benchmarks/recipe_table.py`."""

from __future__ import annotations

import re
from pathlib import Path

from modalift.report.listing import listing

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"


def table() -> str:
    """One Markdown table per section."""
    parts: list[str] = []
    section = ""
    for row in listing("keys")[0]:
        first = re.split(r"\.(?=[^.]+$)", row["key"])[0] if row["key"].startswith("data.augment.") else row["key"].split(".")[0]
        if first != section:
            section = first
            parts += ["", f"## {section}", "", "| key | type | default | range | |", "|---|---|---|---|---|"]
        cells = (f"`{row['key']}`", row["type"], f"`{row['default']}`", row["range"], row["description"])
        parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts)


def with_table(text: str) -> str:
    """The page with everything between `<!-- made -->` and `<!-- end -->` generated again."""
    made = f"<!-- made -->\n{table()}\n\n<!-- end -->"
    return re.sub(r"<!-- made -->\n.*<!-- end -->", lambda _: made, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
