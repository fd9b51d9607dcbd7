"""Writes a Table as a folder that the dataset ``csv`` reads."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modalift.datasets.manifest import FORMAT
from modalift.errors import ModaliftError
from modalift.files import is_file, read_bytes, write_beside, write_text
from modalift.modalities import Row, Table, Track

_COLUMNS = ("clip_id", "label", "label_name", "subject", "split")


def write_manifest(table: Table, folder: Path, name: str = "manifest.csv") -> Path:
    """Writes ``manifest.csv`` and its options, ``manifest.json``, into a folder.

    Paths below the folder's parent are written relative to the folder, others absolute. The JSON file has what cells
    cannot express: modalities, spaces, class order, mirrored classes, the clips without recordings, notes.

    Raises:
        ModaliftError: another file has the name of one of the two, or the folder cannot be written.
    """
    path = folder / name
    if path.suffix.lower() != ".csv":
        raise ModaliftError(f"{path}: a manifest's name ends in .csv - give such a name")
    options_file = path.with_suffix(".json")
    if is_file(options_file) and FORMAT.encode() not in read_bytes(options_file, most=200):
        raise ModaliftError(f"{options_file} is not of a manifest, and would be replaced by the options of {path.name} - give"
                            " another name, or move that file")
    views: dict[str, dict[str, Any]] = {view: _spec(table, view) for view in table.views}
    metadata = sorted({key for row in table for key in row.metadata})
    clashing = {*_COLUMNS, *table.views}
    names = {key: f"{key}_fact" if key in clashing else key for key in metadata}
    extra = [spec[key] for spec in views.values() for key in _PER_CLIP if key in spec]
    columns = [*_COLUMNS, *table.views, *extra, *names.values()]
    text = io.StringIO()
    out, quoted = (csv.DictWriter(text, columns, restval="", lineterminator="\n", quoting=how)
                   for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    out.writeheader()
    for row in table:
        cells = {**_cells(table, row, folder, views), **{names[k]: v for k, v in row.metadata.items()}}
        # The writer does not quote a carriage return where it is no part of its own line end.
        (quoted if any("\r" in str(cell) for cell in cells.values()) else out).writerow(cells)
    mirrored = {table.classes[a]: table.classes[b] for a, b in table.mirrored.items()}
    options = {"name": table.name, "classes": list(table.classes), "first_label": 0, "views": views,
               "mirrored": mirrored, "metadata": list(names.values())}
    facts = {"format": FORMAT, "options": options, **{key: list(texts) for key, texts in (
        ("missing", table.missing), ("notes", table.notes)) if texts}}
    write_text(options_file, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    # Names of files may hold bytes that are not UTF-8, which become the same bytes.
    data = text.getvalue().encode("utf-8", "surrogateescape")
    write_beside(path, lambda beside: beside.write_bytes(data))
    return path


_PER_CLIP = {"key_column": "key", "space_column": "space", "start": "start", "end": "end", "rate": "rate",
             "offset_ms": "offset_ms", "timestamps": "timestamps", "affine": "affine"}


def _spec(table: Table, view: str) -> dict[str, Any]:
    """The description of a view: what all its tracks share, and the columns for what differs."""
    kind = table.views[view]
    tracks = [row.tracks[view] for row in table if view in row.tracks]
    spaces = {t.space for t in tracks}
    spec: dict[str, Any] = {"modality": kind.name, "channels": kind.channels}
    if len(spaces) > 1:
        spec["space_column"] = f"{view}.space"
    elif spaces - {""}:
        spec["space"] = spaces.pop()
    if any(t.clamp for t in tracks):
        spec["clamp"] = True
    if any(t.path.suffix.lower() == ".npz" for t in tracks):  # else the array named as the clip would be read
        spec["key_column"] = f"{view}.key"
    plain = Track(Path())
    for key, attribute in _PER_CLIP.items():
        if key != "space_column" and any(getattr(t, attribute) != getattr(plain, attribute) for t in tracks):
            spec[key] = f"{view}.{attribute}"
    return spec


def _cells(table: Table, row: Row, folder: Path, views: dict[str, dict[str, Any]]) -> dict[str, Any]:
    cells: dict[str, Any] = {"clip_id": row.id, "label": "" if row.label is None else row.label, "subject": row.subject,
                             "label_name": "" if row.label is None else table.classes[row.label], "split": row.split}
    for view, track in row.tracks.items():
        cells[view] = _path(track.path, folder)
        for key, attribute in _PER_CLIP.items():
            if key in views[view]:
                cells[views[view][key]] = _text(getattr(track, attribute))
    return cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(repr(float(x)) for x in value)
    return str(value)


def _path(path: Path, folder: Path) -> str:
    absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    if absolute.is_relative_to(base.parent):
        return Path(os.path.relpath(absolute, base)).as_posix()
    return absolute.as_posix()
