"""What the simulator writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modalift.darkroom import simulate


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with."""
    simulate(root, clips=12, size=32, frames=4, train_subjects=2, val_subjects=1, test_subjects=1)
    return {}
