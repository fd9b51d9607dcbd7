"""MTUT's two functions: spatiotemporal semantic alignment, and the focal weight against negative transfer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modalift.losses.full_precision import full_precision
from modalift.losses.maps import same_grid


def correlation(feature_map: Tensor, eps: float = 0.0) -> Tensor:
    r"""Correlation of every position of a map with every other (MTUT, equation 1).

    .. math:: \mathrm{corr}(F) = \hat F \hat F^\top, \qquad \hat f = \frac{f - \mu_f}{\|f - \mu_f\|}

    where :math:`f \in R^C` is the feature of one position and :math:`\mu_f` the mean of its C values. (The paper also
    divides by their deviation; it cancels in the unit norm, so entries are Pearson correlations.)

    A position whose feature is constant (all zero after a ReLU) has correlations of 0 and a gradient of 0. ``eps`` is added to
    the mean square before the root, which also bounds the gradient of *nearly* constant positions.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, d, d)`` with ``d = T H W``.
    """
    rows = feature_map.flatten(2).transpose(1, 2)  # (B, d, C)
    centered = rows - rows.mean(2, keepdim=True)
    square = centered.square().mean(2, keepdim=True)
    # A constant feature leaves only rounding errors after centering.
    noise = (8 * torch.finfo(rows.dtype).eps * rows.detach().abs().amax(2, keepdim=True)).square()
    alive = square > noise
    scale = torch.where(alive, square, torch.ones_like(square)).add(eps).rsqrt()
    unit = torch.where(alive, centered * scale, torch.zeros_like(centered)) / rows.shape[2] ** 0.5
    return unit @ unit.transpose(1, 2)


@full_precision
def semantic_alignment(own_map: Tensor, other_map: Tensor, reduction: Literal["sum", "mean"] = "sum", *,
                       reference: int | None = None, eps: float = 0.0, per_sample: bool = False) -> Tensor:
    r"""Distance between the correlation matrices of two networks' maps of one clip (SSA).

    .. math:: \ell_{SSA} = \|\mathrm{corr}(F_m) - \mathrm{corr}(F_n)\|_F^2

    where :math:`F_m` is the map of the network that learns and :math:`F_n` that of the other, which is detached: the
    loss of m trains only m. Channels may differ; where grids differ, both maps are average-pooled to the smaller extents.

    Args:
        own_map, other_map: ``(B, C, T, H, W)``.
        reduction: ``sum`` over the :math:`d^2` entries (the paper's squared Frobenius norm) or their ``mean``.
        reference: with ``sum``, rescale to the size that a map of ``reference`` positions would have, by
            :math:`(reference / d)^2`; the paper's weight .05 belongs to 8 x 7 x 7 = 392 positions.
        eps: see :func:`correlation`; 0 for the exact value, 1e-5 in training.
        per_sample: ``(B,)`` instead of the mean over the batch.

    Source: MTUT (Abavisani, Joze, Patel, CVPR 2019), equations 1 and 2, without the weight of equation 3.

    Example:
        >>> x = torch.rand(2, 4, 1, 2, 2)
        >>> semantic_alignment(x, 3 * x + 1).item() < 1e-9
        True
    """
    own, other = same_grid(own_map, other_map.detach())
    difference = (correlation(own, eps) - correlation(other, eps)).square()
    positions = difference.shape[1]
    each = difference.mean((1, 2)) if reduction == "mean" else difference.sum((1, 2))
    if reduction == "sum" and reference is not None:
        each = each * (reference / positions) ** 2
    return each if per_sample else each.mean()


@full_precision
def focal_weight(own_loss: Tensor, other_loss: Tensor, focus: float = 2.0, *, limit: float | None = None,
                 rho_grad: bool = False) -> Tensor:
    r"""Weight of another network as teacher: 0 if the learner has the lower loss.

    .. math:: \rho_{m,n} = \max\big(e^{\beta (\ell_m - \ell_n)} - 1,\ 0\big)

    where :math:`\ell` are the classification losses of one clip and :math:`\beta` is ``focus``. The weight is detached:
    otherwise a network could lower its loss by raising the other's. With ``rho_grad`` it keeps the gradient of
    :math:`\ell_m`, which gives clips that the other network recognizes better more weight; :math:`\ell_n` never gets any.

    Args:
        own_loss, other_loss: ``(B,)`` (or any equal shape).
        focus: :math:`\beta` > 0.
        limit: largest weight (without gradient there); None: e^80, where the exponential is cut to stay finite.
        rho_grad: see above.

    Source: MTUT, equation 3; a weight per clip, because the text speaks of hard examples.

    Example:
        >>> focal_weight(torch.tensor([1.0, 0.5]), torch.tensor([0.5, 1.0]))
        tensor([1.7183, 0.0000])
    """
    own_loss = own_loss if rho_grad else own_loss.detach()
    weight = torch.expm1((focus * (own_loss - other_loss.detach())).clamp(min=0.0, max=80.0))
    return weight if limit is None else weight.clamp_max(limit)
