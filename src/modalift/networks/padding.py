"""Zero padding as TensorFlow's ``SAME`` does it."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def same_padding(extent: int, kernel: int, stride: int) -> tuple[int, int]:
    r"""Zeros before and after an axis, so that a layer gives :math:`\lceil n / s \rceil` positions.

    .. math:: p = \max(k - s, 0) \text{ if } s \mid n, \text{ else } \max(k - n \bmod s, 0)

    of which the smaller half comes first.

    Source: TensorFlow's padding ``SAME``.

    Example:
        >>> same_padding(224, 7, 2), same_padding(225, 7, 2)
        ((2, 3), (3, 3))
    """
    missing = max(kernel - (extent % stride or stride), 0)
    return missing // 2, missing - missing // 2


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """A map with the zeros of :func:`same_padding` around its last axes, one number of ``kernel`` and ``stride`` per axis.

    Example:
        >>> import torch
        >>> pad_same(torch.ones(4), [3], [2]).tolist(), pad_same(torch.ones(3), [3], [2]).tolist()
        ([1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0, 0.0])
    """
    zeros: list[int] = []
    for n, k, s in zip(reversed(x.shape[-len(kernel):]), reversed(kernel), reversed(stride), strict=True):
        zeros += same_padding(n, k, s)
    return F.pad(x, zeros) if any(zeros) else x
