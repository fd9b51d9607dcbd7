"""The order of an epoch's clips: a function of seed and epoch, alike for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from modalift.loading.clips import ClipSet, Key


class Order(Sampler[Key]):
    """The keys of an epoch, in an order that depends on ``(seed, epoch)`` only.

    The global order is the same for any number of processes: process ``rank`` of ``world`` takes every ``world``-th
    sample, so that one step of all of them reads the same clips as one step of a single process with the whole batch.

    Args:
        clips: the data set.
        shuffle: a new permutation per epoch, or the table's order with every temporal and spatial crop of each clip.
        seed, epoch: of the permutation.
        start: samples of the epoch that have been read already, by all processes together.
        rank, world: this process and how many there are. Up to ``world - 1`` last samples of a shuffled epoch are
            left out, so that all processes take equally many steps.
        per_class: so many clips of one class follow each other (P x K sampling, where a batch holds a multiple of them);
            what is left of a class, and what has no label, comes at the epoch's end.
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
    """The order with every ``per_class`` clips of a class moved to the place of the last of them; the rest at the end."""
    waiting: dict[int | None, list[int]] = {}
    arranged: list[int] = []
    for place in order.tolist():
        found = waiting.setdefault(labels[place], [])
        found.append(place)
        if labels[place] is not None and len(found) == per_class:
            arranged += waiting.pop(labels[place])
    return np.array(arranged + [place for found in waiting.values() for place in found], dtype=np.int64)
