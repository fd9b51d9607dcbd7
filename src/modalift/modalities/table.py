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
#: Letters of the longest name of a clip, class or subject.
LONGEST = 1000

#: Cells that say that a value is not known, in small letters: the empty cell, what pandas, R and spreadsheets write for a
#: missing value, and common words.
_UNKNOWN = frozenset(("", "-", "--", "?", "??", "-1", "#n/a", "<na>", "n/a", "na", "nan", "-nan", "nil", "none", "null", "unk",
                      "unknown", "undefined", "missing", "anonymous", "not known", "not available"))


def is_known(cell: str) -> bool:
    """Whether a cell of a subject, or of metadata as text, names something, rather than say that it is not known.

    Clips of unknown subject are not clips of one subject: they are no fold, no held-out subject and no cluster of an
    interval over subjects.

    Example:
        >>> [is_known(cell) for cell in ("s03", "anna", "", "unknown", "N/A", " ? ", "nan", "-")]
        [True, True, False, False, False, False, False, False]
    """
    return cell.strip().casefold() not in _UNKNOWN


@dataclass(frozen=True)
class Track:
    """One sensor's recording of one clip: its files, its timing and its frame of reference.

    Attributes:
        path: a video file, a folder of images, or a file of arrays: ``.npz``, ``.npy``, ``.mat`` (MATLAB), ``.skeleton``
            (Kinect bodies), ``.txt`` (one line of numbers per frame). A string is made a Path.
        key: name of the array in an ``.npz`` or ``.mat`` file (joints of many clips in one file).
        start, end: frame window in *decode order*, 0-based, end exclusive; None means up to the last frame.
        rate: frames per second, if known.
        timestamps: time of each frame of the window in seconds, if recorded; used instead of ``rate``.
        offset_ms: this sensor's clock minus the table's, in milliseconds.
        space: name of the frame of reference; views of one space are pixel-aligned and share geometric augmentation. Empty:
            a space of its own.
        affine: 2 x 3 matrix from this track's normalized coordinates (-1..1) to those of ``space``, or None.
        clamp: whether a window that ends after the last frame ends there, as annotations of some datasets do; otherwise that
            is an error.
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
    clamp: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True)
class Row:
    """One clip: one event, recorded by one or more sensors.

    Attributes:
        id: unique in the table.
        label: class index; None for an unlabeled clip.
        subject: who performs it; may be unknown, see :func:`is_known`.
        split: ``train``, ``val`` or ``test``.
        tracks: view -> recording; a view that is missing here is a sensor that was absent.
        metadata: further columns (illuminance in lux, condition, trial), for reports and selections.
    """

    id: str
    label: int | None
    subject: str
    split: str
    tracks: Mapping[str, Track]
    metadata: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Clips of one dataset.

    Attributes:
        name: the dataset's name.
        classes: class names, indexed by ``Row.label``.
        views: each view's Modality, in the dataset's order.
        rows: the clips.
        mirrored: label -> label of the mirrored clip; a label that is missing here forbids mirroring.
        missing: ids of clips that the dataset's lists name, but none of whose recordings is there.
        notes: how the dataset's reader understood what is ambiguous or wrong in the files that it met, a sentence each;
            ``modalift check`` prints them.
    """

    name: str
    classes: tuple[str, ...]
    views: Mapping[str, Modality]
    rows: tuple[Row, ...]
    mirrored: Mapping[int, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def where(self, keep: Callable[[Row], bool]) -> Table:
        """The table of the rows for which ``keep`` is true."""
        return replace(self, rows=tuple(r for r in self.rows if keep(r)))

    def split(self, name: str) -> Table:
        """The table of one split: ``train``, ``val`` or ``test``."""
        if name not in SPLITS:
            raise ModaliftError(f"unknown split '{name}' - {nearest(name, SPLITS)}")
        return self.where(lambda r: r.split == name)

    def map(self, change: Callable[[Row], Row]) -> Table:
        """The table with every row replaced by ``change(row)`` (labels hidden, other splits)."""
        return replace(self, rows=tuple(change(r) for r in self.rows))

    def modality(self, view: str) -> Modality:
        """The modality of a view, or an error that lists the table's views."""
        if view not in self.views:
            raise ModaliftError(f"{self.name} has no view '{view}' - {nearest(view, self.views)}"
                                f" (its views: {', '.join(self.views) or 'none'})")
        return self.views[view]

    @property
    def subjects(self) -> tuple[str, ...]:
        """The known subjects, sorted."""
        return tuple(sorted({r.subject for r in self.rows if is_known(r.subject)}))

    def counts(self, by: Callable[[Row], str]) -> Counter[str]:
        return Counter(by(r) for r in self.rows)

    def fingerprint(self) -> str:
        """Twelve hex digits that depend on the clips, their labels, splits and windows, but not on the root folder,
        from which a dataset may have its name."""
        text = "\n".join(
            f"{r.id}|{r.label}|{r.subject}|{r.split}|"
            + ",".join(f"{v}:{t.path.name}:{t.key}:{t.start}:{t.end}" for v, t in sorted(r.tracks.items()))
            for r in self.rows
        )
        return hashlib.sha256(("|".join(self.classes) + text).encode()).hexdigest()[:12]


def build_table(name: str, classes: Sequence[str], views: Mapping[str, Modality], rows: Iterable[Row],
                mirrored: Mapping[int, int] | None = None, missing: Iterable[str] = (), notes: Iterable[str] = ()) -> Table:
    """A checked Table: unique ids, known splits, labels within the classes, known views.

    Raises:
        ModaliftError: names the first clip that violates one of these conditions.
    """
    table = Table(name, tuple(classes), dict(views), tuple(rows), dict(mirrored or {}), tuple(missing), tuple(notes))
    seen: set[str] = set()
    for what, names in (("class", table.classes), ("clip", (r.id for r in table)), ("subject", (r.subject for r in table))):
        if long := next((x for x in names if len(x) > LONGEST), None):
            raise ModaliftError(f"{name}: a {what} has a name of {len(long)} letters ('{long[:40]}...')"
                                f" - give names of {LONGEST} at most")
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
    if not table.rows and table.missing:
        raise ModaliftError(f"{name}: none of the recordings of the {len(table.missing)} clips in its lists is there"
                            f" ('{table.missing[0]}', ...) - put them below the root folder")
    if not table.rows:
        raise ModaliftError(f"{name}: no clip was found - check the root folder")
    return table
