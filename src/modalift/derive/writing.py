"""Shared by all derived views: the choice of the source, one file per clip, and the new manifest."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from modalift.datasets.manifest import read_manifest
from modalift.datasets.writing import write_manifest
from modalift.errors import ModaliftError
from modalift.files import write_text
from modalift.modalities import Modality, Row, Table, Track


def source_view(table: Table, view: str | None, fitting: Collection[str], what: str) -> str:
    """The view to compute from: the given one, or the first whose modality is among the fitting ones."""
    if view is not None:
        kind = table.modality(view)
        if kind.name not in fitting:
            raise ModaliftError(f"{what} cannot be computed from '{view}' ({kind.name}) - it needs one of"
                                f" {', '.join(sorted(fitting))}")
        return view
    for name, kind in table.views.items():
        if kind.name in fitting:
            return name
    raise ModaliftError(f"{table.name} has no view that {what} can be computed from ({', '.join(sorted(fitting))};"
                        f" its views: {', '.join(table.views)})")


def write_view(table: Table, out: Path, source: str, name: str, kind: Modality, ending: str,
               make: Callable[[Row, Path], None], *, keep_space: bool = True,
               progress: Callable[[int, int], None] | None = None) -> Table:
    """Writes a view's files and the manifest of the table with it; the folder appears when it is complete.

    Clips whose source cannot be read stay in the table without the new view and are listed in ``skipped.json``.

    Args:
        table: the clips.
        out: the folder; new, or empty.
        source: the view that the new one is computed from, which has the same timing.
        name, kind: name and modality of the new view.
        ending: ending of its files.
        make: writes the file of one clip; called in several threads.
        keep_space: whether the new view is pixel-aligned with its source.
        progress: called with (clips done, clips).

    Raises:
        ModaliftError: the view exists, ``out`` is not empty, the disk is full, or no clip can be read.
    """
    if name in table.views:
        raise ModaliftError(f"{table.name} has a view '{name}' already - give the new one another name")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModaliftError(f"{out} exists and is not empty - give a new folder, or remove it first")
    beside = out.parent / f".{out.name}.{os.getpid()}"
    try:
        (beside / name).mkdir(parents=True)
        rows, skipped = _write_files(table, beside / name, source, name, ending, make, keep_space, progress)
        if not any(name in row.tracks for row in rows):
            reason = next(iter(skipped.values()), f"no clip has the view '{source}'")
            raise ModaliftError(f"{table.name}: '{name}' can be computed for no clip: {reason}")
        made = replace(table, rows=tuple(rows), views={**table.views, name: kind})
        write_manifest(made, beside)
        if skipped:
            write_text(beside / "skipped.json", json.dumps(skipped, indent=1, ensure_ascii=False) + "\n")
        if out.exists():  # it is empty; not every system replaces a folder
            out.rmdir()
        beside.replace(out)
    except OSError as error:
        raise ModaliftError(f"{out} cannot be written ({error.strerror}) - free disk space or give another folder") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return read_manifest(out)


def _write_files(table: Table, folder: Path, source: str, name: str, ending: str, make: Callable[[Row, Path], None],
                 keep_space: bool, progress: Callable[[int, int], None] | None) -> tuple[list[Row], dict[str, str]]:
    files = _file_names(table, folder, ending)
    skipped: dict[str, str] = {}

    def write(row: Row) -> Row:
        if source not in row.tracks:
            return row
        try:
            make(row, files[row.id])
        except ModaliftError as error:
            files[row.id].unlink(missing_ok=True)
            skipped[row.id] = str(error)
            return row
        was = row.tracks[source]
        track = Track(files[row.id], rate=was.rate, timestamps=was.timestamps, offset_ms=was.offset_ms,
                      space=was.space if keep_space else "", affine=was.affine if keep_space else None)
        return replace(row, tracks={**row.tracks, name: track})

    rows = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for row in pool.map(write, table):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(table))
    return rows, {row.id: skipped[row.id] for row in rows if row.id in skipped}


def _file_names(table: Table, folder: Path, ending: str) -> dict[str, Path]:
    """One file per clip, named by its id; ids are made plain and unique if needed."""
    names: dict[str, Path] = {}
    taken: set[str] = set()
    for row in table:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", row.id).strip("_") or "clip"
        plain, n = stem, 1
        while stem.lower() in taken:  # some file systems ignore case
            n += 1
            stem = f"{plain}-{n}"
        taken.add(stem.lower())
        names[row.id] = folder / f"{stem}{ending}"
    return names
