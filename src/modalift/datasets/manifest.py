"""The dataset ``csv``: a table of clips in a text file, one row per clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import model_serializer

from modalift.datasets.cells import Line, read_table, value
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
from modalift.files import is_file, parse_json, read_text
from modalift.loading import reading
from modalift.modalities import Modality, Row, Table, Track, build_table
from modalift.settings import Settings
from modalift.signatures import checked

_USUAL_NAMES = {
    "id": ("clip_id", "id", "clip", "sample", "name"),
    "label": ("label", "class", "gesture", "action", "label_id", "class_id"),
    "label_name": ("label_name", "class_name", "gesture_name", "action_name"),
    "subject": ("subject", "person", "participant", "performer", "subject_id"),
    "split": ("split", "subset", "partition"),
}
FORMAT = "modalift-manifest/1"
#: Options that ``manifest.json`` may hold.
STORED = ("views", "metadata", "mirrored", "classes", "first_label", "name")


class ViewSpec(Settings):
    """The description of a view; see :func:`read_manifest`. A text stands for the column of that name."""

    modality: str | None = None
    column: str | None = None
    path: str | None = None
    file: str | None = None
    key_column: str | None = None
    start: int | str | None = None
    end: int | str | None = None
    last: int | str | None = None
    base: Literal[0, 1] = 0
    rate: float | str | None = None
    offset_ms: float | str | None = None
    timestamps: tuple[float, ...] | str | None = None
    affine: tuple[float, ...] | str | None = None
    space: str = ""
    space_column: str | None = None
    channels: Annotated[int, Ge(1)] | None = None
    clamp: bool = False

    @model_serializer
    def given(self) -> dict[str, Any]:
        """Only the keys that were given."""
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}

    @property
    def columns(self) -> list[str]:
        """The columns that are given for numbers and keys."""
        found = (self.start, self.end, self.last, self.rate, self.offset_ms, self.timestamps, self.affine, self.key_column,
                 self.space_column)
        return [column for column in found if isinstance(column, str)]


@dataset("csv", recognize=lambda root: is_file(root) or is_file(root / "manifest.csv"))
def read_manifest(root: Path, *, manifest: str = "manifest.csv", id: str | None = None, label: str | None = None,
                  label_name: str | None = None, subject: str | None = None, split: str | None = None,
                  views: Mapping[str, ViewSpec | str] | None = None, metadata: Sequence[str] | None = None,
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
    of space-separated numbers; ``space`` (views with the same space are pixel-aligned; ``space_column`` if it differs between
    clips) and ``channels``; ``clamp`` (true: a window that ends after the last frame ends there). A clip lacks the view if its
    cell is empty or its archive has no array for it. For a path that ends in ``.npz``, the array named as the clip, or in
    ``key_column``, is used.

    A file ``manifest.json`` beside ``manifest.csv`` may hold these options (``{"format": "modalift-manifest/1",
    "options": {...}}``); arguments override them, views key by key. It may also hold ``missing`` (ids of clips without
    recordings) and ``notes``, which ``modalift index`` writes and ``modalift check`` prints.

    Raises:
        ModaliftError: names the manifest and the line, column or key that is wrong.
    """
    if is_file(root):
        root, manifest = root.parent, root.name
    path = root / manifest
    table = read_table(path)
    columns, lines = table.columns, table.lines
    held = _stored(path)
    stored = _options(held, path)
    views = _described(stored.get("views"), views)
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
    table.check_text({s.column for s in specs.values()})
    labeling = number_labels(str(path), ids, _cells(lines, roles["label"]), _cells(lines, roles["label_name"]),
                              classes, first_label, close_gaps)
    taken = {c for c in roles.values() if c}.union(*(s.columns for s in specs.values()))
    kept = [c for c in columns if c not in taken] if metadata is None else [_known(path, c, columns) for c in metadata]
    rows = []
    for clip, line, number in zip(ids, lines, labeling.labels, strict=True):
        if not clip:
            raise ModaliftError(f"{line.where}, column '{roles['id']}': is empty - give every clip an id")
        where = "train" if roles["split"] is None or test_subjects else \
            split_of(line[roles["split"]], f"{line.where}: clip '{clip}'")
        rows.append(Row(clip, number, line[roles["subject"]] if roles["subject"] else "", where,
                        {v: t for v, s in specs.items() if (t := s.track(line, clip)) is not None},
                        {c: value(line[c]) for c in kept if line[c]}))
    rows = assign_subjects(str(path), rows, test_subjects, val_subjects)
    kinds = {v: with_channels(v, s.modality, (r.tracks[v] for r in rows if v in r.tracks)) for v, s in specs.items()}
    return build_table(name or stored.get("name") or root.resolve().name, labeling.classes, kinds, rows,
                       mirror_map(labeling.classes, mirrored), _texts(held, "missing", path), _texts(held, "notes", path))


