"""Derived views by name: registration and computation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalift.modalities import Table
from modalift.registry import Registry
from modalift.signatures import checked

#: ``(table, view, out, *, option=default, ...) -> Table`` with one more view; ``view`` is the one to compute it from.
Deriver = Callable[..., Table]
DERIVED: Registry[Deriver] = Registry("derived view")


def derived(name: str) -> Callable[[Deriver], Deriver]:
    """Registers a function that computes a view."""
    return DERIVED.register(name)


def derive(name: str, table: Table, out: str | Path, /, *, view: str | None = None,
           progress: Callable[[int, int], None] | None = None, **options: Any) -> Table:
    """Computes a view for every clip and writes a dataset with all views of the table and the new one.

    Args:
        name: the derived view (``flow``, ``pose_map``, ...).
        table: the clips.
        out: a new folder for the computed files and a manifest, which the dataset ``csv`` reads; it refers to the original
            recordings, which are not copied.
        view: the view to compute from; by default the first that fits.
        progress: called with (clips done, clips).
        options: options of the derived view.

    Returns:
        The new table.

    Raises:
        ModaliftError: an unknown name or option, an option outside its range, an ``out`` that is not empty, or no readable
            clip.
    """
    maker = DERIVED[name]
    known = [p.name for p in inspect.signature(maker).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    options = checked(maker, options, dict.fromkeys(k for k in known if k != "progress"), name, f"derived view '{name}'")
    return maker(table, view, Path(out), **options, **({"progress": progress} if "progress" in known else {}))
