"""The published release of a dataset: what it holds, and how much of it a folder has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modalift.modalities import SPLITS, Table


@dataclass(frozen=True)
class Release:
    """What the published release of a dataset holds.

    Attributes:
        views: view -> name of its modality.
        classes: class names; numbers as text where the release gives no names.
        clips: split -> number of clips; or ``total`` -> number of clips, where the split is a choice of the protocol.
        source: the paper.
        download: where to get it, in words.
    """

    views: Mapping[str, str]
    classes: tuple[str, ...]
    clips: Mapping[str, int]
    source: str
    download: str


@dataclass(frozen=True)
class Comparison:
    """A folder beside the release of its dataset.

    Attributes:
        dataset: the dataset that the folder was taken for.
        guessed: whether it was recognized from the folder, not given.
        clips: split (or ``total``) -> number of clips here, number of clips in the release; empty if there is no release.
        absent_views: views of the release that no clip has here.
        source, download: as in :class:`Release`.
    """

    dataset: str
    guessed: bool
    clips: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    absent_views: tuple[str, ...] = ()
    source: str = ""
    download: str = ""

    @property
    def complete(self) -> bool:
        """Whether there are as many clips as in the release, in all its views."""
        return not self.absent_views and all(found == of for found, of in self.clips.values())


def compare(table: Table, dataset: str, guessed: bool, release: Release | None) -> Comparison:
    """A table beside the release of its dataset, if there is one."""
    if release is None:
        return Comparison(dataset, guessed)
    found = {**table.counts(lambda row: row.split), "total": len(table)}
    seen = {view for row in table for view in row.tracks}
    counted = ("total",) if "total" in release.clips else SPLITS
    clips = {split: (found.get(split, 0), release.clips.get(split, 0)) for split in counted
             if found.get(split) or release.clips.get(split)}
    return Comparison(dataset, guessed, clips, tuple(view for view in release.views if view not in seen), release.source,
                      release.download)
