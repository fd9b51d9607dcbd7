"""Where clips are: one dataset, one file; each is a function that returns a :class:`~modalift.modalities.Table`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError
from modalift.modalities import Table
from modalift.registry import Registry
from modalift.signatures import checked

__all__ = ["DATASETS", "dataset", "guess", "open", "options_of"]

#: A dataset: the folder of its download, then its options by keyword, to a Table.
Maker = Callable[..., Table]
DATASETS: Registry[Maker] = Registry("dataset")


def dataset(name: str) -> Callable[[Maker], Maker]:
    """Register a function ``(root: Path, *, option=default, ...) -> Table`` under a name."""
    return DATASETS.register(name)


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
    """The dataset that a folder looks like: ``darkroom``, ``csv`` (a manifest) or ``folder``.

    Raises:
        ModaliftError: if there is no such folder.
    """
    place = Path(root).expanduser()
    if not place.exists():
        raise ModaliftError(f"{place} does not exist - give a dataset's folder")
    if place.is_file():
        return "csv"
    about = place / "dataset.json"
    if about.is_file() and b'"modalift-darkroom/' in about.read_bytes()[:200]:
        return "darkroom"
    return "csv" if (place / "manifest.csv").is_file() else "folder"


for _module in pkgutil.iter_modules(__path__):  # one file adds a dataset
    importlib.import_module(f"{__name__}.{_module.name}")
