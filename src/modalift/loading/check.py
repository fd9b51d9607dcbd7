"""`modalift check`: summarizes a table and finds the problems in it before training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from modalift.loading.inspection import TrackReport, duplicates, inspect_table, overlaps
from modalift.loading.reading import natural
from modalift.modalities import SPLITS, Row, Table, is_known

_MOST_OUTSIDE = 0.02  # largest fraction of readings outside the sensor's range that is not reported
Severity = Literal["error", "note"]


@dataclass(frozen=True)
class Problem:
    """One problem, in one line.

    An ``error`` makes results wrong or impossible: files that cannot be read, the same recording in training and test,
    a class with test clips but no training clip. A ``note`` needs no correction but matters when results are read: subjects
    in both splits (some protocols hold out clips or scenes instead), absent sensors, classes without clips.
    """

    severity: Severity
    kind: str
    reason: str


@dataclass
class ViewSummary:
    """One view: number of clips that have it, lengths in frames, frame sizes, and mean readings in the modality's unit."""

    modality: str
    unit: str
    channels: int
    clips: int = 0
    unreadable: int = 0
    lengths: tuple[int, float, int] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    #: 5th, 50th and 95th percentile, over the decoded clips, of a clip's mean valid reading.
    brightness: tuple[float, float, float] | None = None
    holes: float = 0.0


@dataclass
class Findings:
    """The result of :func:`examine`.

    Attributes:
        name: the table's name.
        clips: split -> number of clips.
        labeled: split -> number of labeled clips.
        classes: class -> split -> number of clips.
        subjects: known subject -> split -> number of clips.
        unknown_subject: split -> number of clips whose subject is not known.
        views: view -> its summary.
        unreadable: clip id -> why it cannot be read (each is also a problem).
        decoded: number of clips of which every frame was decoded.
        missing: ids of clips that the dataset's lists name, but none of whose recordings is there.
        problems: errors first, then notes.
    """

    name: str
    clips: dict[str, int]
    labeled: dict[str, int]
    classes: dict[str, dict[str, int]]
    subjects: dict[str, dict[str, int]]
    unknown_subject: dict[str, int]
    views: dict[str, ViewSummary]
    unreadable: dict[str, str] = field(default_factory=dict)
    decoded: int = 0
    missing: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        """Whether there is any problem that must be corrected before training."""
        return any(p.severity == "error" for p in self.problems)


def examine(table: Table, *, limit: int | None = None, decode: bool = True) -> Findings:
    """Inspects every clip of a table.

    Args:
        table: the clips.
        limit: largest number of clips to decode, evenly spread over the table; all clips are opened and their frames counted.
        decode: read every frame; False only opens the files and counts frames (no brightness, no damaged frames).

    Returns:
        The findings; ``findings.has_errors`` tells whether the table must be corrected before training.
    """
    chosen = set(range(len(table))) if limit is None else \
        set(np.linspace(0, len(table) - 1, min(limit, len(table))).round().astype(int).tolist())
    chosen = chosen if decode else set()
    seen = {row.id: tracks for row, tracks in inspect_table(table, chosen.__contains__)}
    labeled = table.where(lambda r: r.label is not None)
    found = Findings(
        table.name, _by_split(table), _by_split(labeled),
        {name: _by_split(labeled.where(lambda r, k=k: r.label == k))  # type: ignore[misc]
         for k, name in enumerate(table.classes)},
        {s: _by_split(rows) for s, rows in _grouped(table, lambda r: r.subject) if is_known(s)},
        _by_split(table.where(lambda r: not is_known(r.subject))),
        {v: _summary(table, v, seen) for v in table.views}, decoded=len(chosen), missing=list(table.missing))
    problems = [*_files(table, seen, found), *_leaks(table, seen), *_labels(table, found), *_views(table, found),
                *_readings(table, seen), *_lengths(table, seen), *_told(table)]
    found.problems = sorted(problems, key=lambda p: p.severity != "error")
    return found


def _by_split(table: Table) -> dict[str, int]:
    counts = table.counts(lambda r: r.split)
    return {split: counts[split] for split in SPLITS}


