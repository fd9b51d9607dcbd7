"""The dataset ``darkroom``: what ``modalift simulate`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from annotated_types import Gt
from pydantic import ConfigDict

from modalift.datasets.manifest import ViewSpec, read_manifest
from modalift.datasets.registry import dataset
from modalift.errors import ModaliftError
from modalift.files import is_file, read_bytes, read_json
from modalift.modalities import Table
from modalift.settings import Settings


class About(Settings):
    """What a table needs of ``dataset.json``."""

    model_config = ConfigDict(extra="ignore")
    rate: Annotated[float, Gt(0)]
    views: dict[str, str]
    spaces: dict[str, str]
    mirrored: dict[str, str]
    classes: list[str]


def is_darkroom(root: Path) -> bool:
    """Whether a folder was written by the simulator."""
    about = root / "dataset.json"
    return is_file(about) and b'"modalift-darkroom/' in read_bytes(about, most=200)


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
    advice = f"make the dataset with `modalift simulate {root}`"
    held = read_json(about_file, dict, advice)
    try:
        about = About.parse(held, about_file.name)
    except ModaliftError as error:
        raise ModaliftError(f"{root}: does not describe simulated clips ({error}) - {advice}") from None
    views = {view: ViewSpec(modality=kind, rate=about.rate, space=about.spaces.get(view, ""))
             for view, kind in about.views.items()}
    table = read_manifest(root, views=views, mirrored=about.mirrored, classes=about.classes, first_label=0,
                          test_subjects=test_subjects, val_subjects=val_subjects, name="darkroom")
    return table.map(lambda row: replace(row, metadata={k: v for k, v in row.metadata.items() if k != "rate"}))
