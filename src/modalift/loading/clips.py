"""From a Table to a Batch: a data set of clips, the order in which they come, and the loader."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from modalift.errors import ModaliftError
from modalift.loading.augment import Augment
from modalift.loading.brighten import brighten
from modalift.loading.framing import Framing
from modalift.loading.sampling import BLANK, Frames, Moment, draw, positions, still
from modalift.loading.stores import Files, Memory, Store
from modalift.loading.transforms import (
    Geometry,
    Region,
    crop_geometry,
    draw_geometry,
    photometric,
    pixel_map,
    transform_signal,
    valid_box,
    warp,
)
from modalift.modalities import Batch, Modality, Row, Table, Track

__all__ = ["Augment", "ClipSet", "Memory", "Order", "collate", "loader"]

Array = NDArray[Any]
Sample = dict[str, Any]
#: (epoch, place in the data set) or (epoch, place, view in time, crop).
Key = tuple[int, ...]
#: Frames, evenly spread, in which the box of ``region="valid"`` is looked for.
BOX_FRAMES = 24


class ClipSet(Dataset[Sample]):
    """Clips of some views of a table, framed for the networks that read them.

    An item's key is ``(epoch, place)`` or ``(epoch, place, time_view, crop)``, with ``place`` in ``[0, len(clips))``.
    What chance decides depends on ``(seed, epoch, index)`` and nothing else, where ``index`` is the clip's row in the
    table, and each view and space has its own stream: the same clip comes out bit-identical with any number of
    workers, after a resume, and whichever other views are read.

    Args:
        table: the clips (all of them; use :meth:`Table.where` before).
        framings: view -> what its network wants.
        augment: random changes; None for test: centers of segments, center crop, no change.
        seed: of augmentation.
        cache: a :class:`~modalift.loading.cache.Cache`, ``"memory"`` to decode everything once, or None to decode
            at every read.
        skip: ids of clips to leave out.
        time_views, crops: views in time and crops (1, 3 or 5) of a clip in test.

    Attributes:
        indices: place -> row of the table; corrupt clips are left out, never replaced.
        bad: id -> what is wrong with it.

    Items: a dict of ``clips``, view -> ``(C, T, H, W)`` uint8 for 8-bit views, else float32; ``valid``, view ->
    ``(1, T, H, W)`` bool, for views with an invalid mark; ``present``, view -> bool; ``label``, -1 for none; ``index``,
    the row of the table; ``pads``, view -> how a batch pads it.

    Raises:
        ModaliftError: a view the table lacks, a region that no view of the space can give, a negative seed.
    """

    def __init__(self, table: Table, framings: Mapping[str, Framing], *, augment: Augment | None = None, seed: int = 0,
                 cache: Store | Literal["memory"] | None = None, skip: Sequence[str] | set[str] = (),
                 time_views: int = 1, crops: int = 1) -> None:
        if seed < 0:
            raise ModaliftError(f"seed is {seed} - it must be 0 or more")
        if crops not in (1, 3, 5):
            raise ModaliftError(f"protocol crops is {crops} - use 1 (center), 3 or 5")
        if not framings:
            raise ModaliftError("no view was asked for - name at least one")
        self.table, self.framings, self.augment, self.seed = table, dict(framings), augment, seed
        self.time_views, self.crops = time_views, crops
        self.modalities: dict[str, Modality] = {view: table.modality(view) for view in framings}
        self.store: Store
        if cache == "memory":
            self.store = Memory.of(table, framings)
        else:
            self.store = cache if cache is not None else Files(table.views)
        self.bad: dict[str, str] = dict(getattr(self.store, "skipped", {}))
        self.indices: list[int] = []
        self.leave_out(skip)
        self._frames_drawn = max((f.frames for f in framings.values()), default=1)
        self._mirrors_all = all(k in table.mirrored for k in range(len(table.classes)))
        self._mirrors_views = all(m.mirror != "never" for m in self.modalities.values())
        # Boxes live in shared memory: what one worker finds, all of them and the next epoch's know.
        self._boxes = torch.full((len(table), len(self.framings), 4), float("nan"), dtype=torch.float64).share_memory_()
        self._aspects: dict[tuple[int, str], float] = {}
        self._check_regions()

    def __len__(self) -> int:
        return len(self.indices)

    def leave_out(self, ids: Sequence[str] | set[str]) -> None:
        """Leaves clips out from now on, besides those that are ``bad``."""
        out = {*ids, *self.bad}
        self.indices = [i for i in (self.indices or range(len(self.table))) if self.table.rows[i].id not in out]
        if not self.indices:
            raise ModaliftError(f"{self.table.name}: no readable clip is left - run `modalift check` on the data")

    @property
    def mirrors(self) -> bool:
        """Whether any clip can be mirrored: the views allow it, and some label survives it."""
        return self._mirrors_views and bool(self.table.mirrored)

    def probe(self, workers: int = 4) -> dict[str, str]:
        """Opens every clip where it is kept, and reads its first and last frame; what fails is named and left out.

        Returns:
            ``bad``: id -> what is wrong with the clip.
        """
        def check(index: int) -> tuple[str, str]:
            row = self.table.rows[index]
            try:
                for view in self.framings:
                    if view in row.tracks:
                        length = self._length(row, view)
                        signal = self.modalities[view].kind == "signal"  # short enough to be read whole
                        seen = self.store.read(row, view, None if signal else sorted({0, length - 1}))
                        if not np.isfinite(seen).all():
                            raise ModaliftError(f"{row.tracks[view].path}: view '{view}' holds numbers that are not finite"
                                                " - correct it or leave the clip out")
            except ModaliftError as error:
                return row.id, str(error)
            return row.id, ""

        with ThreadPoolExecutor(max(1, workers)) as pool:
            self.bad.update({name: reason for name, reason in pool.map(check, self.indices) if reason})
        if self.bad:
            self.leave_out(())
        return self.bad

    def __getitem__(self, key: Key) -> Sample:
        epoch, place, *rest = key
        index = self.indices[place]
        row = self.table.rows[index]
        time_view, crop = rest or (0, 0)
        try:
            return self._sample(row, epoch, index, time_view, crop)
        except ModaliftError as error:
            raise ModaliftError(f"clip '{row.id}': {error}") from None

    # ---- one sample -----------------------------------------------------------------------------------------------

    def _sample(self, row: Row, epoch: int, index: int, time_view: int, crop: int) -> Sample:
        moment, flip = self._draw_clip(row, epoch, index, time_view)
        label = -1 if row.label is None else row.label
        sample: Sample = {"clips": {}, "valid": {}, "present": {}, "index": index, "pads": {},
                          "label": self.table.mirrored[label] if flip and label >= 0 else label}
        geometries: dict[str, Geometry] = {}
        reference: int | None = None
        for view, framing in self.framings.items():
            modality = self.modalities[view]
            sample["present"][view] = view in row.tracks
            sample["pads"][view] = framing.pad
            if view not in row.tracks:
                clip, valid = self._nothing(view)
            else:
                length = self._length(row, view)
                reference = reference or length
                where = self._positions(row, view, length, reference, moment)
                seen, back = np.unique(where[where != BLANK], return_inverse=True)
                frames = self.store.read(row, view, seen.tolist())
                rng = self._rng(epoch, index, f"view {view}") if self.augment is not None else None
                if modality.kind == "signal":
                    clip, valid = _spread(frames.transpose(3, 0, 1, 2).astype(np.float32, copy=False), back), None
                    if rng is not None and self.augment is not None:
                        clip = transform_signal(clip, modality, self.augment, rng)
                else:
                    space = self._space(row, view)
                    if space not in geometries:
                        geometries[space] = self._draw_space(space, epoch, index, flip)
                    aspect = self._aspect(row, index, view, frames)
                    clip, valid = self._see(row, index, view, frames, geometries[space], aspect, crop)
                    clip, valid = _spread(clip, back), None if valid is None else _spread(valid, back)
                    if rng is not None and self.augment is not None:
                        clip = photometric(clip, valid, modality, self.augment, rng)
                clip, valid = _blank(clip, valid, where, modality)
            sample["clips"][view] = clip
            if valid is not None:
                sample["valid"][view] = valid
        return sample

    def _rng(self, epoch: int, index: int, stream: str) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, epoch, index, zlib.crc32(stream.encode())]))

    def _draw_clip(self, row: Row, epoch: int, index: int, time_view: int) -> tuple[Moment, bool]:
        """What all views of a clip share: the moment, and whether the world is mirrored."""
        if self.augment is None:
            return still(time_view, self.time_views), False
        rng = self._rng(epoch, index, "clip")
        wanted = rng.random() < self.augment.flip
        survives = self._mirrors_all if row.label is None else row.label in self.table.mirrored
        moment = draw(self._frames_drawn, rng, self.augment.speed, self.augment.warp)
        return moment, bool(wanted and survives and self._mirrors_views)

    def _draw_space(self, space: str, epoch: int, index: int, flip: bool) -> Geometry:
        if self.augment is None:
            return Geometry()
        return draw_geometry(self.augment, self._rng(epoch, index, f"space {space}"), flip)

    def _length(self, row: Row, view: str) -> int:
        length = self.store.length(row, view)
        if length < 1:
            raise ModaliftError(f"{row.tracks[view].path}: no frame of view '{view}' is in its window - correct the"
                                " window or leave the clip out")
        return length

    def _positions(self, row: Row, view: str, length: int, reference: int, moment: Moment) -> Frames:
        track = row.tracks[view]
        times = np.asarray(track.timestamps) if len(track.timestamps) == length else None
        shift = track.offset_ms / 1000.0
        if shift and times is None:
            if track.rate is None:
                raise ModaliftError(f"view '{view}' has offset_ms {track.offset_ms:g} but no rate - give its rate too")
            shift *= track.rate
        return positions(length, self.framings[view], moment, reference=reference, shift=shift, times=times)

    def _see(self, row: Row, index: int, view: str, frames: Array, geometry: Geometry, aspect: float,
             crop: int) -> tuple[Array, Array | None]:
        """Source frames through the view's framing and the space's geometry."""
        framing, track = self.framings[view], row.tracks[view]
        region = Region(0.0, 0.0, 2.0 * aspect, 2.0)
        if framing.region == "valid":
            x0, y0, x1, y1 = self._box(row, index, view)
            side = max((x1 - x0) * aspect, y1 - y0) * (1.0 + framing.margin)
            region = Region((x0 + x1) / 2 * aspect, (y0 + y1) / 2, side, side)
        if self.augment is None and self.crops > 1:
            geometry = crop_geometry(crop, self.crops, region.width >= region.height)
        matrix = pixel_map(geometry.matrix(region, framing), aspect, track.affine, frames.shape[2], frames.shape[1],
                           framing.size)
        clip, valid = warp(frames, matrix, framing.size, self.modalities[view])
        if framing.brighten != "none" and clip.dtype != np.uint8:
            raise ModaliftError(f"view '{view}' is no 8-bit picture to brighten - set data.per_view.{view}.brighten=none")
        return brighten(clip, framing.brighten, framing.strength), valid

    def _nothing(self, view: str) -> tuple[Array, Array | None]:
        """What stands for an absent sensor: zeros, none of them valid."""
        modality, framing = self.modalities[view], self.framings[view]
        channels = modality.channels
        if not channels:
            row = next(r for r in self.table if view in r.tracks)
            channels = self.store.read(row, view, [0]).shape[3]
            self.modalities[view] = modality.with_channels(channels)
        frames = 1 if framing.sampler == "whole" else framing.frames
        size = 1 if modality.kind == "signal" else framing.size
        shape = (channels, frames, size, size)
        valid = None if modality.invalid is None else np.zeros((1, *shape[1:]), bool)
        return np.zeros(shape, np.uint8 if modality.dtype == "uint8" else np.float32), valid

    # ---- spaces and boxes -----------------------------------------------------------------------------------------

    @staticmethod
    def _space(row: Row, view: str) -> str:
        """The view's frame of reference; a view without one is alone in its own."""
        return row.tracks[view].space or f"of {view}"

    def _aspect(self, row: Row, index: int, view: str, frames: Array) -> float:
        """Width over height of the space's picture: that of its first view without an affine, whether it is read or not."""
        space = self._space(row, view)
        reference = next((v for v, m in self.table.views.items() if m.kind == "video" and v in row.tracks
                          and self._space(row, v) == space and row.tracks[v].affine is None), view)
        if reference == view:
            return frames.shape[2] / frames.shape[1]
        if (index, space) not in self._aspects:
            try:
                first = self.store.read(row, reference, [0])
            except ModaliftError:  # held in memory or a cache are the views that are read, not this one
                first = Files(self.table.views).read(row, reference, [0])
            self._aspects[index, space] = first.shape[2] / first.shape[1]
        return self._aspects[index, space]

    def _marked(self, row: Row, view: str) -> str | None:
        """The first view of the same space that marks invalid readings."""
        space = self._space(row, view)
        return next((v for v, m in self.table.views.items()
                     if m.invalid is not None and v in row.tracks and self._space(row, v) == space), None)

    def _check_regions(self) -> None:
        for view, framing in self.framings.items():
            row = next((r for r in self.table if view in r.tracks), None)
            video = self.modalities[view].kind == "video"  # a signal has no region
            if video and framing.region == "valid" and row is not None and self._marked(row, view) is None:
                raise ModaliftError(f"region 'valid' of view '{view}' needs a view with marked holes (depth) in its"
                                    f" space '{row.tracks[view].space}' - use region: whole")

    def _box(self, row: Row, index: int, view: str) -> tuple[float, float, float, float]:
        """The box of valid readings in the space's normalized coordinates; found once a clip."""
        memo = self._boxes[index, list(self.framings).index(view)].numpy()
        if np.isnan(memo).any():
            marked = self._marked(row, view)
            if marked is None:
                raise ModaliftError(f"no view in the space of '{view}' marks invalid readings - use region: whole")
            length = self._length(row, marked)
            some = np.unique(np.linspace(0, length - 1, min(length, BOX_FRAMES)).round().astype(np.int64))
            box = valid_box(self.store.read(row, marked, some.tolist()), self.table.views[marked])
            memo[:] = _moved(box, row.tracks[marked])
        return float(memo[0]), float(memo[1]), float(memo[2]), float(memo[3])


