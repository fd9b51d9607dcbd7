"""Interprets names in datasets: splits, modalities, subjects, and label numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modalift.errors import ModaliftError, nearest
from modalift.loading import reading
from modalift.modalities import MODALITIES, Modality, Row, Track, is_known
from modalift.values import whole

_SPLITS = {"train": "train", "training": "train", "tr": "train", "val": "val", "valid": "val", "validation": "val",
           "dev": "val", "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}
_ALIASES = {"color": "rgb", "colour": "rgb", "gray": "gray", "grey": "gray", "ir": "nir", "infrared": "nir", "skeleton": "pose",
            "joints": "pose", "inertial": "imu", "optical_flow": "flow"}
_SUBJECT = re.compile(r"^(?:s|subj|subject|p|person)[-]?\d+$", re.IGNORECASE)


def split_of(word: str, who: str) -> str:
    """``train``, ``val`` or ``test``, also from synonyms (``training``, ``valid``, ``dev``, ``testing``, ...).

    Example:
        >>> split_of("Validation", "clip 7")
        'val'
    """
    try:
        return _SPLITS[word.strip().lower()]
    except KeyError:
        raise ModaliftError(f"{who} has split '{word}' - use train, val or test (also understood:"
                            f" {', '.join(k for k, v in _SPLITS.items() if k != v)})") from None


def is_split(word: str) -> bool:
    return word.strip().lower() in _SPLITS


def modality_of(view: str) -> str | None:
    """The modality in a view's name: ``rgb_day`` is rgb, ``ir_left`` nir, ``crop_depth`` depth; None if there is none.

    Example:
        >>> modality_of("crop_depth"), modality_of("ir_left"), modality_of("masks")
        ('depth', 'nir', None)
    """
    words = "_" + re.sub(r"[^a-z0-9]+", "_", view.lower()).strip("_") + "_"
    names = {**{m: m for m in MODALITIES}, **_ALIASES}
    for name in sorted(names, key=len, reverse=True):  # `pose_map` before `pose`
        if re.search(rf"_{re.escape(name)}\d*_", words):
            return names[name]
    return None


def view_modality(view: str, named: str | None, channels: int | None = None) -> Modality:
    """The Modality of a view: the one named in the options, or else the one in its own name."""
    name = named or modality_of(view)
    if name is None:
        raise ModaliftError(f"view '{view}': its name contains no modality - give views.{view}.modality"
                            f" ({', '.join(MODALITIES)})")
    found = MODALITIES[_ALIASES.get(name, name) if name not in MODALITIES else name]
    return found if channels is None else found.with_channels(channels)


def with_channels(view: str, kind: Modality, tracks: Iterable[Track]) -> Modality:
    """The modality with the number of channels that most of the view's first recordings have."""
    if kind.channels:
        return kind
    problem: ModaliftError | None = None
    found: list[int] = []
    for track in tracks:
        try:
            found.append(reading.channels(track, kind))
        except ModaliftError as error:  # `modalift check` reports a broken clip; another one serves here
            problem = error
        if len(found) == 5:
            break
    if found:
        return kind.with_channels(max(found, key=found.count))
    raise ModaliftError(f"view '{view}': the number of channels of {kind.name} cannot be read from any recording"
                        + (f" ({problem})" if problem else "") + f" - give views.{view}.channels")


def subject_of(clip: str) -> str:
    """The subject with which a clip's name starts (``s03_wave_2`` is by ``s03``), or an empty string.

    Example:
        >>> subject_of("s03_wave_2"), subject_of("stop_1"), subject_of("Subject12_a")
        ('s03', '', 'Subject12')
    """
    head = clip.split("_")[0]
    return head if _SUBJECT.match(head) else ""


@dataclass(frozen=True)
class Labeling:
    """Class names, and the class of each clip."""

    classes: tuple[str, ...]
    labels: tuple[int | None, ...]


def number_labels(where: str, ids: Sequence[str], labels: Sequence[str], names: Sequence[str],
                  classes: Sequence[str] | None, first: int | None, close_gaps: bool) -> Labeling:
    """Class indices from label cells, which may be numbers or names; an empty cell is an unlabeled clip.

    Numbers that start at 0 are class indices; from others 1 (or ``first``) is subtracted. If a number between is missing,
    there is a class without clips, named ``class N``; ``close_gaps`` renumbers the classes instead. Without numbers, the
    classes are the names in natural order, or the given ``classes``.
    """
    filled = [x for x in labels if x]
    if filled and all(re.fullmatch(r"\d+(\.0+)?", x) for x in filled):
        return _by_number(where, ids, labels, names, classes, first, close_gaps)
    texts = [x or n for x, n in zip(labels, names, strict=True)]
    order = list(classes) if classes else sorted({x for x in texts if x}, key=reading.natural)
    index = {name: i for i, name in enumerate(order)}
    for clip, text in zip(ids, texts, strict=True):
        if text and text not in index:
            raise ModaliftError(f"{where}: clip '{clip}' has label '{text}', which is not in `classes` -"
                                f" {nearest(text, index)}")
    return Labeling(tuple(order), tuple(index[x] if x else None for x in texts))


