"""The dataset ``darkroom``: what ``modalift simulate`` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modalift.datasets.manifest import read_manifest
from modalift.datasets.registry import dataset
from modalift.errors import ModaliftError
from modalift.modalities import Table


def is_darkroom(root: Path) -> bool:
    """Whether a folder was written by the simulator."""
    about = root / "dataset.json"
    return about.is_file() and b'"modalift-darkroom/' in about.read_bytes()[:200]


@dataset("darkroom", recognize=is_darkroom)
def read_darkroom(root: Path, *, test_subjects: Sequence[str] | None = None,
                  val_subjects: Sequence[str] | None = None) -> Table:
    """Simulated clips, with the views, spaces and mirrored classes of ``dataset.json``.

    Args:
        root: a folder that ``modalift simulate`` wrote.
        test_subjects, val_subjects: subjects whose clips form these splits, instead of the simulator's splits.

    Raises:
        ModaliftError: the folder is not such a dataset.
    """
    about_file = root / "dataset.json"
    try:
        about = json.loads(about_file.read_text(encoding="utf-8"))
        rate, known, spaces = about["rate"], about["views"], about["spaces"]
        mirrored, classes = about["mirrored"], about["classes"]
    except FileNotFoundError:
        raise ModaliftError(f"{about_file} does not exist - make the dataset with `modalift simulate {root}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModaliftError(f"{about_file} does not describe simulated clips ({error}) - simulate them again") from None
    views = {view: {"modality": kind, "rate": rate, "space": spaces[view]} for view, kind in known.items()}
    table = read_manifest(root, views=views, mirrored=mirrored, classes=classes, first_label=0,
                          test_subjects=test_subjects, val_subjects=val_subjects, name="darkroom")
    return table.map(lambda row: replace(row, metadata={k: v for k, v in row.metadata.items() if k != "rate"}))
