"""`modalift check`: what a table holds, and what is wrong with it, before a training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from modalift.loading.inspection import TrackReport, duplicates, inspect_table, overlaps
from modalift.loading.reading import natural
from modalift.modalities import SPLITS, Row, Table

_MOST_OUTSIDE = 0.02  # largest share of readings outside of the sensor's range that is not reported
Severity = Literal["trouble", "note"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in one line.

    ``trouble`` makes results wrong or impossible: files that cannot be read, the same recording in training and test,
    a class that is tested but has no training clip. A ``note`` is something to know: subjects in both splits (some protocols
    hold out clips or scenes on purpose), absent sensors, classes without clips.
    """

    severity: Severity
    kind: str
    reason: str


@dataclass
class ViewSummary:
    """One view: clips that have it, lengths in frames, picture sizes, brightness in the modality's unit."""

    modality: str
    unit: str
    channels: int
    clips: int = 0
    unreadable: int = 0
    lengths: tuple[int, float, int] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    #: 5th, 50th and 95th percentile over clips of the clip's mean of valid readings; of decoded clips.
    brightness: tuple[float, float, float] | None = None
    holes: float = 0.0


@dataclass
class Findings:
    """What :func:`examine` found.

    Attributes:
        name: of the table.
        clips: clips of each split.
        labeled: labeled clips of each split.
        classes: class -> clips of each split.
        subjects: subject -> clips of each split.
        views: view -> its summary.
        unreadable: clip id -> why it cannot be read (each is also a problem).
        decoded: clips of which every frame was decoded.
        problems: what is wrong, trouble first.
    """

    name: str
    clips: dict[str, int]
    labeled: dict[str, int]
    classes: dict[str, dict[str, int]]
    subjects: dict[str, dict[str, int]]
    views: dict[str, ViewSummary]
    unreadable: dict[str, str] = field(default_factory=dict)
    decoded: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def trouble(self) -> bool:
        """Whether anything is wrong that must be put right before training."""
        return any(p.severity == "trouble" for p in self.problems)