@dataclass(frozen=True)
class _View:
    """How the manifest describes one view."""

    view: str
    modality: Modality
    root: Path
    column: str
    spec: ViewSpec
    held: dict[Path, frozenset[str]]  # names of the arrays in archives, cached

    @property
    def columns(self) -> set[str]:
        """Columns of the manifest that this view uses, except for its rate."""
        return {self.column, *self.spec.replace(rate=None, key_column=None).columns}

    def arrays(self, path: Path) -> frozenset[str]:
        """Names of the arrays in an archive, cached."""
        if path not in self.held:
            self.held[path] = _names_in(path)
        return self.held[path]

    def track(self, line: Line, clip: str) -> Track | None:
        spec, key = self.spec, ""
        if spec.file is not None:
            path, key = Path(spec.file), line[spec.key_column] if spec.key_column else clip
            if key not in self.arrays(self.root / path):
                return None
        elif spec.path is not None:
            path = self._template(line)
        else:
            if not line[self.column]:
                return None
            path = line.path(self.column, self.root)
        if not key and path.suffix.lower() == ".npz":
            key = line[spec.key_column] if spec.key_column else clip
            held = self.arrays(self.root / path)
            key = key if key in held or len(held) > 1 else ""
        elif not key and spec.key_column:
            key = line[spec.key_column]
        start, end, last = (self._number(name, line, whole=True) for name in ("start", "end", "last"))
        rate, offset = self._number("rate", line), self._number("offset_ms", line)
        if rate is not None and rate <= 0:
            raise ModaliftError(f"{line.where}: views.{self.view}.rate is {rate:g} - give frames per second, above 0")
        return Track(self.root / path, key, 0 if start is None else int(start) - spec.base,
                     int(end) - spec.base if end is not None else int(last) - spec.base + 1 if last is not None else None,
                     rate, self._numbers("timestamps", line), offset or 0.0,
                     line[spec.space_column] if spec.space_column else spec.space, self._affine(line), spec.clamp)

    def _template(self, line: Line) -> Path:
        template = self.spec.path or ""
        try:
            return Path(template.format_map(line))
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise ModaliftError(f"views.{self.view}.path: '{template}' names the unknown column {error}"
                                f" - {nearest(str(error), line)}") from None

    def _number(self, key: str, line: Line, whole: bool = False) -> float | None:
        found = self._numbers(key, line, whole)
        if len(found) > 1:
            raise ModaliftError(f"{line.where}: views.{self.view}.{key} needs one number, not {len(found)}")
        return found[0] if found else None

    def _numbers(self, key: str, line: Line, whole: bool = False) -> tuple[float, ...]:
        """The numbers of a key: given directly, or in the column that it names."""
        given = getattr(self.spec, key)
        if isinstance(given, str):
            return line.numbers(given, f"views.{self.view}.{key}", whole)
        return () if given is None else given if isinstance(given, tuple) else (given,)

    def _affine(self, line: Line) -> tuple[float, float, float, float, float, float] | None:
        found = self._numbers("affine", line)
        if not found:
            return None
        if len(found) != 6:
            raise ModaliftError(f"{line.where}: views.{self.view}.affine needs six numbers (two rows of three)")
        a, b, c, d, e, f = found
        if a * e == b * d:
            raise ModaliftError(f"{line.where}: views.{self.view}.affine {' '.join(f'{x:g}' for x in found)} maps the image"
                                " to a line or a point - correct it")
        return a, b, c, d, e, f


#: Keys of a view's description of which one replaces the others.
_EXCLUSIVE = (("column", "path", "file"), ("end", "last"), ("space", "space_column"), ("modality", "channels"))


