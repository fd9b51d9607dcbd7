"""Hinton's soft target: the divergence of softened predictions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modalift.losses.full_precision import full_precision


@full_precision
def soft_target(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0, *,
                per_sample: bool = False) -> Tensor:
    r"""Kullback-Leibler divergence of the student's softened prediction from the teacher's.

    .. math:: L = T^2 \, \frac{1}{B} \sum_b \mathrm{KL}\big(\mathrm{softmax}(z^t_b / T) \,\|\, \mathrm{softmax}(z^s_b / T)\big)

    where :math:`z^s, z^t` are the logits and :math:`T` the temperature; :math:`T^2` keeps the size of the gradient.
    The teacher's logits get no gradient.

    Shapes: logits ``(B, K)`` each; returns a scalar, or ``(B,)`` with ``per_sample``.

    Source: Hinton, Vinyals, Dean, *Distilling the knowledge in a neural network*, 2015, section 2. The mean is over
    clips, not over clips and classes (which would make the term K times smaller).

    Example:
        >>> import torch
        >>> soft_target(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item()
        0.0
    """
    target = F.log_softmax(teacher_logits.detach() / temperature, 1)
    predicted = F.log_softmax(student_logits / temperature, 1)
    each = temperature**2 * F.kl_div(predicted, target, reduction="none", log_target=True).sum(1)
    return each if per_sample else each.mean()
