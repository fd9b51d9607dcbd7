"""A manifest of clips, seen as depth and as joints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import write_tiny


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    write_tiny(root, clips=12, frames=3, size=24)
    return {}
