"""Datasets by name: what registers one, which one a folder looks like, and how one is opened."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError
from modalift.modalities import Table
from modalift.registry import Registry
from modalift.signatures import checked

#: A dataset: the folder of its download, then its options by keyword, to a Table.
Maker = Callable[..., Table]
DATASETS: Registry[Maker] = Registry("dataset")
#: Dataset -> whether a folder (or a file) looks like it.
RECOGNIZERS: dict[str, Callable[[Path], bool]] = {}
#: What any recordings can be laid out as: asked after all others.
GENERAL = ("csv", "folder")


def dataset(name: str, recognize: Callable[[Path], bool]) -> Callable[[Maker], Maker]:
    """Registers a function ``(root: Path, *, option=default, ...) -> Table``.

    Args:
        name: what recipes call it.
        recognize: whether a folder looks like this dataset: by what only it has, and quickly.
    """
    def register(maker: Maker) -> Maker:
        DATASETS.add(name, maker)
        RECOGNIZERS[name] = recognize
        return maker

    return register


def options_of(name: str) -> dict[str, Any]:
    """The options of a dataset with their defaults; its function's keyword arguments are its schema."""
    return {p.name: p.default for p in inspect.signature(DATASETS[name]).parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY}


def open(name: str, root: str | Path, **options: Any) -> Table:
    """The Table of a dataset.

    Args:
        name: a registered dataset (``csv``, ``folder``, ``darkroom``, ...).
        root: its folder, or for ``csv`` also the manifest itself.
        options: the dataset's own options, see :func:`options_of`.

    Raises:
        ModaliftError: unknown dataset or option, no such folder, or whatever is wrong inside it.
    """
    maker = DATASETS[name]
    options = checked(maker, options, options_of(name), "data.options", f"dataset '{name}'")
    place = Path(root).expanduser()
    if not place.exists():
        raise ModaliftError(f"{place} does not exist - set data.root to the dataset's folder")
    return maker(place, **options)


def guess(root: str | Path) -> str:
    """The dataset that a folder looks like: one that recognizes it, else ``csv`` (a manifest) or ``folder``.

    Raises:
        ModaliftError: if there is no such folder.
    """
    place = Path(root).expanduser()
    if not place.exists():
        raise ModaliftError(f"{place} does not exist - give a dataset's folder")
    asked = sorted(RECOGNIZERS, key=lambda name: (name in GENERAL, name))
    return next((name for name in asked if RECOGNIZERS[name](place)), GENERAL[-1])
