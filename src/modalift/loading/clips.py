"""A dataset of clips: which recordings it holds, where their frames are stored, and what is random in each epoch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from modalift.errors import ModaliftError
from modalift.loading.framer import Framer
from modalift.loading.framing import Augment, Framing, Protocol
from modalift.loading.sampling import TemporalDraw, centered, clock_of, sample
from modalift.loading.spaces import Spaces, space_of
from modalift.loading.stores import FileStore, MemoryStore, Store, StoredFrames, reductions_of
from modalift.loading.transforms import Geometry, crop_geometry, sample_geometry
from modalift.modalities import Modality, Row, Table

Array = NDArray[Any]
Sample = dict[str, Any]
#: (epoch, position in the dataset) or (epoch, position, temporal crop, spatial crop).
Key = tuple[int, ...]


class NoClipError(ModaliftError):
    """No clip of a dataset can be read."""


class ClipSet(Dataset[Sample]):
    """Clips of some views of a table, framed for the networks that read them.

    An item's key is ``(epoch, position)`` or ``(epoch, position, temporal_crop, spatial_crop)``, with ``position`` in
    ``[0, len(clips))``. All randomness depends on ``(seed, epoch, index)`` only, where ``index`` is the clip's
    row in the table, and each view and space has its own stream of random numbers: a clip is bit-identical
    for any number of workers, after a resume, and for any selection of other views.

    Args:
        table: the clips; all rows are used (select them with :meth:`Table.where`).
        framings: view -> what its network receives.
        augment: random augmentation; None for evaluation: centers of segments, crops of the protocol, no augmentation.
        seed: seed of the augmentation.
        store: a :class:`~modalift.loading.cache.Cache`, ``"memory"`` to decode everything once, or None to decode
            at every read.
        skip: ids of clips to leave out.
        protocol: temporal and spatial crops in evaluation.
        tolerant: what happens with a clip that turns out to be unreadable when it is read (a file that is torn in the middle,
            or was removed). False: an error. True: its item has no sensor and no label, and the reason as ``unreadable``; the
            other clips and their order are the same.

    Attributes:
        indices: position -> row of the table; corrupt clips are left out, never replaced.
        corrupt: clip id -> why the clip cannot be used.
        unreadable: clip id -> why it turned out to be unreadable, for items that were loaded by
            :func:`~modalift.loading.collation.loader`.

    Items: a dict of ``clips``, view -> ``(C, T, H, W)`` uint8 for 8-bit views, else float32; ``valid``, view ->
    ``(1, T, H, W)`` bool, for views that mark invalid readings; ``present``, view -> bool; ``label``, -1 for none; ``index``,
    the row of the table; ``pads``, view -> how a batch pads it.

    Raises:
        ModaliftError: a view that the table lacks, ``region="valid"`` where no view marks invalid readings, a negative seed.
    """

    def __init__(self, table: Table, framings: Mapping[str, Framing], *, augment: Augment | None = None, seed: int = 0,
                 store: Store | Literal["memory"] | None = None, skip: Sequence[str] | set[str] = (),
                 protocol: Protocol | None = None, tolerant: bool = False) -> None:
        if seed < 0:
            raise ModaliftError(f"seed is {seed} - it must be 0 or more")
        if not framings:
            raise ModaliftError("no view was given - name at least one")
        self.table, self.framings, self.augment, self.seed = table, dict(framings), augment, seed
        self.protocol = protocol or Protocol()
        self.modalities: dict[str, Modality] = {view: table.modality(view) for view in framings}
        self.framers = {view: Framer(self.modalities[view], framing) for view, framing in framings.items()}
        self.store: Store
        if store == "memory":
            self.store = MemoryStore.of(table, framings)
        else:
            self.store = store if store is not None else FileStore(table.views, reductions_of(table, framings))
        for view, reduction in self.store.reductions.items():
            if view in self.framers and reduction != self.framers[view].reduction:
                raise ModaliftError(f"view '{view}': the frames in memory or in the cache were reduced for another framing"
                                    " - read them again")
        self.spaces = Spaces(table, self.framings, self.store)
        self.tolerant = tolerant
        self.unreadable: dict[str, str] = {}
        known = {} if tolerant else self.store.unreadable(framings)
        self.corrupt: dict[str, str] = {row.id: known[row.id] for row in table if row.id in known}
        self.indices: list[int] = []
        self.leave_out(skip)
        self._longest = max(f.frames for f in framings.values())
        self._mirrors_all = all(k in table.mirrored for k in range(len(table.classes)))
        self._mirrors_views = all(m.mirror != "never" for m in self.modalities.values())

    def __len__(self) -> int:
        return len(self.indices)

    def leave_out(self, ids: Sequence[str] | set[str]) -> None:
        """Removes clips from the dataset, in addition to the ``corrupt`` ones."""
        out = {*ids, *self.corrupt}
        self.indices = [i for i in (self.indices or range(len(self.table))) if self.table.rows[i].id not in out]
        if not self.indices:
            raise NoClipError(f"{self.table.name}: no readable clip is left - run `modalift check` on the data")

    def leave_out_unreadable(self) -> None:
        """Removes the clips that turned out to be ``unreadable``: they are ``corrupt``.

        Raises:
            NoClipError: no other clip is left.
        """
        self.corrupt |= self.unreadable
        self.leave_out(())

    @property
    def mirrors(self) -> bool:
        """Whether any clip can be mirrored: all views allow it, and at least one label has a mirrored counterpart."""
        return self._mirrors_views and bool(self.table.mirrored)

    def find_corrupt(self, workers: int = 4) -> dict[str, str]:
        """Opens every clip, reads its first and last frame, and leaves out the clips for which this fails.

        Returns:
            ``corrupt``: clip id -> why the clip cannot be used.
        """
        def check(index: int) -> tuple[str, str]:
            row = self.table.rows[index]
            try:
                for view in self.framings:
                    if view in row.tracks:
                        frames = StoredFrames(self.store, row, view)
                        signal = self.modalities[view].kind == "signal"  # short enough to be read completely
                        last = len(frames) - 1
                        if not np.isfinite(self.store.read(row, view, None if signal else sorted({0, last}))).all():
                            raise ModaliftError(f"{row.tracks[view].path}: view '{view}' holds values that are not finite"
                                                " (NaN or Inf) - correct it or leave the clip out")
            except ModaliftError as error:
                return row.id, str(error)
            return row.id, ""

        with ThreadPoolExecutor(max(1, workers)) as pool:
            self.corrupt.update({name: reason for name, reason in pool.map(check, self.indices) if reason})
        if self.corrupt:
            self.leave_out(())
        return self.corrupt

    def __getitem__(self, key: Key) -> Sample:
        epoch, position, *crops = key
        index = self.indices[position]
        row = self.table.rows[index]
        try:
            return self._sample(row, epoch, index, *(crops or (0, 0)))
        except ModaliftError as error:
            if self.tolerant:
                return self._without_sensors(index, str(error))
            raise ModaliftError(f"clip '{row.id}': {error}") from None

    def _without_sensors(self, index: int, reason: str) -> Sample:
        """The item of a clip that cannot be read: it contributes to no term of a loss."""
        made: Sample = {"clips": {}, "valid": {}, "present": dict.fromkeys(self.framings, False), "index": index, "label": -1,
                        "pads": {v: f.pad for v, f in self.framings.items()}, "unreadable": reason}
        for view in self.framings:
            made["clips"][view], valid = self._absent(view)
            if valid is not None:
                made["valid"][view] = valid
        return made

    def _sample(self, row: Row, epoch: int, index: int, temporal_crop: int, spatial_crop: int) -> Sample:
        when, flip = self._when(row, epoch, index, temporal_crop)
        label = -1 if row.label is None else row.label
        made: Sample = {"clips": {}, "valid": {}, "present": {v: v in row.tracks for v in self.framings}, "index": index,
                        "pads": {v: f.pad for v, f in self.framings.items()},
                        "label": self.table.mirrored[label] if flip and label >= 0 else label}
        geometries: dict[str, Geometry] = {}
        reference: int | None = None
        for view, framer in self.framers.items():
            if view not in row.tracks:
                clip, valid = self._absent(view)
            else:
                frames = StoredFrames(self.store, row, view)
                length = len(frames)
                reference = reference or length
                space = space_of(row, view)
                if space not in geometries:
                    geometries[space] = self._geometry(space, epoch, index, flip, spatial_crop)
                placement = self.spaces.placement(row, index, view) if framer.modality.kind == "video" else None
                rng = None if self.augment is None else self._rng(epoch, index, f"view {view}")
                clip, valid = framer(frames, when, geometries[space], clock=clock_of(row.tracks[view], length, reference),
                                     placement=placement, augment=self.augment, rng=rng)
            made["clips"][view] = clip
            if valid is not None:
                made["valid"][view] = valid
        return made

    def _rng(self, epoch: int, index: int, stream: str) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, epoch, index, zlib.crc32(stream.encode())]))

    def _when(self, row: Row, epoch: int, index: int, temporal_crop: int) -> tuple[TemporalDraw, bool]:
        """What all views of a clip share: the temporal window, and whether the clip is mirrored."""
        if self.augment is None:
            return centered(temporal_crop, self.protocol.temporal_crops), False
        rng = self._rng(epoch, index, "clip")
        wanted = rng.random() < self.augment.flip
        has_mirror = self._mirrors_all if row.label is None else row.label in self.table.mirrored
        when = sample(self._longest, rng, self.augment.speed, self.augment.warp)
        return when, bool(wanted and has_mirror and self._mirrors_views)

    def _geometry(self, space: str, epoch: int, index: int, flip: bool, spatial_crop: int) -> Geometry:
        if self.augment is None:
            return crop_geometry(spatial_crop, self.protocol.spatial_crops)
        return sample_geometry(self.augment, self._rng(epoch, index, f"space {space}"), flip)

    def _channels(self, row: Row, view: str) -> int:
        """The number of channels of a recording; 0 if it cannot be read."""
        try:
            return self.store.read(row, view, [0]).shape[3]
        except ModaliftError:
            return 0

    def _absent(self, view: str) -> tuple[Array, Array | None]:
        """The placeholder for an absent sensor: zeros, all marked invalid."""
        modality, framing = self.modalities[view], self.framings[view]
        channels = modality.channels
        if not channels:
            channels = next(filter(None, (self._channels(row, view) for row in self.table if view in row.tracks)), 1)
            self.modalities[view] = modality.with_channels(channels)
        frames = 1 if framing.sampler == "whole" else framing.frames
        size = 1 if modality.kind == "signal" else framing.size
        shape = (channels, frames, size, size)
        valid = None if modality.invalid is None else np.zeros((1, *shape[1:]), bool)
        return np.zeros(shape, np.uint8 if modality.dtype == "uint8" else np.float32), valid
