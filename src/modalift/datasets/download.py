"""The files of a genuine download: finding them whatever the case of their names, the lines of its lists, and its Table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from modalift.datasets.naming import mirror_map
from modalift.datasets.release import Release
from modalift.errors import ModaliftError
from modalift.files import entries, is_file, is_folder, read_text
from modalift.modalities import Row, Table, build_table, modality

VIDEOS = (".avi", ".mp4")


class Download:
    """The files below a root folder. Each folder is listed once, so that asking for every clip of a large dataset is fast.

    The case of names does not matter where no name fits exactly, since archives of one dataset differ in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, Path]] = {}

    def names(self, folder: Path) -> dict[str, Path]:
        """What a folder holds: name -> path, and name in small letters -> path; empty if there is no such folder."""
        if folder not in self._listed:
            found = sorted(entries(folder)) if is_folder(folder) else []
            self._listed[folder] = {**{p.name.casefold(): p for p in reversed(found)}, **{p.name: p for p in found}}
        return self._listed[folder]

    def find(self, *paths: str) -> Path | None:
        """The first of some paths, relative to the root, that is there; None if none is."""
        for path in paths:
            place: Path | None = self.root
            for part in path.split("/"):
                if part in ("", "."):
                    continue
                held = self.names(place) if place else {}
                place = held.get(part) or held.get(part.casefold())
            if place is not None and place != self.root:
                return place
        return None

    def list_file(self, paths: Sequence[str], where: str) -> Path:
        """The first of some list files that is there.

        Args:
            paths: its possible places, relative to the root.
            where: where it is in the download, for the error.

        Raises:
            ModaliftError: none is there; names the first, and where it is in the download.
        """
        for path in paths:
            found = self.find(path)
            if found is not None and is_file(found):
                return found
        raise ModaliftError(f"{self.root}: the list {paths[0]} is not there - it is {where}; put it there, or give the folder"
                            " that holds it")


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not empty, each with its file and number for messages. Lines may end in any way.

    Raises:
        ModaliftError: the file cannot be read, is not text, or holds a null character.
    """
    for number, line in enumerate(re.split(r"\r\n|\r|\n", read_text(file, "use the file of the download")), 1):
        if "\0" in line:
            raise ModaliftError(f"{file}, line {number}: holds a null character - use the file of the download")
        if line.strip():
            yield f"{file}, line {number}", line


def number(text: str, where: str, what: str, low: int = 0, high: int = 10**9) -> int:
    """A whole number of a list, also one that pandas wrote as ``98.0``.

    Args:
        text: the number.
        where: the file and the line.
        what: what it is, for the error.
        low, high: the smallest and the largest that it may be.

    Raises:
        ModaliftError: it is none, or outside the range.
    """
    found = re.fullmatch(r"([0-9]{1,12})(?:\.0{0,9})?", text.strip(), re.ASCII)
    if found is None or not low <= int(found[1]) <= high:
        kind = f"a whole number from {low} to {high}" if high < 10**9 else f"a whole number of {low} or more"
        raise ModaliftError(f"{where}: {what} is '{text.strip()[:40]}', not {kind} - use the file of the download")
    return int(found[1])


def table_of(name: str, root: Path, release: Release, rows: Iterable[Row], recordings: str, *,
             mirrored: Mapping[str, str] | None = None, notes: Iterable[str] = ()) -> Table:
    """The Table of a download that may be partial.

    Args:
        name: the dataset.
        root: its folder, for the error.
        release: what the whole release holds: the classes and views.
        rows: every clip of the lists, with tracks of those recordings that are there.
        recordings: where the recordings are in the download, for the error.
        mirrored: class -> class of its mirror image, see :func:`mirror_map`.
        notes: sentences for ``modalift check``.

    Returns:
        The clips with at least one recording, the views that some clip has, and the ids of the other clips as ``missing``.

    Raises:
        ModaliftError: no recording is there, or two clips have one id.
    """
    rows = list(rows)
    kept = [row for row in rows if row.tracks]
    missing = [row.id for row in rows if not row.tracks]
    if not kept:
        raise ModaliftError(f"{root}: none of the recordings of the {len(missing)} clips in the lists is there - put"
                            f" {recordings} there, or give the folder that holds the lists and them" if missing else
                            f"{root}: the lists of {name} name no clip - use the files of the download")
    views = {view: modality(kind) for view, kind in release.views.items() if any(view in row.tracks for row in kept)}
    return build_table(name, release.classes, views, kept, mirror_map(release.classes, mirrored), missing, notes)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
