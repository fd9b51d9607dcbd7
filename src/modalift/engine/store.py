"""Where an experiment's frames are read from, by ``data.cache``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from modalift.engine.monitor import Monitor
from modalift.errors import ModaliftError
from modalift.loading.budget import free_memory, memory_budget
from modalift.loading.cache import Cache, open_cache
from modalift.loading.cache_writing import build_cache, wait_for_writer
from modalift.loading.framing import Framing
from modalift.loading.stores import (
    BackedStore,
    FileStore,
    MemoryLimitError,
    MemoryStore,
    Store,
    estimate_bytes,
    reductions_of,
)
from modalift.modalities import Table
from modalift.recipe import Recipe

#: Share of a disk's free space that a cache may take by itself; the rest is for checkpoints and models.
DISK_SHARE = 0.5


def open_store(recipe: Recipe, table: Table, views: Iterable[str]) -> Cache | None:
    """Opens the recipe's cache folder, and checks that it was made from the files of these clips.

    Args:
        recipe: the recipe.
        table: the clips that are read.
        views: the views that are read.

    Returns:
        The cache; None where the recipe names no folder: the recordings are read.

    Raises:
        ModaliftError: there is no such folder, or its cache was made from other clips.
    """
    if not names_folder(recipe):
        return None
    folder = Path(recipe.data.cache)
    update = f"modalift cache {recipe.data.root} {folder} --dataset {recipe.data.dataset}"
    if not folder.exists():
        raise ModaliftError(f"data.cache={folder}: no such folder - make it with `{update}`, or leave data.cache empty to read"
                            " the recordings")
    wait_for_writer(folder)
    cache = open_cache(folder)
    cache.check(table, views, update)
    return cache


def names_folder(recipe: Recipe) -> bool:
    """Whether ``data.cache`` is the folder of a cache."""
    return recipe.data.cache not in ("", "auto", "memory")


def cache_of(recipe: Recipe) -> Cache | None:
    """The recipe's cache folder if it exists, whatever it was made from: it knows the digests of files that are gone."""
    return open_cache(recipe.data.cache) if names_folder(recipe) and Path(recipe.data.cache).is_dir() else None


def training_store(recipe: Recipe, table: Table, train: Table, framings: Mapping[str, Framing], monitor: Monitor
                   ) -> Store | None:
    """Makes the store of decoded frames for a training.

    With ``data.cache=auto`` frames are kept in memory where half of the free memory suffices, else in a lossless cache in
    the parent of ``run.dir``, which runs of the same data and framing share, else they are decoded at every read. Clips are
    the same, bit for bit, in all three. One line says what was chosen, if it is not memory.

    Args:
        recipe: the recipe.
        table: all clips; a cache folder holds all of them.
        train: the training clips; only these and the validation clips are decoded by ``auto`` and ``memory``.
        framings: the views that it reads, and how their clips are framed.
        monitor: receives the line, and progress.

    Returns:
        None where frames are decoded at every read.

    Raises:
        ModaliftError: ``data.cache=memory`` and too little memory (found before all clips are decoded), or a cache folder that
            was made from other clips.
    """
    files, where = FileStore(table.views, reductions_of(table, framings)), recipe.data.cache
    if names_folder(recipe):
        if not Path(where).exists():
            with monitor.progress("decoding", len(table)) as update:
                build_cache(table, where, sorted(framings), progress=lambda done, _: update(done, "clips"))
        return open_store(recipe, table, framings)
    if where == "":
        return None
    read = {row.id for row in (*train, *table.split("val"))}
    table = table.where(lambda r: r.id in read)
    needed, budget = estimate_bytes(table, framings), memory_budget(recipe.run.workers)
    if needed <= budget:
        try:
            return BackedStore(_in_memory(table, framings, budget, monitor), files)
        except MemoryLimitError as error:
            if where == "memory":
                raise ModaliftError(f"data.cache=memory: {error}, more than half of what is free - set data.cache=auto, which"
                                    " uses the disk then, or data.cache to a folder that `modalift cache` writes") from None
    elif where == "memory":
        raise ModaliftError(f"data.cache=memory: the frames take about {needed / 1e9:.1f} GB, and half of the free memory is"
                            f" {budget / 1e9:.1f} GB - set data.cache=auto, which uses the disk then, or data.cache to a folder"
                            " that `modalift cache` writes")
    cache = _on_disk(recipe, table, framings, needed, monitor)
    return BackedStore(cache, files) if cache is not None else None


def _in_memory(table: Table, framings: Mapping[str, Framing], budget: int, monitor: Monitor) -> MemoryStore:
    """All clips in memory; other processes may take memory at the same time, so what is free is asked again."""
    def fits(held: int) -> bool:
        return held <= budget and free_memory() >= budget // 2

    with monitor.progress("decoding", len(table)) as update:
        return MemoryStore.of(table, framings, fits=fits, progress=lambda done, _: update(done, "clips"))


def _on_disk(recipe: Recipe, table: Table, framings: Mapping[str, Framing], needed: int, monitor: Monitor) -> Cache | None:
    """The lossless cache beside the run; None where the disk has no room, or cannot be written."""
    folder, reductions = recipe.run.dir.parent / automatic_name(recipe, table, framings), reductions_of(table, framings)
    told = "set data.cache to memory, a folder, or nothing to change this"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = open_cache(folder).nbytes if folder.is_dir() else 0
        free = shutil.disk_usage(folder.parent).free
        if needed - held > DISK_SHARE * free:
            raise ModaliftError(f"they take about {needed / 1e9:.1f} GB, and half of the free disk space is"
                                f" {DISK_SHARE * free / 1e9:.1f} GB")
        monitor.message(f"the frames do not fit into memory; they are kept in {folder} (about {needed / 1e9:.1f} GB) - {told}")
        with monitor.progress("decoding", len(table)) as update:
            return build_cache(table, folder, sorted(framings), codec="lossless", reductions=reductions,
                               progress=lambda done, _: update(done, "clips"),
                               waiting=lambda holder: monitor.message(f"waiting for {holder}, which writes {folder}"))
    except (OSError, ModaliftError) as error:
        monitor.message(f"the frames do not fit into memory, and were not cached ({error}); they are decoded at every read -"
                        f" {told}", warning=True)
        return None


def automatic_name(recipe: Recipe, table: Table, framings: Mapping[str, Framing]) -> str:
    """The name of the folder in which ``data.cache=auto`` keeps frames: it depends on the dataset, the views and the size."""
    reductions = reductions_of(table, framings)
    held = {"dataset": recipe.data.dataset, "root": str(Path(recipe.data.root).resolve()), "options": recipe.data.options,
            "views": {v: [table.modality(v).name, reductions[v].needed if v in reductions else 0] for v in sorted(framings)}}
    return f"frames-{hashlib.sha256(json.dumps(held, sort_keys=True, default=str).encode()).hexdigest()[:8]}"
