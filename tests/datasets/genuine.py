"""The genuine lists of annotations, where they are beside the checkout."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

LISTS = Path(__file__).resolve().parents[3] / "shared" / "lists" / "real-lists.tar.xz"
needed = pytest.mark.skipif(not LISTS.is_file(), reason="../shared/lists with the genuine lists is absent")


def unpack(dataset: str, into: Path) -> Path:
    """Unpacks the lists of one dataset; the folder with them."""
    with tarfile.open(LISTS) as archive:
        archive.extractall(into, [m for m in archive if m.name.startswith(f"./{dataset}/")], filter="data")
    return into / dataset
