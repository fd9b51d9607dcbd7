"""The order of the clips in an epoch: a function of seed and epoch, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from modalift.loading.clips import ClipSet, Key


class EpochSampler(Sampler[Key]):
    """Samples the keys of one epoch in an order that depends on ``(seed, epoch)`` only.

    The global order is the same for any number of processes: process ``rank`` of ``world`` takes every ``world``-th
    sample, so that one step of all processes reads the same clips as one step of a single process with the whole batch.

    Args:
        clips: the dataset.
        shuffle: a new permutation per epoch, or the table's order with every temporal and spatial crop of each clip.
        seed, epoch: of the permutation.
        start: number of samples of the epoch that all processes together have read already (for resuming).
        rank, world: index of this process, and number of processes. Up to ``world - 1`` samples at the end of a shuffled
            epoch are left out, so that all processes take equally many steps.
        per_class: number of consecutive clips of one class (P x K sampling, if the batch size is a multiple of it); the
            remaining clips of each class and clips without a label come at the end of the epoch.
    """

    def __init__(self, clips: ClipSet, *, shuffle: bool, seed: int, epoch: int, start: int = 0, rank: int = 0,
                 world: int = 1, per_class: int = 1) -> None:
        order = np.arange(len(clips))
        if shuffle:
            order = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(len(clips))
            if per_class > 1:
                order = _by_class(order, [clips.table.rows[i].label for i in clips.indices], per_class)
        temporal, spatial = clips.protocol.temporal_crops, clips.protocol.spatial_crops
        if shuffle or temporal * spatial == 1:
            keys: list[Key] = [(epoch, i) for i in order.tolist()]
        else:
            crops = [(t, c) for t in range(temporal) for c in range(spatial)]
            keys = [(epoch, i, *crop) for i in order.tolist() for crop in crops]
        end = len(keys) - (len(keys) - start) % world if shuffle else len(keys)
        self.keys = keys[start:end][rank::world]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)


def _by_class(order: NDArray[np.int64], labels: Sequence[int | None], per_class: int) -> NDArray[np.int64]:
    """Moves every ``per_class`` clips of a class to the position of the last of them, and the remaining clips to the end."""
    pending: dict[int | None, list[int]] = {}
    arranged: list[int] = []
    for position in order.tolist():
        found = pending.setdefault(labels[position], [])
        found.append(position)
        if labels[position] is not None and len(found) == per_class:
            arranged += pending.pop(labels[position])
    return np.array(arranged + [position for found in pending.values() for position in found], dtype=np.int64)
