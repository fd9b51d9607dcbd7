"""Attention transfer: distance between the spatiotemporal attention maps of student and teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from modalift.losses.full_precision import full_precision
from modalift.losses.maps import l2_normalized, same_grid


def attention(feature_map: Tensor, power: int = 2) -> Tensor:
    r"""The attention map of a feature map: ``(B, C, T, H, W)`` to unit vectors ``(B, THW)``.

    .. math:: q = \frac{a}{\|a\|_2}, \qquad a = \mathrm{vec}\Big(\frac1C \sum_c |f_c|^p\Big)

    A map that is zero everywhere gives zeros. q does not depend on the scale of a, so a is first divided by its largest value:
    squares of very small values would underflow.
    """
    strength = (feature_map.square() if power == 2 else feature_map.abs().pow(power)).mean(1).flatten(1)
    largest = strength.detach().amax(1, keepdim=True)
    return l2_normalized(strength / torch.where(largest > 0, largest, torch.ones_like(largest)))


@full_precision
def attention_transfer(student_map: Tensor, teacher_map: Tensor, *, power: int = 2, per_sample: bool = False) -> Tensor:
    r"""Distance between the attention maps of two networks (AT).

    .. math:: L = \frac{1}{B\,THW} \sum_b \|q^s_b - q^t_b\|_2^2

    where q is :func:`attention`; the larger map is average-pooled to the smaller one's extents *before* it is squared. Time
    is treated as height and width are. The mean over positions makes values small: the usual weight is 1000.

    Shapes: maps ``(B, C, T, H, W)`` or ``(B, C, H, W)``, channels may differ; returns a scalar, or ``(B,)`` with
    ``per_sample``. The teacher's map gets no gradient.

    Source: Zagoruyko, Komodakis, *Paying more attention to attention*, ICLR 2017, equation 2, with squared distance and
    mean over positions as in the authors' code.

    Example:
        >>> x = torch.rand(2, 3, 1, 4, 4)
        >>> attention_transfer(x, 5 * x).item() < 1e-12
        True
    """
    own, shown = same_grid(student_map, teacher_map.detach())
    each = (attention(own, power) - attention(shown, power)).square().mean(1)
    return each if per_sample else each.mean()
