"""Spaces of a table: which views share a coordinate system, its aspect ratio, and the box of valid readings in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from modalift.errors import ModaliftError
from modalift.loading.framer import Box, Placement, find_box, map_box
from modalift.loading.framing import Framing
from modalift.loading.stores import FileStore, Store, StoredFrames
from modalift.modalities import Row, Table


def space_of(row: Row, view: str) -> str:
    """The name of the view's coordinate system; a view without one has its own."""
    return row.tracks[view].space or f"of {view}"


class Spaces:
    """The geometry that the views of a clip share, computed once per clip.

    A space's aspect ratio is that of its first view without an affine map, and its box of valid readings that of its first
    view that marks invalid readings, whether these views are read or not: a view's pixels do not depend on which other views
    are read.

    Args:
        table: the clips.
        framings: the framing of each view that is read.
        store: where their frames are read from.

    Raises:
        ModaliftError: ``region="valid"`` of a view whose space has no view that marks invalid readings.
    """

    def __init__(self, table: Table, framings: Mapping[str, Framing], store: Store) -> None:
        self.table, self.store, self.files = table, store, FileStore(table.views)
        #: Views that are cropped to their valid readings.
        self.boxed = [v for v, f in framings.items() if f.region == "valid" and table.modality(v).kind == "video"]
        # In shared memory: a box that one worker computes is reused by all workers, in later epochs too.
        self._boxes = torch.full((len(table), len(self.boxed), 4), float("nan"), dtype=torch.float64).share_memory_()
        self._aspects: dict[tuple[int, str], float] = {}
        for view in self.boxed:
            row = next((r for r in table if view in r.tracks), None)
            if row is not None and self._masked_view(row, view) is None:
                raise ModaliftError(f"region 'valid' of view '{view}' needs a view that marks missing readings (depth) in"
                                    f" its space '{row.tracks[view].space}' - use region: whole")

    def placement(self, row: Row, index: int, view: str) -> Placement:
        """The placement of a view of a clip; ``index`` is the row's index in the table."""
        return Placement(self._aspect(row, index, view), row.tracks[view].affine,
                     self._box(row, index, view) if view in self.boxed else None)

    def _aspect(self, row: Row, index: int, view: str) -> float | None:
        """Width over height of the space's image; None where that is the view's own image."""
        space = space_of(row, view)
        reference = next((v for v, m in self.table.views.items() if m.kind == "video" and v in row.tracks
                          and space_of(row, v) == space and row.tracks[v].affine is None), view)
        if reference == view:
            return None
        if (index, space) not in self._aspects:
            try:
                height, width = self.store.size(row, reference)
            except ModaliftError:  # a cache may lack views that are not read
                height, width = self.files.size(row, reference)
            self._aspects[index, space] = width / height
        return self._aspects[index, space]

    def _masked_view(self, row: Row, view: str) -> str | None:
        """The first view of the same space that marks invalid readings, if any."""
        space = space_of(row, view)
        return next((v for v, m in self.table.views.items()
                     if m.invalid is not None and v in row.tracks and space_of(row, v) == space), None)

    def _box(self, row: Row, index: int, view: str) -> Box:
        """The bounding box of valid readings in the space's normalized coordinates."""
        memo = self._boxes[index, self.boxed.index(view)].numpy()
        if memo[0] != memo[0]:
            masked = self._masked_view(row, view)
            if masked is None:
                raise ModaliftError(f"no view in the space of '{view}' marks invalid readings - use region: whole")
            # Of the images at their own size, wherever frames are read from; a cache may lack views that are not read.
            store = self.files if masked in self.store.reductions else self.store
            try:
                box = find_box(StoredFrames(store, row, masked), self.table.views[masked])
            except ModaliftError:
                box = find_box(StoredFrames(self.files, row, masked), self.table.views[masked])
            memo[:] = map_box(box, row.tracks[masked].affine)
        return float(memo[0]), float(memo[1]), float(memo[2]), float(memo[3])
