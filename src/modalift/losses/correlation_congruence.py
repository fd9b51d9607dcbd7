"""Correlation congruence: distance between the kernel matrices of student and teacher over a batch."""

from __future__ import annotations

import math

from torch import Tensor

from modalift.errors import ModaliftError
from modalift.losses.full_precision import full_precision
from modalift.losses.maps import l2_normalized


def congruence_kernel(rows: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    r"""Kernel matrix ``(B, B)`` of normalized rows: a Gaussian kernel, by its Taylor expansion of order P.

    .. math:: K_{ij} = e^{-2\gamma} \sum_{p=0}^{P} \frac{(2\gamma)^p}{p!} (\hat x_i^\top \hat x_j)^p
    """
    x = l2_normalized(rows)
    cosine = x @ x.T
    total = sum(((2 * gamma) ** p / math.factorial(p)) * cosine**p for p in range(order + 1))
    assert isinstance(total, Tensor)
    return math.exp(-2 * gamma) * total


@full_precision
def correlation_congruence(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2,
                           adjacent: bool = False, per_sample: bool = False) -> Tensor:
    r"""Distance between two networks' kernel matrices of the clips of a batch (CC).

    .. math:: L = \frac{1}{B^2} \|K^s - K^t\|_F^2

    where K is :func:`congruence_kernel` of the networks' features, whose widths may differ.

    With ``adjacent`` it is the variant of a widely used toolbox, which multiplies the differences of neighbors in the
    batch and needs features of one width:

    .. math:: L = \frac{1}{B - 1} \sum_i \sum_c d_{ic}\, d_{i+1,c}, \qquad d = |f^s - f^t|

    That one depends on the order of the clips, and is 0 for a batch of one.

    Shapes: ``(B, ...)`` each, flattened; returns a scalar, or ``(B,)`` with ``per_sample`` (not for ``adjacent``). The
    teacher's features get no gradient.

    Raises:
        ModaliftError: ``adjacent`` with features of two widths, or with ``per_sample``.

    Source: Peng et al., *Correlation congruence for knowledge distillation*, ICCV 2019, equations 4 and 7, with the
    second-order kernel and gamma = .4.

    Example:
        >>> import torch
        >>> x = torch.rand(4, 6)
        >>> correlation_congruence(x, 2 * x).item() < 1e-12
        True
    """
    own, shown = student.flatten(1), teacher.detach().flatten(1)
    if adjacent:
        if own.shape != shown.shape or per_sample:
            raise ModaliftError(f"correlation_congruence: adjacent=True compares features of one width as a whole, not "
                                f"{tuple(own.shape)} with {tuple(shown.shape)} - use adjacent=False")
        gap = (own - shown).abs()
        return (gap[:-1] * gap[1:]).sum() / max(1, len(gap) - 1)
    each = (congruence_kernel(own, gamma, order) - congruence_kernel(shown, gamma, order)).square().mean(1)
    return each if per_sample else each.mean()