def _moved(box: tuple[float, float, float, float], track: Track) -> tuple[float, float, float, float]:
    """A box of a track in its space: the upright box around the moved corners."""
    if track.affine is None:
        return box
    corners = np.array([[box[0], box[2], box[0], box[2]], [box[1], box[1], box[3], box[3]], [1.0] * 4])
    x, y = np.asarray(track.affine).reshape(2, 3) @ corners
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _spread(clip: Array, back: Array) -> Array:
    """Frames in the order in which they are shown; those seen twice stand twice."""
    same = len(back) == clip.shape[1] and bool((back == np.arange(len(back))).all())
    return clip if same else np.ascontiguousarray(clip[:, back])


def _blank(clip: Array, valid: Array | None, where: Frames, modality: Modality) -> tuple[Array, Array | None]:
    """The clip with its blank frames put in."""
    kept = where != BLANK
    if kept.all():
        return clip, valid
    full = np.full((clip.shape[0], len(where), *clip.shape[2:]), modality.invalid or 0, clip.dtype)
    full[:, kept] = clip
    if valid is not None:
        padded = np.zeros((1, len(where), *valid.shape[2:]), bool)
        padded[:, kept] = valid
        valid = padded
    return full, valid


# ---- batches --------------------------------------------------------------------------------------------------------


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of a :class:`ClipSet` as a Batch; clips of unlike length are padded to the longest, at their end."""
    views = list(samples[0]["clips"])
    clips, valid = {}, {}
    for view in views:
        clips[view] = _stack([s["clips"][view] for s in samples], [s["pads"][view] for s in samples])
        if view in samples[0]["valid"]:
            valid[view] = _stack([s["valid"][view] for s in samples], [s["pads"][view] for s in samples])
    labels = torch.tensor([s["label"] for s in samples], dtype=torch.int64)
    return Batch(clips=clips, valid=valid,
                 present={v: torch.tensor([s["present"][v] for s in samples], dtype=torch.bool) for v in views},
                 labels=labels, labeled=labels >= 0,
                 index=torch.tensor([s["index"] for s in samples], dtype=torch.int64))


def _stack(clips: Sequence[Array], pads: Sequence[str]) -> Tensor:
    frames = max(c.shape[1] for c in clips)
    out = np.zeros((len(clips), clips[0].shape[0], frames, *clips[0].shape[2:]), clips[0].dtype)
    for to, clip, pad in zip(out, clips, pads, strict=True):
        length = clip.shape[1]
        to[:, :length] = clip
        if length < frames and pad != "zeros":
            rest = np.arange(length, frames)
            to[:, length:] = clip[:, rest % length if pad == "loop" else np.full(len(rest), length - 1)]
    return torch.from_numpy(out)


class Order(Sampler[Key]):
    """The keys of an epoch, in an order that depends on ``(seed, epoch)`` only.

    The global order is the same for any number of processes: process ``rank`` of ``world`` takes every ``world``-th
    sample, so that one step of all of them reads the same clips as one step of a single process with the whole batch.

    Args:
        clips: the data set.
        shuffle: a new permutation each epoch, or the table's order with every view in time and crop of each clip.
        seed, epoch: of the permutation.
        start: samples of the epoch that have been read already, by all processes together.
        rank, world: this process and how many there are. Up to ``world - 1`` last samples of a shuffled epoch are
            left out, so that all processes take equally many steps.
        per_class: so many clips of one class stand together (P x K sampling, where a batch holds a multiple of them);
            what is left of a class, and what has no label, comes at the epoch's end.
    """

    def __init__(self, clips: ClipSet, *, shuffle: bool, seed: int, epoch: int, start: int = 0, rank: int = 0,
                 world: int = 1, per_class: int = 1) -> None:
        order = np.arange(len(clips))
        if shuffle:
            order = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(len(clips))
            if per_class > 1:
                order = _together(order, [clips.table.rows[i].label for i in clips.indices], per_class)
        if shuffle or clips.time_views * clips.crops == 1:
            keys: list[Key] = [(epoch, i) for i in order.tolist()]
        else:
            looks = [(t, c) for t in range(clips.time_views) for c in range(clips.crops)]
            keys = [(epoch, i, *look) for i in order.tolist() for look in looks]
        end = len(keys) - (len(keys) - start) % world if shuffle else len(keys)
        self.keys = keys[start:end][rank::world]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)


def _together(order: NDArray[np.int64], labels: Sequence[int | None], per_class: int) -> NDArray[np.int64]:
    """The order with every ``per_class`` clips of a class moved to where the last of them stands; the rest at the end."""
    waiting: dict[int | None, list[int]] = {}
    told: list[int] = []
    for place in order.tolist():
        found = waiting.setdefault(labels[place], [])
        found.append(place)
        if labels[place] is not None and len(found) == per_class:
            told += waiting.pop(labels[place])
    return np.array(told + [place for found in waiting.values() for place in found], dtype=np.int64)


class Loader(DataLoader[Sample]):
    """A DataLoader of Batches that tells a worker's :class:`ModaliftError` in its one line."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except ModaliftError as error:
            # A worker's error comes wrapped in its traceback; the message is the last line.
            line = str(error).strip().splitlines()[-1]
            raise ModaliftError(line.removeprefix("modalift.errors.ModaliftError: ")) from None