def _grouped(table: Table, by: Callable[[Row], str]) -> list[tuple[str, Table]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in table:
        rows[by(row)].append(row)
    ids = {key: {r.id for r in group} for key, group in rows.items()}
    return [(key, table.where(lambda r, k=key: r.id in ids[k]))  # type: ignore[misc]
            for key in sorted(rows, key=natural)]


def _summary(table: Table, view: str, seen: dict[str, dict[str, TrackReport]]) -> ViewSummary:
    kind = table.views[view]
    tracks = [t[view] for t in seen.values() if view in t]
    read = [t for t in tracks if not t.problem]
    lengths = [t.frames for t in read]
    means = [t.mean for t in read if t.mean is not None]
    sizes = Counter(f"{t.size[1]}x{t.size[0]}" for t in read if t.size)
    return ViewSummary(
        kind.name, kind.unit, kind.channels, len(tracks), len(tracks) - len(read),
        (min(lengths), float(np.median(lengths)), max(lengths)) if lengths else None, dict(sizes.most_common()),
        tuple(round(float(x), 3) for x in np.percentile(means, [5, 50, 95])) if means else None,  # type: ignore[arg-type]
        round(float(np.mean([t.holes for t in read if t.size])), 4) if any(t.size for t in read) else 0.0)


def _some(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and the number of the others."""
    names = list(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


# ------------------------------------------------------------------------------------------------------- the checks

def _files(table: Table, seen: dict[str, dict[str, TrackReport]], found: Findings) -> list[Problem]:
    problems = []
    for row in table:
        for view, track in seen[row.id].items():
            if track.problem:
                found.unreadable.setdefault(row.id, f"{view}: {track.problem}")
                problems.append(Problem("error", "unreadable", f"clip '{row.id}', {view}: {track.problem}"))
        if not row.tracks:
            problems.append(Problem("error", "empty", f"clip '{row.id}' has no recording - remove it from the"
                                                        " table"))
    return problems


def _told(table: Table) -> list[Problem]:
    """What the dataset's reader tells: clips without recordings, and how it understood what is ambiguous."""
    notes = [Problem("note", "dataset", text) for text in table.notes]
    if table.missing:
        notes.insert(0, Problem("note", "missing", f"{len(table.missing)} clips of the dataset's lists have no recording here"
                                                   f" ({_some(table.missing)}) - add their files, or go on without them"))
    return notes


def _leaks(table: Table, seen: dict[str, dict[str, TrackReport]]) -> list[Problem]:
    problems = []
    split = {r.id: r.split for r in table}
    for view, first, second in overlaps(table):
        problems.append(Problem("error", "leak", f"clips '{first}' ({split[first]}) and '{second}' ({split[second]})"
                                                   f" share frames of one {view} file - put both in the same split"))
    shared = {p.reason for p in problems}
    readable = {v: {clip for clip, tracks in seen.items() if v in tracks and not tracks[v].problem}
                for v in table.views}
    for view, groups in duplicates(table, readable).items():
        within = []
        for ids in groups:
            if len({split[i] for i in ids}) > 1:
                a = ids[0]
                b = next(i for i in ids if split[i] != split[a])
                reason = f"clips '{a}' ({split[a]}) and '{b}' ({split[b]})"
                if not any(p.startswith(reason) for p in shared):
                    problems.append(Problem("error", "leak", f"{reason} are the same {view} recording"
                                                               " - remove one of them"))
            else:
                within.append(" = ".join(ids[:3]))
        if within:
            problems.append(Problem("note", "duplicates", f"{view}: {len(within)} recordings occur more than once in one"
                                                     f" split ({_some(within, 3)})"))
    return [*problems, *_subjects(table)]


def _subjects(table: Table) -> list[Problem]:
    """Subjects on both sides of the split, or of whom it is not known."""
    trained, tested = table.split("train"), table.split("test")
    unknown = [r for r in table if not is_known(r.subject)]
    problems = []
    if both := sorted(set(trained.subjects) & set(tested.subjects), key=natural):
        problems.append(Problem("note", "subjects", f"subjects in train and in test: {len(both)} of the {len(tested.subjects)}"
                                                    f" test subjects ({_some(both)}) - results say nothing about new people"))
    if len(unknown) == len(table):
        problems.append(Problem("note", "subjects", "the subjects are unknown - it cannot be checked whether people occur"
                                                    " in training and in test"))
    elif unknown:
        problems.append(Problem("note", "subjects", f"the subject of {len(unknown)} of {len(table)} clips is not known"
                                                    f" ({_some(r.id for r in unknown)}) - they may be of people of any split,"
                                                    " and are no subject of their own"))
    return problems


def _labels(table: Table, found: Findings) -> list[Problem]:
    problems = []
    for split in ("train", "test"):
        if not found.clips[split]:
            problems.append(Problem("error" if split == "train" else "note", "splits",
                                    f"the {split} split is empty - assign some clips to '{split}'"))
    if found.clips["train"] and not found.labeled["train"]:
        problems.append(Problem("error", "labels", "no training clip is labeled - label some"))
    for name, counts in found.classes.items():
        if counts["train"] == 0 and (counts["test"] or counts["val"]) and found.labeled["train"]:
            problems.append(Problem("error", "labels", f"class '{name}' has {counts['test'] + counts['val']} clips in"
                                    " val and test, but none in train - it cannot be learned"))
    empty = [name for name, counts in found.classes.items() if not sum(counts.values())]
    if empty:
        problems.append(Problem("note", "labels", f"{len(empty)} of {len(found.classes)} classes have no clip"
                                                  f" ({_some(empty)})"))
    untested = [n for n, c in found.classes.items() if c["train"] and not c["test"]]
    if untested and found.labeled["test"]:
        problems.append(Problem("note", "labels", f"{len(untested)} classes have training clips but no test clips"
                                                  f" ({_some(untested)})"))
    unlabeled = len(table) - sum(found.labeled.values())
    if unlabeled:
        problems.append(Problem("note", "labels", f"{unlabeled} of {len(table)} clips are unlabeled"))
    return problems


def _views(table: Table, found: Findings) -> list[Problem]:
    problems = []
    for view, summary in found.views.items():
        if not summary.clips:
            problems.append(Problem("error", "views", f"no clip has view '{view}' - correct its column or remove"
                                                        " it"))
        elif summary.clips < len(table):
            problems.append(Problem("note", "views", f"{len(table) - summary.clips} of {len(table)} clips lack"
                                                     f" '{view}'"))
        if len(summary.sizes) > 1:
            sizes = [f"{size} ({n} clips)" for size, n in summary.sizes.items()]
            problems.append(Problem("note", "sizes", f"view '{view}' has several frame sizes: {_some(sizes, 3)}"))
    return problems


def _readings(table: Table, seen: dict[str, dict[str, TrackReport]]) -> list[Problem]:
    problems = []
    for view in table.views:
        broken = [c for c, tracks in seen.items() if view in tracks and not tracks[view].finite]
        constant = [c for c, tracks in seen.items() if view in tracks and tracks[view].constant]
        short = [c for c, tracks in seen.items() if view in tracks and tracks[view].frames == 1]
        if broken:
            problems.append(Problem("error", "readings", f"{view}: {len(broken)} clips hold values that are not"
                                    f" finite (NaN or Inf: {_some(broken)}) - interpolate or remove them"))
        if constant:
            problems.append(Problem("note", "readings", f"{view}: {len(constant)} clips are constant"
                                    f" ({_some(constant)}) - was the sensor switched on?"))
        kind = table.views[view]
        outside = [c for c, tracks in seen.items() if view in tracks and tracks[view].outside > _MOST_OUTSIDE]
        if outside:
            problems.append(Problem("note", "readings", f"{view}: in {len(outside)} clips more than {_MOST_OUTSIDE:.0%} of the"
                                    f" readings are outside {kind.low:g} to {kind.high:g} {kind.unit}"
                                    f" ({_some(outside)}) - is the unit right?"))
        blank = [f"{c}: {tracks[view].blank} of {tracks[view].frames}" for c, tracks in seen.items()
                 if view in tracks and tracks[view].blank]
        if blank:
            problems.append(Problem("note", "readings", f"{view}: {len(blank)} clips have samples that are all zeros, where no"
                                    f" body was seen or the sensor paused ({_some(blank, 3)})"))
        if short and len(short) < len(table):
            problems.append(Problem("note", "lengths", f"{view}: {len(short)} clips have a single frame"
                                                       f" ({_some(short)})"))
    return problems


def _lengths(table: Table, seen: dict[str, dict[str, TrackReport]]) -> list[Problem]:
    """Clips in which two views that should have equally many frames (as in most clips, or as they share a space) differ."""
    problems = []
    for a, b in combinations(table.views, 2):
        both = [(r, seen[r.id][a], seen[r.id][b]) for r in table if a in r.tracks and b in r.tracks
                and not seen[r.id][a].problem and not seen[r.id][b].problem]
        unlike = [f"{r.id}: {x.frames} and {y.frames}" for r, x, y in both if x.frames != y.frames]
        one_space = any(r.tracks[a].space and r.tracks[a].space == r.tracks[b].space for r, _, _ in both)
        if unlike and (one_space or len(unlike) < len(both) / 2):
            problems.append(Problem("note", "lengths", f"{a} and {b} differ in length in {len(unlike)} of {len(both)}"
                                    f" clips ({_some(unlike, 3)}) - frames are matched by their relative time in the clip"))
    return problems
