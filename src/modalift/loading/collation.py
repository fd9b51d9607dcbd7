"""From samples to batches: collation, padding, and the data loader of one epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from modalift.errors import ModaliftError
from modalift.interruption import starting_processes
from modalift.loading.clips import ClipSet, Sample
from modalift.loading.epoch_sampler import EpochSampler
from modalift.modalities import Batch


def collate(samples: Sequence[Sample]) -> Batch:
    """Collates samples of a :class:`~modalift.loading.clips.ClipSet` into a Batch.

    Clips of different lengths are padded at their end to the longest.
    """
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
                 index=torch.tensor([s["index"] for s in samples], dtype=torch.int64),
                 unreadable={s["index"]: s["unreadable"] for s in samples if "unreadable" in s})


def _stack(clips: Sequence[NDArray[Any]], pads: Sequence[str]) -> Tensor:
    frames = max(c.shape[1] for c in clips)
    out = np.zeros((len(clips), clips[0].shape[0], frames, *clips[0].shape[2:]), clips[0].dtype)
    for to, clip, pad in zip(out, clips, pads, strict=True):
        length = clip.shape[1]
        to[:, :length] = clip
        if length < frames and pad != "zeros":
            rest = np.arange(length, frames)
            to[:, length:] = clip[:, rest % length if pad == "loop" else np.full(len(rest), length - 1)]
    return torch.from_numpy(out)


class Loader(DataLoader[Sample]):
    """A DataLoader of Batches that re-raises a worker's :class:`ModaliftError` without the worker's traceback.

    It enters clips that turn out to be unreadable in :attr:`ClipSet.unreadable`.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        clips: Any = self.dataset
        try:
            with starting_processes():
                batches = super().__iter__()
            batch: Any
            for batch in batches:
                clips.unreadable |= {clips.table.rows[index].id: reason for index, reason in batch.unreadable.items()}
                yield batch
        except ModaliftError as error:
            # The text of a worker's error is its traceback; the message is the last line.
            line = str(error).strip().splitlines()[-1]
            raise ModaliftError(line.removeprefix("modalift.errors.ModaliftError: ")) from None


def loader(clips: ClipSet, *, batch: int, shuffle: bool, seed: int, epoch: int, start: int = 0, workers: int = 0,
           drop_last: bool = False, rank: int = 0, world: int = 1, per_class: int = 1) -> Loader:
    """A loader of one epoch's batches (see :class:`~modalift.loading.epoch_sampler.EpochSampler`).

    The global random generators are not used.

    Args:
        clips: the dataset.
        batch: clips per batch, in this process.
        shuffle, seed, epoch, start, rank, world, per_class: see :class:`~modalift.loading.epoch_sampler.EpochSampler`.
        workers: loader processes; 0 loads in this process, with the same result.
        drop_last: leave out a last batch that is smaller than ``batch``.
    """
    if batch < 1:
        raise ModaliftError(f"batch is {batch} - it must be 1 or more")
    order = EpochSampler(clips, shuffle=shuffle, seed=seed, epoch=epoch, start=start, rank=rank, world=world,
                  per_class=per_class)
    # Forked processes share the decoded frames; macOS and Windows cannot fork safely, and start anew with a copy.
    context = "fork" if sys.platform == "linux" else "spawn"
    # The DataLoader draws its workers' base seed from this generator, not from the global one (exact resume).
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return Loader(clips, batch_size=batch, sampler=order, num_workers=workers, collate_fn=collate, drop_last=drop_last,
                  generator=generator, worker_init_fn=_start_worker, pin_memory=torch.cuda.is_available(),
                  multiprocessing_context=context if workers else None)


def _start_worker(_: int) -> None:
    """Limits a loader process to one thread; the processes are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # The thread that hands over memory prints a traceback where the training process ends first; that one reports.
    sys.excepthook = lambda *_: None
