"""Feature maps and vectors: pooling, flattening, normalization, shared by several losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def as_clip(feature_map: Tensor) -> Tensor:
    """``(B, C, T, H, W)``; a map of images ``(B, C, H, W)`` becomes one of a single frame."""
    return feature_map.unsqueeze(2) if feature_map.dim() == 4 else feature_map


def pooled(feature_map: Tensor, extents: tuple[int, int, int]) -> Tensor:
    """The map average-pooled to ``(T, H, W)``; unchanged if it has these extents already."""
    T, H, W = feature_map.shape[2:]
    if extents == (T, H, W):
        return feature_map
    if extents[0] != T:
        return F.adaptive_avg_pool3d(feature_map, extents)
    frames = feature_map.transpose(1, 2).flatten(0, 1)  # of frames: faster than in 3D
    if H % extents[1] == 0 and W % extents[2] == 0:
        frames = F.avg_pool2d(frames, (H // extents[1], W // extents[2]))
    else:
        frames = F.adaptive_avg_pool2d(frames, extents[1:])
    return frames.unflatten(0, (len(feature_map), T)).transpose(1, 2)


def flattened(*feature_maps: Tensor) -> tuple[Tensor, ...]:
    """Each map flattened to ``(B, N)``, all in the same order: the memory order of the first, to avoid copies."""
    first = feature_maps[0]
    order = (0, 2, 3, 4, 1) if first.stride(1) == 1 else (0, 2, 1, 3, 4)
    return tuple(m.permute(order).flatten(1) for m in feature_maps)


def common_extents(one: Tensor, other: Tensor) -> tuple[int, int, int]:
    """For each of T, H, W the smaller extent of two maps."""
    T, H, W = (min(a, b) for a, b in zip(one.shape[2:], other.shape[2:], strict=True))
    return T, H, W


def same_grid(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps as clips, average-pooled to the smaller extents; channels may differ."""
    one, other = as_clip(one), as_clip(other)
    extents = common_extents(one, other)
    return pooled(one, extents), pooled(other, extents)


def l2_norm(rows: Tensor) -> Tensor:
    """Euclidean norm along the last axis, kept as an axis of 1; at zero the gradient is zero instead of NaN."""
    square = rows.square().sum(-1, keepdim=True)
    return torch.where(square > 0, square, torch.ones_like(square)).sqrt() * (square > 0)


def l2_normalized(rows: Tensor, noise: float | Tensor = 0.0) -> Tensor:
    """Rows (last axis) divided by their norm. A row with a norm up to ``noise`` becomes 0, with a gradient of 0."""
    length = l2_norm(rows)
    alive = length > noise
    return torch.where(alive, rows / torch.where(alive, length, torch.ones_like(length)), torch.zeros_like(rows))