def _number(where: str, clip: str, label: str) -> int:
    try:
        return whole(label)
    except ValueError as reason:
        raise ModaliftError(f"{where}: clip '{clip}' has label '{label[:80]}', which {reason}") from None


def _by_number(where: str, ids: Sequence[str], labels: Sequence[str], names: Sequence[str],
               classes: Sequence[str] | None, first: int | None, close_gaps: bool) -> Labeling:
    numbers = [_number(where, clip, label) if label else None for clip, label in zip(ids, labels, strict=True)]
    called: dict[int, str] = {}
    for clip, number, name in zip(ids, numbers, names, strict=True):
        if number is not None and name and called.setdefault(number, name) != name:
            raise ModaliftError(f"{where}: label {number} is called '{called[number]}' and, at clip '{clip}', '{name}'"
                                " - give each label one name")
    by_name = {name: number for number, name in called.items()}
    if len(by_name) < len(called):
        twice = next(n for k, n in called.items() if by_name[n] != k)
        raise ModaliftError(f"{where}: two label numbers are called '{twice}' - give each label its own name")
    # A clip with a name only has the number of that name.
    numbers = [by_name.get(name) if number is None and name else number
               for number, name in zip(numbers, names, strict=True)]
    used = sorted({n for n in numbers if n is not None})
    base = first if first is not None else 0 if used[0] == 0 else 1
    if used[0] < base:
        raise ModaliftError(f"{where}: label {used[0]} is below first_label {base} - correct one of them")
    if close_gaps:
        place = {n: i for i, n in enumerate(used)}
    else:
        # With class names it is known which numbers there are, and below it is told if there are too few names.
        if used[-1] - base + 1 > max(10 * len(used) + 10, len(classes or ())):
            raise ModaliftError(f"{where}: labels go up to {used[-1]}, but only {len(used)} numbers are in use"
                                " - set close_gaps to renumber them")
        place = {n: n - base for n in range(base, used[-1] + 1)}
    found = [called.get(n, f"class {n}" if called else str(n)) for n in place]
    if not called and not close_gaps:
        found = [str(n) if n in used else f"class {n}" for n in place]
    if classes is not None:
        if len(classes) < len(found):
            raise ModaliftError(f"{where}: `classes` has {len(classes)} names, but labels need {len(found)}"
                                " - name every class")
        found = list(classes)
    return Labeling(tuple(found), tuple(place[n] if n is not None else None for n in numbers))


def mirror_map(classes: Sequence[str], mirrored: Mapping[str, str] | None) -> dict[int, int]:
    """Label pairs from pairs of class names, in both directions; with ``others: same`` all other classes keep theirs."""
    index = {name: i for i, name in enumerate(classes)}
    pairs: dict[int, int] = {}
    others = False
    for left, right in (mirrored or {}).items():
        if left == "others" and right == "same" and "others" not in index:
            others = True
            continue
        for name in (left, right):
            if name not in index:
                raise ModaliftError(f"mirrored: there is no class '{name}' - {nearest(name, index)}")
        pairs[index[left]] = index[right]
        pairs.setdefault(index[right], index[left])
    if others:
        pairs = {**{i: i for i in index.values()}, **pairs}
    return pairs


def shared_spaces(where: str, groups: Sequence[Sequence[str]], views: Collection[str]) -> dict[str, str]:
    """View -> its space, from groups of pixel-aligned views; a view in no group is missing here.

    Example:
        >>> shared_spaces("here", [["rgb", "depth"]], ("rgb", "depth", "flow"))
        {'rgb': 'rgb+depth', 'depth': 'rgb+depth'}
    """
    for view in (v for group in groups for v in group):
        if view not in views:
            raise ModaliftError(f"{where}: there is no view '{view}' - {nearest(view, views)}")
    return {view: "+".join(group) for group in groups for view in group}


def assign_subjects(where: str, rows: Sequence[Row], test_subjects: Collection[str] | None,
                    val_subjects: Collection[str] | None) -> list[Row]:
    """Splits by subject: the test subjects' clips, the validation subjects', and the rest for training.

    Without ``test_subjects``, only training clips are reassigned (to ``val``); with it, all splits are.
    """
    known = {r.subject for r in rows if is_known(r.subject)}
    tested, held = ([str(s) for s in group or ()] for group in (test_subjects, val_subjects))
    for subject in (*tested, *held):
        if not is_known(subject):
            raise ModaliftError(f"{where}: '{subject}' in test_subjects or val_subjects means that a subject is not known; such"
                                f" clips are not of one person - name subjects ({', '.join(sorted(known)) or 'none is known'})")
        if subject not in known:
            raise ModaliftError(f"{where}: there is no subject '{subject}' - {nearest(subject, known)}")
    if both := sorted(set(tested) & set(held)):
        raise ModaliftError(f"{where}: subject '{both[0]}' is in test_subjects and in val_subjects - leave it in one")

    def place(row: Row) -> Row:
        if tested:
            return replace(row, split="test" if row.subject in tested else "val" if row.subject in held else "train")
        return replace(row, split="val") if row.split == "train" and row.subject in held else row

    return [place(r) for r in rows]
