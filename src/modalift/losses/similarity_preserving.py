"""Similarity-preserving distillation: distance between the similarity matrices of student and teacher over a batch."""

from __future__ import annotations

from torch import Tensor

from modalift.losses.full_precision import full_precision
from modalift.losses.maps import l2_normalized


@full_precision
def similarity_preserving(student_map: Tensor, teacher_map: Tensor, *, per_sample: bool = False) -> Tensor:
    r"""Distance between two networks' similarity matrices of a batch (SP).

    .. math:: L = \frac{1}{B^2} \|\tilde G^s - \tilde G^t\|_F^2, \qquad \tilde G_{i:} = \frac{G_{i:}}{\|G_{i:}\|_2},
              \qquad G = F F^\top

    where a row of F is the flattened map of one clip. Maps of any two shapes can be compared. The usual weight is 3000, for the
    last map. A batch of one gives 0.

    Shapes: ``(B, ...)`` each; returns a scalar, or ``(B,)`` with ``per_sample`` (one value per row, whose mean it is).
    Computed in single precision: in half precision the products overflow.

    Source: Tung, Mori, *Similarity-preserving knowledge distillation*, ICCV 2019, equations 2 to 5.

    Example:
        >>> import torch
        >>> x = torch.rand(4, 3, 1, 2, 2)
        >>> similarity_preserving(x, 2 * x).item() < 1e-12
        True
    """
    own, shown = (f.flatten(1) for f in (student_map, teacher_map.detach()))
    each = (l2_normalized(own @ own.T) - l2_normalized(shown @ shown.T)).square().mean(1)
    return each if per_sample else each.mean()