def _described(stored: Mapping[str, ViewSpec | str] | None,
               given: Mapping[str, ViewSpec | str] | None) -> Mapping[str, ViewSpec | str] | None:
    """The given views; of each, what is not given is as in the file beside the manifest (its window, rate, clock, ...)."""
    if given is None or stored is None:
        return stored if given is None else given
    described: dict[str, ViewSpec | str] = {}
    for view, spec in given.items():
        keys = ViewSpec.parse({"modality": spec} if isinstance(spec, str) else spec, f"views.{view}").model_dump()
        known = stored.get(view, ViewSpec())
        base = {"modality": known} if isinstance(known, str) else known.model_dump()
        replaced = {key for group in _EXCLUSIVE if keys.keys() & {*group} for key in group}
        described[view] = ViewSpec.parse({**{k: v for k, v in base.items() if k not in replaced}, **keys}, f"views.{view}")
    return described


def _views(root: Path, path: Path, columns: Sequence[str], lines: Sequence[Line], ids: Sequence[str],
           given: Mapping[str, ViewSpec | str] | None, roles: set[str]) -> dict[str, _View]:
    if given is None:
        given = _guess_views(root, columns, lines, ids, roles)
        if not given:
            raise ModaliftError(f"{path}: no column looks like a view - describe the views with the option `views`"
                                f" (columns: {', '.join(columns)})")
    return {view: _view(root, path, view, spec, columns) for view, spec in given.items()}


def _view(root: Path, path: Path, view: str, given: ViewSpec | str, columns: Sequence[str]) -> _View:
    spec = ViewSpec.parse({"modality": given} if isinstance(given, str) else given, f"views.{view}")
    if sum(k is not None for k in (spec.column, spec.path, spec.file)) > 1:
        raise ModaliftError(f"views.{view}: give one of column, path and file")
    if spec.space and spec.space_column:
        raise ModaliftError(f"views.{view}: give one of space and space_column")
    if spec.end is not None and spec.last is not None:
        raise ModaliftError(f"views.{view}: give one of end (exclusive) and last (inclusive)")
    for column in spec.columns:
        _known(path, column, columns)
    column = ""
    if spec.path is None and spec.file is None:
        column = _known(path, spec.column or view, columns, f"views.{view}: ")
    kind = view_modality(view, spec.modality, spec.channels)
    held = {root / spec.file: frozenset(reading.keys(root / spec.file))} if spec.file is not None else {}
    return _View(view, kind, root, column, spec, held)


def _guess_views(root: Path, columns: Sequence[str], lines: Sequence[Mapping[str, str]], ids: Sequence[str],
                 roles: set[str]) -> dict[str, ViewSpec | str]:
    found: dict[str, ViewSpec | str] = {}
    for column in columns:
        cell = next((line[column] for line in lines if line[column]), "")
        looks_like_path = (bool(Path(cell).suffix) and value(cell) == cell) or "/" in cell
        if column not in roles and modality_of(column) and looks_like_path:
            found[column] = ViewSpec()
    clips = set(ids)
    for file in sorted(root.glob("*.npz")):
        kind = modality_of(file.stem)
        if kind and clips & _names_in(file):
            view = kind if kind not in found else file.stem
            if view not in found:
                found[view] = ViewSpec(modality=kind, file=file.name)
    return found


def _names_in(path: Path) -> frozenset[str]:
    """Names of the arrays in an archive; none if it is missing or broken, which `modalift check` reports."""
    try:
        return frozenset(reading.keys(path)) if is_file(path) else frozenset()
    except ModaliftError:
        return frozenset()


def stored_options(path: Path) -> dict[str, Any]:
    """The options in the ``.json`` file beside a manifest; files of another format are ignored."""
    return _options(_stored(path), path)


def _stored(path: Path) -> dict[str, Any]:
    """The content of the ``.json`` file beside a manifest; empty if there is none, or one of another format."""
    file = path.with_suffix(".json")
    if not is_file(file):
        return {}
    try:
        held = parse_json(read_text(file))
    except ValueError as error:
        raise ModaliftError(f"{file} cannot be read as JSON ({error}) - correct or remove it") from None
    return held if isinstance(held, dict) and held.get("format") == FORMAT else {}


def _texts(held: Mapping[str, Any], key: str, path: Path) -> list[str]:
    found = held.get(key, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ModaliftError(f"{path.with_suffix('.json')}: '{key}' must be a list of texts - correct or remove the file")
    return found


def _options(held: Mapping[str, Any], path: Path) -> dict[str, Any]:
    file, options = path.with_suffix(".json"), held.get("options", {})
    if not isinstance(options, dict):
        raise ModaliftError(f"{file}: 'options' must be a mapping - correct or remove the file")
    try:
        return checked(read_manifest, options, dict.fromkeys(STORED), "options", "a manifest")
    except ModaliftError as error:
        raise ModaliftError(f"{file}: {error}") from None


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
