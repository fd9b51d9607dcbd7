"""What several losses need of feature maps and of vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def as_clip(feature_map: Tensor) -> Tensor:
    """``(B, C, T, H, W)``; a map of pictures ``(B, C, H, W)`` becomes one of a single frame."""
    return feature_map.unsqueeze(2) if feature_map.dim() == 4 else feature_map


def pooled(feature_map: Tensor, extents: tuple[int, int, int]) -> Tensor:
    """The map averaged to ``(T, H, W)``; itself where it has these extents already."""
    T, H, W = feature_map.shape[2:]
    if extents == (T, H, W):
        return feature_map
    if extents[0] != T:
        return F.adaptive_avg_pool3d(feature_map, extents)
    frames = feature_map.transpose(1, 2).flatten(0, 1)  # of single frames: quicker
    if H % extents[1] == 0 and W % extents[2] == 0:
        frames = F.avg_pool2d(frames, (H // extents[1], W // extents[2]))
    else:
        frames = F.adaptive_avg_pool2d(frames, extents[1:])
    return frames.unflatten(0, (len(feature_map), T)).transpose(1, 2)


def flat(*feature_maps: Tensor) -> tuple[Tensor, ...]:
    """Each map's numbers as rows ``(B, N)``, all in one order: that in which the first lies in memory, to copy little."""
    first = feature_maps[0]
    order = (0, 2, 3, 4, 1) if first.stride(1) == 1 else (0, 2, 1, 3, 4)
    return tuple(m.permute(order).flatten(1) for m in feature_maps)


def smaller(one: Tensor, other: Tensor) -> tuple[int, int, int]:
    """The smaller of two maps' extents, axis by axis."""
    T, H, W = (min(a, b) for a, b in zip(one.shape[2:], other.shape[2:], strict=True))
    return T, H, W


def same_grid(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps, as clips, averaged to the smaller of their extents; channels may differ."""
    one, other = as_clip(one), as_clip(other)
    extents = smaller(one, other)
    return pooled(one, extents), pooled(other, extents)


def lengths(rows: Tensor) -> Tensor:
    """Euclidean length along the last axis, kept as an axis of 1; at zero the gradient is zero and not NaN."""
    square = rows.square().sum(-1, keepdim=True)
    return torch.where(square > 0, square, torch.ones_like(square)).sqrt() * (square > 0)


def unit(rows: Tensor, noise: float | Tensor = 0.0) -> Tensor:
    """Rows (last axis) of length 1. What is no longer than ``noise`` has no direction: it is 0, and its gradient too."""
    length = lengths(rows)
    alive = length > noise
    return torch.where(alive, rows / torch.where(alive, length, torch.ones_like(length)), torch.zeros_like(rows))