def loader(clips: ClipSet, *, batch: int, shuffle: bool, seed: int, epoch: int, start: int = 0, workers: int = 0,
           drop_last: bool = False, rank: int = 0, world: int = 1, per_class: int = 1) -> Loader:
    """Batches of one epoch (see :class:`Order`); nothing is drawn from the global generators.

    Args:
        clips: the data set.
        batch: clips of a batch, in this process.
        shuffle, seed, epoch, start, rank, world, per_class: see :class:`Order`.
        workers: forked loader processes; 0 loads in this one, with the same result.
        drop_last: leave out a last batch that is not full.
    """
    if batch < 1:
        raise ModaliftError(f"batch is {batch} - it must be 1 or more")
    order = Order(clips, shuffle=shuffle, seed=seed, epoch=epoch, start=start, rank=rank, world=world,
                  per_class=per_class)
    # The DataLoader draws its workers' base seed from this generator, not from the global one (exact resume).
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return Loader(clips, batch_size=batch, sampler=order, num_workers=workers, collate_fn=collate, drop_last=drop_last,
                  generator=generator, worker_init_fn=_one_thread, pin_memory=torch.cuda.is_available(),
                  multiprocessing_context="fork" if workers and sys.platform == "linux" else None)


def _one_thread(_: int) -> None:
    """Loader processes are many already: each works in one thread."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
