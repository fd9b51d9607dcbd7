"""Finds the recordings of a download by their names, wherever its archives were unpacked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from modalift.errors import ModaliftError
from modalift.files import entries, is_folder, status

K = TypeVar("K")


def below(root: Path, depth: int, enter: Callable[[str], bool] = lambda name: True) -> Iterator[Path]:
    """Files and folders below a root, folders before what they hold; hidden names are left out.

    Args:
        root: the folder; it yields nothing if it is none.
        depth: how many folders deep to look, 1 for the root's own entries.
        enter: whether to look into a folder of that name (not into the frames of a clip).

    Raises:
        ModaliftError: a folder cannot be read.
    """
    if not is_folder(root):
        return
    if depth == 1:
        yield from sorted(entries(root))
        return
    try:
        with os.scandir(root) as found:
            listed = sorted((e.name, e.is_dir()) for e in found if not e.name.startswith("."))
    except OSError:
        status(root)
        listed = [(path.name, False) for path in entries(root)]  # raises the error, with its advice
    for name, folder in listed:
        yield root / name
        if folder and enter(name):
            yield from below(root / name, depth - 1, enter)


def some(root: Path, depth: int, most: int = 32) -> Iterator[Path]:
    """Some files and folders below a root, at most ``most`` of each folder, to recognize a dataset fast, however large.

    Args:
        root, depth: as in :func:`below`.
        most: how many of a folder, in no particular order.
    """
    folders = []
    try:
        with os.scandir(root) as found:
            for entry in islice((e for e in found if not e.name.startswith(".")), most):
                yield root / entry.name
                if depth > 1 and entry.is_dir():
                    folders.append(entry.name)
    except OSError:  # whoever reads the dataset is told
        return
    for name in sorted(folders):
        yield from some(root / name, depth - 1, most)


def add(found: dict[K, Path], key: K, path: Path) -> None:
    """Notes where a recording is.

    Raises:
        ModaliftError: it is there twice.
    """
    if (other := found.setdefault(key, path)) != path:
        raise ModaliftError(f"{other} and {path} are the same recording by their names - remove one, or give the folder that"
                            " holds one")
