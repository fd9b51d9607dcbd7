"""The dataset ``folder``: classes, clips and views by the names of folders and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modalift.datasets.naming import (
    assign_subjects,
    is_split,
    mirror_map,
    modality_of,
    shared_spaces,
    split_of,
    subject_of,
    view_modality,
    with_channels,
)
from modalift.datasets.registry import dataset
from modalift.errors import ModaliftError, nearest
from modalift.files import entries, is_folder, name_text
from modalift.loading import reading
from modalift.modalities import Row, Table, Track, build_table

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
#: Class folders of clips without a label, in either spelling.
UNLABELED = ("unlabeled", "unlabelled")


@dataclass(frozen=True)
class _Found:
    split: str
    label: str
    clip: str
    view: str
    path: Path


@dataset("folder", recognize=is_folder)
def read_folder(root: Path, *, modalities: Mapping[str, str] | None = None,
                spaces: Sequence[Sequence[str]] = (), mirrored: Mapping[str, str] | None = None,
                classes: Sequence[str] | None = None, rate: float | None = None,
                test_subjects: Sequence[str] | None = None, val_subjects: Sequence[str] | None = None,
                name: str | None = None) -> Table:
    """A table of clips from folders, in one of two layouts.

    1. ``ROOT/<split>/<class>/<clip>/<view>.<ext>``: one folder per clip with one file per view (or a folder ``<view>/``
       of images). ``<split>`` is train, val or test, or a usual synonym.
    2. ``ROOT/<view>/<class>/<clip>.<ext>`` (or a folder ``<clip>/`` of images): one folder per view, with
       the same names below each. There are no splits, so ``test_subjects`` must be given.

    ``<ext>`` is that of a video, an image, ``.npz`` or ``.npy``. A view's modality follows from its name (``rgb``,
    ``rgb_day``, ``depth``, ``ir_left``, ``pose``, ...) or from ``modalities``. A clip's name may start with its subject:
    ``s03_wave_2`` is by ``s03`` (``s``, ``subj``, ``subject``, ``p`` or ``person``, a number, then ``_``). Clips in the
    class folder ``unlabeled`` have no label. A clip may lack some of the views. Files of other types (``README.md``) and
    names that start with a dot are ignored.

    Args:
        root: the folder.
        modalities: view -> modality, for views whose name does not contain it.
        spaces: groups of views that are pixel-aligned, such as ``[[rgb, depth]]``.
        mirrored: class -> class of its mirror image; ``others: same``: all other classes keep theirs.
        classes: class names in order; by default those found, in natural order.
        rate: frames per second of all views.
        test_subjects, val_subjects: subjects whose clips form these splits.
        name: the table's name; by default the folder's.

    Raises:
        ModaliftError: the folder has neither layout; names the first folder that does not fit.
    """
    if not is_folder(root):
        raise ModaliftError(f"{root} is a file - give a folder, or use the dataset 'csv' for a manifest")
    tops = [p for p in _sorted(root) if p.is_dir()]
    if tops and all(is_split(p.name) for p in tops):
        found = list(_by_split(root, tops))
    elif tops and all(modality_of(p.name) or p.name in (modalities or {}) for p in tops):
        found = list(_by_view(tops))
        if not test_subjects:
            subjects = sorted({subject_of(f.clip) for f in found} - {""}, key=reading.natural)
            raise ModaliftError(f"{root} has no train and test folders - give test_subjects"
                                f" (subjects: {', '.join(subjects) or 'none; no clip name starts with one'})")
    else:
        if not tops:
            raise ModaliftError(f"{root} holds no folders - arrange the files as <split>/<class>/<clip>/<view>.<ext> or"
                                " <view>/<class>/<clip>.<ext>")
        what = next(p.name for p in tops if not is_split(p.name))
        raise ModaliftError(f"{root} holds '{what}', which is neither a split nor a view - arrange the files as"
                            " <split>/<class>/<clip>/<view>.<ext> or <view>/<class>/<clip>.<ext>, or write a manifest"
                            " and use the dataset 'csv'")
    return _table(root, found, modalities or {}, spaces, mirrored, classes, rate, test_subjects, val_subjects, name)


def _table(root: Path, found: list[_Found], modalities: Mapping[str, str], spaces: Sequence[Sequence[str]],
           mirrored: Mapping[str, str] | None, classes: Sequence[str] | None, rate: float | None,
           test_subjects: Sequence[str] | None, val_subjects: Sequence[str] | None, name: str | None) -> Table:
    if not found:
        raise ModaliftError(f"{root}: no clip was found - check that files end in {', '.join(VIDEOS[:4])}, .npz, ...")
    views = sorted({f.view for f in found}, key=reading.natural)
    for view in modalities:
        if view not in views:
            raise ModaliftError(f"{root}: there is no view '{view}' - {nearest(view, views)}")
    kinds = {view: view_modality(view, modalities.get(view)) for view in views}
    space_of = shared_spaces(str(root), spaces, views)
    order = list(classes) if classes else sorted({f.label for f in found} - {*UNLABELED}, key=reading.natural)
    clips: dict[tuple[str, str, str], dict[str, Track]] = {}
    for f in found:
        tracks = clips.setdefault((f.split, f.label, f.clip), {})
        if f.view in tracks:
            raise ModaliftError(f"{f.path} and {tracks[f.view].path.name} are both view '{f.view}' of one clip"
                                " - remove one")
        tracks[f.view] = Track(f.path, rate=rate, space=space_of.get(f.view, ""))
    rows = []
    for (split, label, clip), tracks in clips.items():
        if label not in UNLABELED and label not in order:
            raise ModaliftError(f"{root}: class folder '{label}' is not among `classes` - {nearest(label, order)}")
        rows.append(Row("/".join(p for p in (split, label, clip) if p), None if label in UNLABELED
                        else order.index(label), subject_of(clip), split_of(split or "train", clip), tracks))
    rows = assign_subjects(str(root), rows, test_subjects, val_subjects)
    kinds = {v: with_channels(v, kind, (r.tracks[v] for r in rows if v in r.tracks)) for v, kind in kinds.items()}
    return build_table(name or root.resolve().name, order, kinds, rows, mirror_map(order, mirrored))


def _by_split(root: Path, splits: Sequence[Path]) -> Iterator[_Found]:
    for split in splits:
        for label in _folders(split, "class"):
            for clip in _folders(label, "clip"):
                for view in _sorted(clip):
                    if _is_recording(view):
                        yield _Found(split.name, name_text(label.name), name_text(clip.name), _stem(view), view)


def _by_view(views: Sequence[Path]) -> Iterator[_Found]:
    for view in views:
        for label in _folders(view, "class"):
            for clip in _sorted(label):
                if _is_recording(clip):
                    yield _Found("", name_text(label.name), _stem(clip), name_text(view.name), clip)


def _folders(parent: Path, what: str) -> list[Path]:
    found = _sorted(parent)
    for path in found:
        if not path.is_dir() and _is_recording(path):
            raise ModaliftError(f"{path} is a file where a {what} folder is expected - arrange the files as"
                                " <split>/<class>/<clip>/<view>.<ext> or <view>/<class>/<clip>.<ext>")
    return [p for p in found if p.is_dir()]


def _is_recording(path: Path) -> bool:
    """A file of a known type, or a folder (whether it has images is checked when it is read)."""
    return path.is_dir() or path.suffix.lower() in (*VIDEOS, *reading.IMAGES, *reading.ARRAYS)


def _stem(path: Path) -> str:
    return name_text(path.name if path.is_dir() else path.stem)


def _sorted(folder: Path) -> list[Path]:
    return sorted(entries(folder), key=lambda p: reading.natural(p.name))
