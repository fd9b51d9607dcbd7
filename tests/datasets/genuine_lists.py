"""The genuine lists of datasets, where they are: beside the checkout, in `../shared/lists`."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

ARCHIVE = Path(__file__).resolve().parents[3] / "shared" / "lists" / "real-lists.tar.xz"
needed = pytest.mark.skipif(not ARCHIVE.is_file(), reason="../shared/lists/real-lists.tar.xz, the genuine lists, is not here")


def unpack(dataset: str, to: Path) -> Path:
    """Unpacks the lists of one dataset; their folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(to, [m for m in archive if m.name.startswith(f"./{dataset}/")], filter="data")
    return to / dataset
