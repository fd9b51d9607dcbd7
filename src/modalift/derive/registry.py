"""Derived views by name: what registers one, and how one is computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError, nearest
from modalift.modalities import Table
from modalift.registry import Registry

#: ``(table, view, out, *, option=default, ...) -> Table`` with one view more; ``view`` is the one to compute from.
Deriver = Callable[..., Table]
DERIVED: Registry[Deriver] = Registry("derived view")


def derived(name: str) -> Callable[[Deriver], Deriver]:
    """Register a function that computes a view."""
    return DERIVED.register(name)


def derive(name: str, table: Table, out: str | Path, /, *, view: str | None = None,
           progress: Callable[[int, int], None] | None = None, **options: Any) -> Table:
    """Compute a view for every clip and write a dataset that has it besides the views there were.

    Args:
        name: what to compute (``flow``, ``pose_map``, ...).
        table: the clips.
        out: a new folder: the computed files, ``manifest.csv`` and ``manifest.json``, which the dataset ``csv`` reads;
            recordings stay where they are and are referred to.
        view: the view to compute from; by default the first that fits.
        progress: called with (clips done, clips), where the view's function reports it.
        options: of what is computed.

    Returns:
        The new table.

    Raises:
        ModaliftError: unknown name or option, an ``out`` that is not empty, or no clip that can be read.
    """
    maker = DERIVED[name]
    known = [p.name for p in inspect.signature(maker).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for key in options:
        if key not in known:
            raise ModaliftError(f"'{name}' has no option '{key}' - {nearest(key, set(known) - {'progress'})}")
    return maker(table, view, Path(out), **options, **({"progress": progress} if "progress" in known else {}))
