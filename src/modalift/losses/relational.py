"""Relational distillation: distances and angles between the clips of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modalift.losses.full_precision import full_precision
from modalift.losses.maps import l2_norm, l2_normalized


def _differences(features: Tensor) -> tuple[Tensor, Tensor]:
    """``d[i, j] = x_j - x_i``, ``(B, B, C)``, and the length below which a difference is a rounding error.

    Distances from the Gram matrix would be inaccurate for features with a large common offset.
    """
    rows = features.flatten(1)
    noise = 8 * torch.finfo(rows.dtype).eps * rows.detach().square().sum(1).amax().sqrt()
    return rows.unsqueeze(0) - rows.unsqueeze(1), noise


def _distances(features: Tensor) -> Tensor:
    """Distances ``(B, B)``, divided by the mean of those that are not zero."""
    rows, noise = _differences(features)
    found = l2_norm(rows).squeeze(-1)
    apart = found > noise
    found = torch.where(apart, found, torch.zeros_like(found))
    return found / (found.sum() / apart.sum().clamp_min(1)).clamp_min(torch.finfo(found.dtype).tiny)


@full_precision
def relational_distance(student: Tensor, teacher: Tensor, *, per_sample: bool = False) -> Tensor:
    r"""Distance-wise relational distillation (RKD-D).

    .. math:: L = \frac{1}{B^2} \sum_{i,j} \mathrm{huber}\big(\psi^s_{ij} - \psi^t_{ij}\big), \qquad
              \psi_{ij} = \frac{\|x_i - x_j\|}{\mu}

    where :math:`\mu` is the mean of the distances that are not zero, and the Huber loss turns linear at 1. Usual weights:
    1 for embeddings, 25 for the pooled feature of a classifier. A batch of one gives 0.

    Shapes: ``(B, ...)`` each, flattened, widths may differ; returns a scalar, or ``(B,)`` with ``per_sample``. Memory is
    of the order of B^2 times the width, so use pooled features. The teacher's get no gradient.

    Source: Park et al., *Relational knowledge distillation*, CVPR 2019, equations 5 to 8; the mean includes the zeros of
    the diagonal, as in the authors' code.

    Example:
        >>> x = torch.rand(4, 6)
        >>> relational_distance(3 * x + 1, x).item() < 1e-10
        True
    """
    each = F.smooth_l1_loss(_distances(student), _distances(teacher.detach()), reduction="none").mean(1)
    return each if per_sample else each.mean()


@full_precision
def relational_angle(student: Tensor, teacher: Tensor, *, per_sample: bool = False) -> Tensor:
    r"""Angle-wise relational distillation (RKD-A).

    .. math:: L = \frac{1}{B^3} \sum_{i,j,k} \mathrm{huber}\big(\cos\angle^s_{jik} - \cos\angle^t_{jik}\big), \qquad
              \cos\angle_{jik} = \Big\langle \frac{x_j - x_i}{\|x_j - x_i\|}, \frac{x_k - x_i}{\|x_k - x_i\|} \Big\rangle

    Two clips of equal features have no direction between them: its cosines are 0, without gradient (division by a tiny
    number would give a gradient of 1e10). Usual weights: 2 for embeddings, 50 for the pooled feature of a classifier.

    Shapes: ``(B, ...)`` each, flattened, widths may differ; returns a scalar, or ``(B,)`` with ``per_sample``. The
    teacher's get no gradient.

    Source: Park et al., *Relational knowledge distillation*, CVPR 2019, equations 9 to 11; the mean includes the angles of
    a clip with itself, as in the authors' code.

    Example:
        >>> x = torch.rand(4, 6)
        >>> relational_angle(3 * x + 1, x).item() < 1e-10
        True
    """
    def cosines(features: Tensor) -> Tensor:
        rows, noise = _differences(features)
        direction = l2_normalized(rows, noise)
        return direction @ direction.transpose(1, 2)

    each = F.smooth_l1_loss(cosines(student), cosines(teacher.detach()), reduction="none").mean((1, 2))
    return each if per_sample else each.mean()
