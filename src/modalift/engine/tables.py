"""The table of an experiment: folds, held-out subjects, limits and hidden labels."""

from __future__ import annotations

import dataclasses
import random

from modalift import datasets
from modalift.errors import ModaliftError, nearest
from modalift.modalities import Table, is_known
from modalift.recipe import Recipe


def open_table(recipe: Recipe) -> Table:
    """Opens the recipe's table, and applies its folds, validation subjects and limit.

    Raises:
        ModaliftError: a dataset that cannot be opened, an invalid fold, or a validation subject without training clips.
    """
    return limit_clips(open_unlimited(recipe), recipe.data.limit)


def open_unlimited(recipe: Recipe) -> Table:
    """The recipe's table as :func:`open_table` opens it, but for ``data.limit``."""
    data, protocol = recipe.data, recipe.protocol
    table = datasets.open(data.dataset or datasets.guess(data.root), data.root, **data.options)
    if protocol.fold is not None and not protocol.folds:
        raise ModaliftError(f"protocol.fold={protocol.fold} needs protocol.folds - set it to the number of folds")
    if protocol.folds:
        table = take_fold(table, protocol.folds, protocol.fold or 0)
    return hold_out(table, protocol.val_subjects)


def take_fold(table: Table, folds: int, fold: int) -> Table:
    """One fold of a cross-validation: every ``folds``-th subject from ``fold`` on is tested, the others train.

    Raises:
        ModaliftError: clips of unknown subject, which may be of a person of any fold; an invalid fold; or more folds than
            subjects.
    """
    unknown = [r for r in table if not is_known(r.subject)]
    if unknown:
        raise ModaliftError(f"protocol.folds={folds}: the subject of {len(unknown)} of {len(table)} clips of {table.name} is"
                            f" not known ('{unknown[0].id}', ...), and folds are split by subject - give each clip a subject,"
                            " or remove these clips from the table")
    if not 0 <= fold < folds <= len(table.subjects):
        raise ModaliftError(f"protocol.fold={fold} of folds={folds}: {table.name} has {len(table.subjects)} subjects"
                            " - use 0 <= fold < folds <= subjects")
    test_subjects = set(table.subjects[fold::folds])
    return table.map(lambda r: dataclasses.replace(r, split="test" if r.subject in test_subjects else "train"))


def hold_out(table: Table, subjects: list[str]) -> Table:
    """Moves the training clips of some subjects to the validation split.

    Raises:
        ModaliftError: a subject without training clips.
    """
    known = table.split("train").subjects
    for subject in subjects:
        if not is_known(subject):
            raise ModaliftError(f"protocol.val_subjects: '{subject}' means that a subject is not known; such clips are not of"
                                f" one person - name subjects ({', '.join(known) or 'no training clip has one'})")
        if subject not in known:
            raise ModaliftError(f"protocol.val_subjects: no training clip of subject '{subject}' - {nearest(subject, known)}")
    if not subjects:
        return table
    return table.map(lambda r: dataclasses.replace(r, split="val") if r.split == "train" and r.subject in subjects else r)


def limit_clips(table: Table, limit: int) -> Table:
    """Keeps at most ``limit`` clips of each split, evenly spaced; all of them where it is 0."""
    if not limit:
        return table
    keep: set[str] = set()
    for split in ("train", "val", "test"):
        rows = table.split(split).rows
        step = max(1, len(rows) // limit)
        keep |= {r.id for r in rows[::step][:limit]}
    return table.where(lambda r: r.id in keep)


def hide_labels(table: Table, share: float, seed: int) -> Table:
    """Keeps the labels of a share of the clips of each class (at least one per class), and removes the others.

    Args:
        table: the table.
        share: 0..1 of each class's clips.
        seed: selects which.
    """
    if share >= 1:
        return table
    kept: set[str] = set()
    for label in range(len(table.classes)):
        ids = sorted(r.id for r in table if r.label == label)
        random.Random(f"{seed}/{label}").shuffle(ids)
        kept |= set(ids[: max(1, round(share * len(ids)))]) if ids else set()
    return table.map(lambda r: r if r.id in kept else dataclasses.replace(r, label=None))