def examine(table: Table, *, limit: int | None = None, decode: bool = True) -> Findings:
    """Inspects every clip of a table.

    Args:
        table: the clips.
        limit: decode at most so many clips, evenly spread over the table; all are opened and counted.
        decode: read every frame; without it only what opening and counting show (no brightness, no broken pictures).

    Returns:
        Findings; ``findings.trouble`` says whether training on it makes sense.
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
        {s: _by_split(rows) for s, rows in _grouped(table, lambda r: r.subject)},
        {v: _summary(table, v, seen) for v in table.views}, decoded=len(chosen))
    problems = [*_files(table, seen, found), *_leaks(table, seen), *_labels(table, found), *_views(table, found),
                *_readings(table, seen), *_lengths(table, seen)]
    found.problems = sorted(problems, key=lambda p: p.severity != "trouble")
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
    """A few names and the number of the others."""
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
                problems.append(Problem("trouble", "unreadable", f"clip '{row.id}', {view}: {track.problem}"))
        if not row.tracks:
            problems.append(Problem("trouble", "empty", f"clip '{row.id}' has no recording at all - remove it from the"
                                                        " table"))
    return problems


def _leaks(table: Table, seen: dict[str, dict[str, TrackReport]]) -> list[Problem]:
    problems = []
    split = {r.id: r.split for r in table}
    for view, first, second in overlaps(table):
        problems.append(Problem("trouble", "leak", f"clips '{first}' ({split[first]}) and '{second}' ({split[second]})"
                                                   f" share frames of one {view} file - put them in one split"))
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
                    problems.append(Problem("trouble", "leak", f"{reason} are the same {view} recording"
                                                               " - remove one of them"))
            else:
                within.append(" = ".join(ids[:3]))
        if within:
            problems.append(Problem("note", "duplicates", f"{view}: {len(within)} recordings are in one split more than"
                                                     f" once ({_some(within, 3)})"))
    taught = {r.subject for r in table if r.split == "train"}
    tested = {r.subject for r in table if r.split == "test"}
    if {r.subject for r in table} == {""}:
        problems.append(Problem("note", "subjects", "no subjects are known - leakage of people from training into test"
                                                    " cannot be checked"))
    elif both := sorted((taught & tested) - {""}, key=natural):
        problems.append(Problem("note", "subjects", f"{len(both)} subjects are in train and in test ({_some(both)})"
                                                    " - results say nothing about new people"))
    return problems


def _labels(table: Table, found: Findings) -> list[Problem]:
    problems = []
    for split in ("train", "test"):
        if not found.clips[split]:
            problems.append(Problem("trouble" if split == "train" else "note", "splits",
                                    f"the {split} split is empty - mark some clips '{split}'"))
    if found.clips["train"] and not found.labeled["train"]:
        problems.append(Problem("trouble", "labels", "no training clip is labeled - label some"))
    for name, counts in found.classes.items():
        if counts["train"] == 0 and (counts["test"] or counts["val"]) and found.labeled["train"]:
            problems.append(Problem("trouble", "labels", f"class '{name}' has {counts['test'] + counts['val']} clips in"
                                    " val and test, but none in train - it cannot be learned"))
    empty = [name for name, counts in found.classes.items() if not sum(counts.values())]
    if empty:
        problems.append(Problem("note", "labels", f"labels have gaps: no clip is of {_some(empty)}"
                                                  f" ({len(empty)} of {len(found.classes)} classes)"))
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
            problems.append(Problem("trouble", "views", f"view '{view}' is in no clip - correct its column or leave it"
                                                        " out"))
        elif summary.clips < len(table):
            problems.append(Problem("note", "views", f"{len(table) - summary.clips} of {len(table)} clips lack"
                                                     f" '{view}'"))
        if len(summary.sizes) > 1:
            sizes = [f"{size} ({n} clips)" for size, n in summary.sizes.items()]
            problems.append(Problem("note", "sizes", f"view '{view}' has several picture sizes: {_some(sizes, 3)}"))
    return problems


def _readings(table: Table, seen: dict[str, dict[str, TrackReport]]) -> list[Problem]:
    problems = []
    for view in table.views:
        broken = [c for c, tracks in seen.items() if view in tracks and not tracks[view].finite]
        constant = [c for c, tracks in seen.items() if view in tracks and tracks[view].constant]
        short = [c for c, tracks in seen.items() if view in tracks and tracks[view].frames == 1]
        if broken:
            problems.append(Problem("trouble", "readings", f"{view}: {len(broken)} clips hold numbers that are not"
                                    f" finite ({_some(broken)}) - interpolate or cut them"))
        if constant:
            problems.append(Problem("note", "readings", f"{view}: {len(constant)} clips are one constant number"
                                    f" ({_some(constant)}) - was the sensor on?"))
        kind = table.views[view]
        outside = [c for c, tracks in seen.items() if view in tracks and tracks[view].outside > _MOST_OUTSIDE]
        if outside:
            problems.append(Problem("note", "readings", f"{view}: in {len(outside)} clips more than {_MOST_OUTSIDE:.0%} of the"
                                    f" readings are outside of {kind.low:g} to {kind.high:g} {kind.unit}"
                                    f" ({_some(outside)}) - is the unit right?"))
        if short and len(short) < len(table):
            problems.append(Problem("note", "lengths", f"{view}: {len(short)} clips have a single frame"
                                                       f" ({_some(short)})"))
    return problems


def _lengths(table: Table, seen: dict[str, dict[str, TrackReport]]) -> list[Problem]:
    """Views that run frame by frame together (in most clips, or because they share a space) and clips where not."""
    problems = []
    for a, b in combinations(table.views, 2):
        both = [(r, seen[r.id][a], seen[r.id][b]) for r in table if a in r.tracks and b in r.tracks
                and not seen[r.id][a].problem and not seen[r.id][b].problem]
        unlike = [f"{r.id}: {x.frames} and {y.frames}" for r, x, y in both if x.frames != y.frames]
        one_space = any(r.tracks[a].space and r.tracks[a].space == r.tracks[b].space for r, _, _ in both)
        if unlike and (one_space or len(unlike) < len(both) / 2):
            problems.append(Problem("note", "lengths", f"{a} and {b} differ in length in {len(unlike)} of {len(both)}"
                                    f" clips ({_some(unlike, 3)}) - they are matched by their share of the clip"))
    return problems
