"""MGR-Dark, the set of the MTCD paper, which is not released: a documented manifest for recordings of its kind."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from modalift.datasets import download
from modalift.datasets.cells import Line, TextTable, read_table
from modalift.datasets.naming import assign_subjects, number_labels, split_of
from modalift.datasets.registry import dataset
from modalift.errors import ModaliftError, nearest
from modalift.files import is_file, read_bytes
from modalift.modalities import Row, Table, Track, build_table, modality
from modalift.signatures import Positive

Condition = Literal["dark", "daylight", "both", "paired"]
CONDITIONS = ("dark", "daylight")
#: Columns that the manifest needs, and those that it may have.
NEEDED, VIEWS, WINDOW = ("sample_id", "subject", "class", "condition"), ("rgb", "depth", "ir"), ("start", "end")
#: What a view is called when a clip has both conditions.
_SUFFIX = {"dark": "", "daylight": "_day"}


def _is_mgr(root: Path) -> bool:
    """Whether a manifest has the columns of this format."""
    file = root if is_file(root) else root / "manifest.csv"
    if not is_file(file):
        return False
    head = read_bytes(file, most=1000).decode("utf-8-sig", "replace").splitlines()[:1]
    return {*NEEDED} <= {cell.strip() for line in head for cell in next(csv.reader([line]), [])}


@dataset("mgr_dark", recognize=_is_mgr)
def read_mgr_dark(root: Path, *, manifest: str = "manifest.csv", condition: Condition = "dark",
                  depth: Literal["depth", "depth_gray"] = "depth_gray", rate: Positive = 25.0,
                  test_subjects: Sequence[str] | None = None, val_subjects: Sequence[str] | None = None) -> Table:
    """Gestures recorded in the dark and by daylight, as color, depth and thermal infrared.

    The dataset of the MTCD paper is not released, and neither are its names of files, its split and its tenth class. This reads
    recordings of the same kind from a manifest, a text table with the columns

    - ``sample_id``: one event; the same id twice, in the dark and by daylight, is a pair;
    - ``subject``, and ``class``: a name, or a number;
    - ``condition``: ``dark`` or ``daylight``;
    - ``split``: train, val or test; empty or no such column with ``test_subjects``. The paper draws 16 of 21 subjects for
      training and 5 for testing, and does not say which;
    - ``rgb``, ``depth``, ``ir``: paths relative to the manifest; an empty cell is a sensor that was absent;
    - ``start``, ``end``, if there: the window in all three, in frames from 0, the end not included.

    The paper's recordings are ``.mp4`` of 25 frames per second and 45 to 210 frames: color 1920 x 1080 and depth 512 x 424 of a
    Kinect v2, infrared 1408 x 1068 of a thermal camera. A color clip's labels are also those of its depth clip. No two of the
    three are pixel-aligned. In all 5170 events in each condition, 517 per class; the paper trains mainly in the dark.

    Args:
        root: the folder to which the manifest's paths are relative, or the manifest itself.
        manifest: the manifest, relative to the root.
        condition: ``dark`` or ``daylight`` recordings only; ``both``: each is a clip, named ``<sample_id>/<condition>``;
            ``paired``: a clip has the dark recordings as ``rgb``, ``depth`` and ``ir``, and those of the same event by
            daylight as ``rgb_day``, ``depth_day`` and ``ir_day``.
        depth: what depth recordings hold: ``depth_gray`` (8 bits, as ``.mp4`` does) or ``depth`` (16 bits, in millimeters).
        rate: frames per second.
        test_subjects, val_subjects: subjects whose clips form these splits (the first is needed without a split column).

    Raises:
        ModaliftError: names the manifest and the line or column that is wrong.

    Source: MTCD paper, section on MGR-Dark.
    """
    if is_file(root):
        root, manifest = root.parent, root.name
    table = read_table(root / manifest)
    _check_columns(table, bool(test_subjects))
    table.check_text({*VIEWS})
    chosen = (condition,) if condition in CONDITIONS else CONDITIONS
    lines = [line for line in table.lines if _condition(line) in chosen]
    if not lines:
        raise ModaliftError(f"{table.path}: no line has the condition {condition} - choose another data.options.condition")
    labels = number_labels(str(table.path), [line["sample_id"] for line in lines], [line["class"] for line in lines],
                           [""] * len(lines), None, None, False)
    rows = [_row(line, label, root, condition, rate, split="train" if test_subjects else "")
            for line, label in zip(lines, labels.labels, strict=True)]
    if condition == "paired":
        rows = _paired(rows, lines)
    rows = assign_subjects(str(table.path), [row for row in rows if row.tracks], test_subjects, val_subjects)
    kinds = {"rgb": modality("rgb"), "depth": modality(depth), "ir": modality("thermal")}
    views = {view + suffix: kind for suffix in _SUFFIX.values() for view, kind in kinds.items()
             if any(view + suffix in row.tracks for row in rows)}
    return build_table("mgr_dark", labels.classes, views, rows)


def _check_columns(table: TextTable, subjects_given: bool) -> None:
    for column in (*NEEDED, *(() if subjects_given else ("split",))):
        if column not in table.columns:
            raise ModaliftError(f"{table.path} has no column '{column}' - {nearest(column, table.columns)}"
                                + ("; or give test_subjects" if column == "split" else ""))
    if not {*VIEWS} & {*table.columns}:
        raise ModaliftError(f"{table.path} has none of the columns {', '.join(VIEWS)} - add those of your sensors")


def _condition(line: Line) -> str:
    found = line["condition"].lower()
    if found not in CONDITIONS:
        raise ModaliftError(f"{line.where}: the condition is '{line['condition'][:40]}' - write dark or daylight")
    return found


def _row(line: Line, label: int | None, root: Path, condition: Condition, rate: float, split: str) -> Row:
    """The clip of one line; its split as given, or as in the line."""
    when, sample = _condition(line), line["sample_id"]
    if not sample:
        raise ModaliftError(f"{line.where}: the sample_id is empty - give every event an id")
    suffix = _SUFFIX[when] if condition == "paired" else ""
    start, end = (download.number(line[column], line.where, f"the {column}") if line.get(column) else None for column in WINDOW)
    if end is not None and end <= (start or 0):
        raise ModaliftError(f"{line.where}: the window {start or 0}..{end} is empty - give frames from 0, and an end after"
                            " the start")
    tracks = {view + suffix: Track(root / line.path(view, root), start=start or 0, end=end, rate=rate)
              for view in VIEWS if line.get(view)}
    return Row(f"{sample}/{when}" if condition == "both" else sample, label, line["subject"],
               split or split_of(line["split"], f"{line.where}: sample '{sample}'"), tracks,
               {} if condition == "paired" else {"condition": when})


def _paired(rows: Sequence[Row], lines: Sequence[Line]) -> list[Row]:
    """A clip per event, with the recordings of both conditions."""
    events: dict[str, Row] = {}
    seen: set[tuple[str, str]] = set()
    for row, line in zip(rows, lines, strict=True):
        if (row.id, _condition(line)) in seen:
            raise ModaliftError(f"{line.where}: sample '{row.id}' is there twice in the condition {_condition(line)} - number"
                                " its repetitions")
        seen.add((row.id, _condition(line)))
        other = events.get(row.id, row)
        if (row.label, row.subject, row.split) != (other.label, other.subject, other.split):
            raise ModaliftError(f"{line.where}: sample '{row.id}' has another class, subject or split than in its other"
                                " condition - correct one of them")
        events[row.id] = replace(row, tracks={**other.tracks, **row.tracks})
    return list(events.values())
