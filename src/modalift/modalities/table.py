"""The Table: one row per clip, one column per view; every dataset becomes one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modalift.errors import ModaliftError, nearest
from modalift.modalities.modality import Modality

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Track:
    """One sensor's recording of one clip: where its frames are, and when and whence they were seen.

    Attributes:
        path: a video that PyAV opens, a folder of images, or an ``.npz`` / ``.npy`` file of signals.
        key: the array inside an ``.npz`` (joints of many clips in one file).
        start, end: frame window in *decode order*, 0-based, end exclusive; None means up to the last frame.
        rate: frames per second, where known.
        timestamps: seconds of each frame of the window, where they were recorded; they outrank ``rate``.
        offset_ms: this sensor's clock minus the table's, in milliseconds.
        space: name of the frame of reference; views of one space share geometric augmentation. Empty: its own.
        affine: 2 x 3 matrix from this track's normalized coordinates (-1..1) to those of ``space``, or None.
    """

    path: Path
    key: str = ""
    start: int = 0
    end: int | None = None
    rate: float | None = None
    timestamps: tuple[float, ...] = ()
    offset_ms: float = 0.0
    space: str = ""
    affine: tuple[float, float, float, float, float, float] | None = None


@dataclass(frozen=True)
class Row:
    """One event, as every sensor that was there recorded it.

    ``label`` is None for a clip that nobody labeled; a view that is missing from ``tracks`` is a sensor that was
    absent. ``facts`` holds further columns (illuminance in lux, condition, trial), for reports and selections.
    """

    id: str
    label: int | None
    subject: str
    split: str
    tracks: Mapping[str, Track]
    facts: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Clips of one dataset.

    Attributes:
        name: the dataset's name.
        classes: class names; ``Row.label`` counts into them.
        views: each view's Modality, in the dataset's order.
        rows: the clips.
        mirrored: label -> label of the mirror image, where a mirror image changes or keeps the class; a label that
            is missing here forbids mirroring.
    """

    name: str
    classes: tuple[str, ...]
    views: Mapping[str, Modality]
    rows: tuple[Row, ...]
    mirrored: Mapping[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def where(self, keep: Callable[[Row], bool]) -> Table:
        """The rows for which ``keep`` is true; everything else unchanged."""
        return replace(self, rows=tuple(r for r in self.rows if keep(r)))

    def split(self, name: str) -> Table:
        """The rows of one split: ``train``, ``val`` or ``test``."""
        if name not in SPLITS:
            raise ModaliftError(f"unknown split '{name}' - {nearest(name, SPLITS)}")
        return self.where(lambda r: r.split == name)

    def map(self, change: Callable[[Row], Row]) -> Table:
        """A table with every row changed (labels hidden, splits redrawn)."""
        return replace(self, rows=tuple(change(r) for r in self.rows))

    def modality(self, view: str) -> Modality:
        """The modality of a view, or an error that names the views there are."""
        if view not in self.views:
            raise ModaliftError(f"{self.name} has no view '{view}' - {nearest(view, self.views)}"
                                f" (its views: {', '.join(self.views) or 'none'})")
        return self.views[view]

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(sorted({r.subject for r in self.rows}))

    def counts(self, by: Callable[[Row], str]) -> Counter[str]:
        return Counter(by(r) for r in self.rows)

    def fingerprint(self) -> str:
        """Twelve hex digits that change when a clip, a label, a split or a window does (not with the root folder)."""
        text = "\n".join(
            f"{r.id}|{r.label}|{r.subject}|{r.split}|"
            + ",".join(f"{v}:{t.path.name}:{t.key}:{t.start}:{t.end}" for v, t in sorted(r.tracks.items()))
            for r in self.rows
        )
        return hashlib.sha256((self.name + "|".join(self.classes) + text).encode()).hexdigest()[:12]


def build_table(name: str, classes: Sequence[str], views: Mapping[str, Modality], rows: Iterable[Row],
                mirrored: Mapping[int, int] | None = None) -> Table:
    """A Table whose promises hold: unique ids, known splits, labels inside the classes, known views.

    Raises:
        ModaliftError: naming the first clip that breaks one of them.
    """
    table = Table(name, tuple(classes), dict(views), tuple(rows), dict(mirrored or {}))
    seen: set[str] = set()
    for row in table.rows:
        if row.id in seen:
            raise ModaliftError(f"{name}: clip '{row.id}' appears twice - ids must be unique")
        seen.add(row.id)
        if row.split not in SPLITS:
            raise ModaliftError(f"{name}: clip '{row.id}' has split '{row.split}' - use one of {', '.join(SPLITS)}")
        if row.label is not None and not 0 <= row.label < len(table.classes):
            raise ModaliftError(f"{name}: clip '{row.id}' has label {row.label}, but there are {len(table.classes)}"
                                " classes (labels count from 0)")
        for view in row.tracks:
            table.modality(view)
    if not table.rows:
        raise ModaliftError(f"{name}: no clip was found - check the root folder")
    return table
