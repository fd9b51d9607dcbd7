"""The dataset ``csv``: a table of clips in a text file, one row per clip."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalift.datasets.naming import (
    assign_subjects,
    mirror_map,
    modality_of,
    number_labels,
    split_of,
    view_modality,
    with_channels,
)
from modalift.datasets.registry import dataset
from modalift.errors import ModaliftError, nearest
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table, Track, build_table

_USUAL_NAMES = {
    "id": ("clip_id", "id", "clip", "sample", "name"),
    "label": ("label", "class", "gesture", "action", "label_id", "class_id"),
    "label_name": ("label_name", "class_name", "gesture_name", "action_name"),
    "subject": ("subject", "person", "participant", "performer", "subject_id"),
    "split": ("split", "subset", "partition"),
}
_VIEW_KEYS = ("modality", "column", "path", "file", "key_column", "start", "end", "last", "base", "rate", "offset_ms",
              "timestamps", "space", "affine", "channels")
FORMAT = "modalift-manifest/1"
#: Options that ``manifest.json`` may hold.
STORED = ("views", "metadata", "mirrored", "classes", "first_label", "name")


@dataset("csv", recognize=lambda root: root.is_file() or (root / "manifest.csv").is_file())
def read_manifest(root: Path, *, manifest: str = "manifest.csv", id: str | None = None, label: str | None = None,
                  label_name: str | None = None, subject: str | None = None, split: str | None = None,
                  views: Mapping[str, Any] | None = None, metadata: Sequence[str] | None = None,
                  mirrored: Mapping[str, str] | None = None, classes: Sequence[str] | None = None,
                  first_label: int | None = None, close_gaps: bool = False, test_subjects: Sequence[str] | None = None,
                  val_subjects: Sequence[str] | None = None, name: str | None = None) -> Table:
    """A table of clips from a manifest with a header line (comma, semicolon or tab; UTF-8).

    Args:
        root: the folder to which the manifest's paths are relative, or the manifest itself.
        manifest: the manifest file, relative to the root.
        id, label, label_name, subject, split: names of columns. By default usual names
            (``clip_id`` or ``id``; ``label``; ``label_name``; ``subject``; ``split``). A label is a number or a name;
            an empty cell is an unlabeled clip. A split is train, val or test, or a usual synonym.
        views: view -> its description, see below. By default every column whose name contains a modality (``rgb``,
            ``rgb_day``, ``crop_depth``, ``ir_left``) and whose cells are paths, and every ``.npz`` file of the root
            whose name contains a modality (``pose.npz``, ``skeleton.npz``) and whose arrays are named by clip ids.
        metadata: further columns to keep (illuminance, trial); by default all other columns.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs. A class that is
            missing forbids mirroring.
        classes: class names in order, instead of those in the manifest.
        first_label: number of the first class; by default 0 if some clip has label 0, else 1.
        close_gaps: renumber labels where numbers are missing, instead of keeping classes without clips.
        test_subjects, val_subjects: subjects whose clips form these splits (required without a split column).
        name: the table's name; by default the folder's.

    The description of a view has these keys, all optional: ``modality`` (by default from its name); its files: ``column``
    (of paths; by default the column of the view's name), or ``path`` (a template such as ``frames/{clip_id}/rgb``), or
    ``file`` (one ``.npz``) with ``key_column`` (by default the id); its window of frames: ``start`` and ``end``
    (exclusive) or ``last`` (inclusive), each a column or a number, counted from ``base`` (0 or 1); ``rate`` (frames per
    second) and ``offset_ms``, each a column or a number; ``timestamps`` (seconds) and ``affine``, each a list or a column
    of space-separated numbers; ``space`` (views with the same space are pixel-aligned) and ``channels``. A clip lacks the
    view if its cell is empty or its archive has no array for it. For a path that ends in ``.npz``, the array named as the
    clip is used.

    A file ``manifest.json`` beside ``manifest.csv`` may hold these options (``{"format": "modalift-manifest/1",
    "options": {...}}``); arguments override them.

    Raises:
        ModaliftError: names the manifest and the line, column or key that is wrong.
    """
    if root.is_file():
        root, manifest = root.parent, root.name
    path = root / manifest
    columns, lines = read_lines(path)
    stored = stored_options(path)
    views = stored.get("views") if views is None else views
    metadata = stored.get("metadata") if metadata is None else metadata
    mirrored = stored.get("mirrored") if mirrored is None else mirrored
    classes = stored.get("classes") if classes is None else classes
    first_label = stored.get("first_label") if first_label is None else first_label
    given = {"id": id, "label": label, "label_name": label_name, "subject": subject, "split": split}
    roles = {role: _column(path, role, column, columns) for role, column in given.items()}
    if roles["id"] is None:
        raise ModaliftError(f"{path} has no column of clip ids - give its name with the option `id`"
                            f" (columns: {', '.join(columns)})")
    if roles["split"] is None and not test_subjects:
        likely = [c for c in columns if "split" in c.lower()]
        raise ModaliftError(f"{path} has no column `split` - give its name with the option `split`"
                            + (f" ({' or '.join(likely)})" if likely else "") + ", or give test_subjects")
    ids = [line[roles["id"]] for line in lines]
    specs = _views(root, path, columns, lines, ids, views, {c for c in roles.values() if c})
    labeling = number_labels(str(path), ids, _cells(lines, roles["label"]), _cells(lines, roles["label_name"]),
                              classes, first_label, close_gaps)
    taken = {c for c in roles.values() if c}.union(*(s.columns for s in specs.values()))
    kept = [c for c in columns if c not in taken] if metadata is None else [_known(path, c, columns) for c in metadata]
    rows = []
    for clip, line, number in zip(ids, lines, labeling.labels, strict=True):
        who = f"{path}: clip '{clip}'"
        where = "train" if roles["split"] is None or test_subjects else split_of(line[roles["split"]], who)
        rows.append(Row(clip, number, line[roles["subject"]] if roles["subject"] else "", where,
                        {v: t for v, s in specs.items() if (t := s.track(line, clip, who)) is not None},
                        {c: _value(line[c]) for c in kept if line[c]}))
    rows = assign_subjects(str(path), rows, test_subjects, val_subjects)
    kinds = {v: with_channels(v, s.modality, (r.tracks[v] for r in rows if v in r.tracks)) for v, s in specs.items()}
    return build_table(name or stored.get("name") or root.resolve().name, labeling.classes, kinds, rows,
                       mirror_map(labeling.classes, mirrored))


@dataclass(frozen=True)
class _View:
    """How the manifest describes one view."""

    view: str
    modality: Modality
    root: Path
    column: str
    spec: Mapping[str, Any]
    held: dict[Path, frozenset[str]]  # names of the arrays in archives, cached

    @property
    def columns(self) -> set[str]:
        """Columns of the manifest that this view uses."""
        numbers = (self.spec.get(k) for k in ("start", "end", "last", "offset_ms", "timestamps", "affine"))
        return {self.column, *(c for c in numbers if isinstance(c, str))}

    def arrays(self, path: Path) -> frozenset[str]:
        """Names of the arrays in an archive, cached."""
        if path not in self.held:
            self.held[path] = _names_in(path)
        return self.held[path]

    def track(self, line: Mapping[str, str], clip: str, who: str) -> Track | None:
        spec, key = self.spec, ""
        if "file" in spec:
            path, key = Path(spec["file"]), line[spec["key_column"]] if spec.get("key_column") else clip
            if key not in self.arrays(self.root / path):
                return None
        elif "path" in spec:
            try:
                path = Path(str(spec["path"]).format_map(line))
            except (KeyError, ValueError, IndexError) as error:
                raise ModaliftError(f"views.{self.view}.path: '{spec['path']}' names the unknown column {error}"
                                    f" - {nearest(str(error), line)}") from None
        else:
            if not line[self.column]:
                return None
            path = Path(line[self.column])
        if not key and path.suffix.lower() == ".npz":
            key = line[spec["key_column"]] if spec.get("key_column") else clip
            held = self.arrays(self.root / path)
            key = key if key in held or len(held) > 1 else ""
        base = int(spec.get("base", 0))
        start = self._number("start", line, who)
        end, last = self._number("end", line, who), self._number("last", line, who)
        rate, offset = self._number("rate", line, who), self._number("offset_ms", line, who)
        return Track(self.root / path, key, 0 if start is None else int(start) - base,
                     int(end) - base if end is not None else int(last) - base + 1 if last is not None else None,
                     rate, self._numbers("timestamps", line, who), offset or 0.0, str(spec.get("space", "") or ""),
                     self._affine(line, who))

    def _number(self, key: str, line: Mapping[str, str], who: str) -> float | None:
        numbers = self._numbers(key, line, who)
        if len(numbers) > 1:
            raise ModaliftError(f"{who}: views.{self.view}.{key} needs one number, not {len(numbers)}")
        return numbers[0] if numbers else None

    def _numbers(self, key: str, line: Mapping[str, str], who: str) -> tuple[float, ...]:
        """The numbers of a key: given directly, or in the column that it names."""
        given = self.spec.get(key)
        if given is None:
            return ()
        if isinstance(given, int | float):
            return (float(given),)
        cells = line[given].split() if isinstance(given, str) else given
        try:
            return tuple(float(cell) for cell in cells)
        except (TypeError, ValueError):
            raise ModaliftError(f"{who}: views.{self.view}.{key} needs numbers, not '{' '.join(map(str, cells))}'") \
                from None

    def _affine(self, line: Mapping[str, str], who: str) -> tuple[float, float, float, float, float, float] | None:
        numbers = self._numbers("affine", line, who)
        if not numbers:
            return None
        if len(numbers) != 6:
            raise ModaliftError(f"{who}: views.{self.view}.affine needs six numbers (two rows of three)")
        a, b, c, d, e, f = numbers
        return a, b, c, d, e, f


def _views(root: Path, path: Path, columns: Sequence[str], lines: Sequence[Mapping[str, str]], ids: Sequence[str],
           given: Mapping[str, Any] | None, roles: set[str]) -> dict[str, _View]:
    if given is None:
        given = _guess_views(root, columns, lines, ids, roles)
        if not given:
            raise ModaliftError(f"{path}: no column looks like a view - describe the views with the option `views`"
                                f" (columns: {', '.join(columns)})")
    return {view: _view(root, path, view, spec, columns) for view, spec in given.items()}


def _view(root: Path, path: Path, view: str, spec: Any, columns: Sequence[str]) -> _View:
    spec = {"modality": spec} if isinstance(spec, str) else dict(spec or {})
    for key in spec:
        if key not in _VIEW_KEYS:
            raise ModaliftError(f"unknown key 'views.{view}.{key}' - {nearest(key, _VIEW_KEYS)}")
    if sum(k in spec for k in ("column", "path", "file")) > 1:
        raise ModaliftError(f"views.{view}: give one of column, path and file")
    if "end" in spec and "last" in spec:
        raise ModaliftError(f"views.{view}: give one of end (exclusive) and last (inclusive)")
    for key in ("start", "end", "last", "rate", "offset_ms", "timestamps", "affine", "key_column"):
        if isinstance(spec.get(key), str):
            _known(path, spec[key], columns)
    column = ""
    if "path" not in spec and "file" not in spec:
        column = _known(path, spec.get("column", view), columns, f"views.{view}: ")
    kind = view_modality(view, spec.get("modality"), spec.get("channels"))
    held = {root / spec["file"]: frozenset(reading.keys(root / spec["file"]))} if "file" in spec else {}
    return _View(view, kind, root, column, spec, held)


def _guess_views(root: Path, columns: Sequence[str], lines: Sequence[Mapping[str, str]], ids: Sequence[str],
                 roles: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns:
        cell = next((line[column] for line in lines if line[column]), "")
        looks_like_path = (bool(Path(cell).suffix) and _value(cell) == cell) or "/" in cell
        if column not in roles and modality_of(column) and looks_like_path:
            found[column] = {}
    clips = set(ids)
    for file in sorted(root.glob("*.npz")):
        kind = modality_of(file.stem)
        if kind and clips & _names_in(file):
            view = kind if kind not in found else file.stem
            if view not in found:
                found[view] = {"modality": kind, "file": file.name}
    return found


def _names_in(path: Path) -> frozenset[str]:
    """Names of the arrays in an archive; none if it is missing or broken, which `modalift check` reports."""
    try:
        return frozenset(reading.keys(path)) if path.is_file() else frozenset()
    except ModaliftError:
        return frozenset()


def stored_options(path: Path) -> dict[str, Any]:
    """The options in the ``.json`` file beside a manifest; files of another format are ignored."""
    file = path.with_suffix(".json")
    if not file.is_file():
        return {}
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModaliftError(f"{file} cannot be read as JSON ({error}) - correct or remove it") from None
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        return {}
    if not isinstance(held.get("options", {}), dict):
        raise ModaliftError(f"{file}: 'options' must be a mapping - correct or remove the file")
    for key in held.get("options", {}):
        if key not in STORED:
            raise ModaliftError(f"{file}: unknown option '{key}' - {nearest(key, STORED)}")
    return dict(held.get("options", {}))


def read_lines(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and lines of a text table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ModaliftError(f"{path} does not exist - set data.root, or the option `manifest`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModaliftError(f"{path} cannot be read as UTF-8 text ({error})") from None
    head = text.split("\n", 1)[0]
    table = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count))
    columns: list[str] = []
    lines = []
    for cells in table:
        cells = [c.strip() for c in cells]
        if not any(cells):
            continue
        if not columns:
            columns = cells
            if twice := next((c for c in columns if columns.count(c) > 1), None):
                raise ModaliftError(f"{path} has two columns '{twice}' - rename one")
            continue
        if len(cells) != len(columns):
            raise ModaliftError(f"{path}, line {table.line_num}: {len(cells)} cells under {len(columns)} columns"
                                " - correct the line")
        lines.append(dict(zip(columns, cells, strict=True)))
    if not lines:
        raise ModaliftError(f"{path} lists no clip - it needs a header line and one line per clip")
    return columns, lines


def _column(path: Path, role: str, given: str | None, columns: Sequence[str]) -> str | None:
    if given is not None:
        return _known(path, given, columns)
    return next((c for c in _USUAL_NAMES[role] if c in columns), None)


def _known(path: Path, column: str, columns: Sequence[str], before: str = "") -> str:
    if column not in columns:
        raise ModaliftError(f"{before}{path} has no column '{column}' - {nearest(column, columns)}")
    return column


def _cells(lines: Sequence[Mapping[str, str]], column: str | None) -> list[str]:
    return [line[column] if column else "" for line in lines]


def _value(cell: str) -> str | float:
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number if math.isfinite(number) else cell
