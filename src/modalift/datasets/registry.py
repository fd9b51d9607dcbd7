"""Datasets by name: registration, recognition of a folder's dataset, and opening."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modalift.datasets.release import Comparison, Release, compare
from modalift.errors import ModaliftError
from modalift.files import exists, expanded
from modalift.modalities import Table
from modalift.registry import Registry
from modalift.signatures import checked

#: A dataset: a function from the folder of its download, and its options by keyword, to a Table.
Maker = Callable[..., Table]
DATASETS: Registry[Maker] = Registry("dataset")
#: Dataset -> a function that tells whether a folder (or a file) is of it.
RECOGNIZERS: dict[str, Callable[[Path], bool]] = {}
#: Dataset -> what its release holds, which may depend on the options.
RELEASES: dict[str, Release | Callable[[Mapping[str, Any]], Release | None]] = {}
#: Formats for any recordings, which are tried after all others.
GENERAL = ("csv", "folder")


def dataset(name: str, recognize: Callable[[Path], bool],
            release: Release | Callable[[Mapping[str, Any]], Release | None] | None = None) -> Callable[[Maker], Maker]:
    """Registers a function ``(root: Path, *, option=default, ...) -> Table``.

    Args:
        name: its name in recipes.
        recognize: whether a folder is of this dataset; fast, and by files that no other dataset has.
        release: what the published release holds, or a function of the options (all of them, also those with their
            defaults) that tells, or that returns None where it is not known; None for formats of one's own recordings.
    """
    def register(maker: Maker) -> Maker:
        DATASETS.add(name, maker)
        RECOGNIZERS[name] = recognize
        if release is not None:
            RELEASES[name] = release
        return maker

    return register


def options_of(name: str) -> dict[str, Any]:
    """The options of a dataset with their defaults: the keyword arguments of its function."""
    return {p.name: p.default for p in inspect.signature(DATASETS[name]).parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a dataset, with their types checked.

    Raises:
        ModaliftError: an unknown dataset or option (with the nearest known one), or a value of the wrong type.
    """
    return checked(DATASETS[name], given, options_of(name), "data.options", f"dataset '{name}'")


def open(name: str, root: str | Path, /, **options: Any) -> Table:
    """The Table of a dataset.

    Args:
        name: a registered dataset (``csv``, ``folder``, ``darkroom``, ...).
        root: its folder; for ``csv`` also the manifest itself.
        options: the dataset's own options, see :func:`options_of`.

    Raises:
        ModaliftError: an unknown dataset or option, a missing folder, or an error in its files.
    """
    maker = DATASETS[name]
    options = check_options(name, options)
    place = expanded(root)
    if not exists(place):
        raise ModaliftError(f"{place} does not exist - set data.root to the dataset's folder")
    return maker(place, **options)


def release_of(name: str, **options: Any) -> Release | None:
    """What the release of a dataset holds under its options; None for formats of one's own recordings.

    Raises:
        ModaliftError: an unknown dataset or option, or a value of the wrong type.
    """
    given = check_options(name, options)
    release = RELEASES.get(name)
    return release({**options_of(name), **given}) if callable(release) else release


def compare_with_release(table: Table, name: str, guessed: bool, **options: Any) -> Comparison:
    """A table beside the release of the dataset that it was opened as.

    Args:
        table: the table.
        name: the dataset that it was opened as.
        guessed: whether that was recognized from the folder.
        options: the dataset's options with which it was opened.
    """
    return compare(table, name, guessed, release_of(name, **options))


def guess(root: str | Path) -> str:
    """The dataset of a folder: one that recognizes it, else ``csv`` (a manifest) or ``folder``.

    Raises:
        ModaliftError: the folder does not exist.
    """
    place = expanded(root)
    if not exists(place):
        raise ModaliftError(f"{place} does not exist - give a dataset's folder")
    order = sorted(RECOGNIZERS, key=lambda name: (name in GENERAL, name))
    return next((name for name in order if RECOGNIZERS[name](place)), GENERAL[-1])
