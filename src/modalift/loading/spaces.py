"""Spaces of a table: which views share a frame of reference, its picture's aspect, and the box of valid readings in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from modalift.errors import ModaliftError
from modalift.loading.framer import Box, Place, find_box, moved
from modalift.loading.framing import Framing
from modalift.loading.stores import Files, Store, Stored
from modalift.modalities import Row, Table


def space_of(row: Row, view: str) -> str:
    """The view's frame of reference; a view without one is alone in its own."""
    return row.tracks[view].space or f"of {view}"


class Spaces:
    """What the views of a clip share in space, found once per clip.

    A space's picture is that of its first view without an affine, and its box of valid readings that of its first view
    that marks them, whether these views are read or not: a view's pixels do not depend on the others that are read.

    Args:
        table: the clips.
        framings: the views that are read, and how.
        store: where their frames are.

    Raises:
        ModaliftError: ``region="valid"`` of a view whose space has no view that marks invalid readings.
    """

    def __init__(self, table: Table, framings: Mapping[str, Framing], store: Store) -> None:
        self.table, self.store = table, store
        #: Views that are cut to their valid readings.
        self.boxed = [v for v, f in framings.items() if f.region == "valid" and table.modality(v).kind == "video"]
        # Boxes are in shared memory: what one worker finds, all of them and the next epoch's know.
        self._boxes = torch.full((len(table), len(self.boxed), 4), float("nan"), dtype=torch.float64).share_memory_()
        self._aspects: dict[tuple[int, str], float] = {}
        for view in self.boxed:
            row = next((r for r in table if view in r.tracks), None)
            if row is not None and self._marked(row, view) is None:
                raise ModaliftError(f"region 'valid' of view '{view}' needs a view that marks missing readings (depth) in"
                                    f" its space '{row.tracks[view].space}' - use region: whole")

    def place(self, row: Row, index: int, view: str) -> Place:
        """Where a view of a clip lies; ``index`` is the row's number in the table."""
        return Place(self._aspect(row, index, view), row.tracks[view].affine,
                     self._box(row, index, view) if view in self.boxed else None)

    def _aspect(self, row: Row, index: int, view: str) -> float | None:
        """Width over height of the space's picture; None where that is the view's own."""
        space = space_of(row, view)
        reference = next((v for v, m in self.table.views.items() if m.kind == "video" and v in row.tracks
                          and space_of(row, v) == space and row.tracks[v].affine is None), view)
        if reference == view:
            return None
        if (index, space) not in self._aspects:
            try:
                first = self.store.read(row, reference, [0])
            except ModaliftError:  # memory and caches hold the views that are read, not this one
                first = Files(self.table.views).read(row, reference, [0])
            self._aspects[index, space] = first.shape[2] / first.shape[1]
        return self._aspects[index, space]

    def _marked(self, row: Row, view: str) -> str | None:
        """The first view of the same space that marks invalid readings."""
        space = space_of(row, view)
        return next((v for v, m in self.table.views.items()
                     if m.invalid is not None and v in row.tracks and space_of(row, v) == space), None)

    def _box(self, row: Row, index: int, view: str) -> Box:
        """The box of valid readings in the space's normalized coordinates."""
        memo = self._boxes[index, self.boxed.index(view)].numpy()
        if memo[0] != memo[0]:
            marked = self._marked(row, view)
            if marked is None:
                raise ModaliftError(f"no view in the space of '{view}' marks invalid readings - use region: whole")
            box = find_box(Stored(self.store, row, marked), self.table.views[marked])
            memo[:] = moved(box, row.tracks[marked].affine)
        return float(memo[0]), float(memo[1]), float(memo[2]), float(memo[3])
