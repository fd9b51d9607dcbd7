"""Frames folded into the batch, for layers that read every frame by itself, and unfolded again."""

from __future__ import annotations

from torch import Tensor


def fold_frames(x: Tensor) -> Tensor:
    """``(B, C, T, H, W)`` -> ``(B*T, C, H, W)``."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold_frames(x: Tensor, frames: int) -> Tensor:
    """``(B*T, C, H, W)`` -> ``(B, C, T, H, W)``, without a copy.

    Example:
        >>> import torch
        >>> clip = torch.rand(2, 3, 4, 5, 5)
        >>> torch.equal(unfold_frames(fold_frames(clip), frames=4), clip)
        True
    """
    return x.unflatten(0, (-1, frames)).transpose(1, 2)
