"""Where an experiment's frames are read from, by ``data.cache``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modalift.errors import ModaliftError
from modalift.loading.cache import Cache, open_cache
from modalift.loading.cache_writing import build_cache, wait_for_writer
from modalift.modalities import Table
from modalift.recipe import Recipe


def open_store(recipe: Recipe, table: Table, views: Iterable[str], *, build: bool = False) -> Cache | None:
    """Opens the recipe's cache folder, and checks that it was made from the files of these clips.

    Args:
        recipe: the recipe.
        table: the clips that are read.
        views: the views that are read.
        build: whether a folder that does not exist is made (by a training).

    Returns:
        The cache; None where the recipe names no folder.

    Raises:
        ModaliftError: there is no such folder, or its cache was made from other clips.
    """
    if not names_folder(recipe):
        return None
    folder, views = Path(recipe.data.cache), sorted(views)
    update = f"modalift cache {recipe.data.root} {folder} --dataset {recipe.data.dataset}"
    if not folder.exists():
        if not build:
            raise ModaliftError(f"data.cache={folder}: no such folder - make it with `{update}`, or leave data.cache empty to"
                                " read the recordings")
        return build_cache(table, folder, views)
    wait_for_writer(folder)
    cache = open_cache(folder)
    cache.check(table, views, update)
    return cache


def names_folder(recipe: Recipe) -> bool:
    """Whether ``data.cache`` is the folder of a cache."""
    return recipe.data.cache not in ("", "memory")


def cache_of(recipe: Recipe) -> Cache | None:
    """The recipe's cache folder if it exists, whatever it was made from: it knows the digests of files that are gone."""
    return open_cache(recipe.data.cache) if names_folder(recipe) and Path(recipe.data.cache).is_dir() else None
