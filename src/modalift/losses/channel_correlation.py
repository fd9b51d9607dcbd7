"""Channel correlation (CCSKD): distance between channel means, and the weight of a clip that the teacher recognizes."""

from __future__ import annotations

import torch
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.losses.full_precision import full_precision


@full_precision
def channel_correlation(student_map: Tensor, teacher_map: Tensor, *, per_sample: bool = False) -> Tensor:
    r"""Distance between the channels' means of two maps: the intra-sample part of CCSKD.

    .. math:: L = \frac{1}{BC} \sum_b \|\bar f^s_b - \bar f^t_b\|_2^2

    where :math:`\bar f` is the mean of the map over T, H, W, ``(B, C)``. The part between samples compares the
    same vectors by :func:`~modalift.losses.relational_distance` plus twice :func:`~modalift.losses.relational_angle`.

    Shapes: ``(B, C, ...)`` each with equal C; returns a scalar, or ``(B,)`` with ``per_sample``.

    Raises:
        ModaliftError: maps of different numbers of channels (project the student's first).

    Source: Gou et al., *Channel correlation-based selective knowledge distillation*, IEEE TCDS 2023; as in the
    authors' code.

    Example:
        >>> x = torch.rand(2, 3, 1, 4, 4)
        >>> round(channel_correlation(x, x + 1).item(), 4)
        1.0
    """
    if student_map.shape[1] != teacher_map.shape[1]:
        raise ModaliftError(f"channel_correlation: {student_map.shape[1]} channels against {teacher_map.shape[1]} - project "
                            "the student's map to the teacher's channels first")
    own, shown = (f.flatten(2).mean(2) for f in (student_map, teacher_map.detach()))
    each = (own - shown).square().mean(1)
    return each if per_sample else each.mean()


def selective_weight(teacher_logits: Tensor, labels: Tensor, decay: float = 1.0) -> Tensor:
    r"""Weight of the teacher's prediction for each clip: 2 if it is correct, else 1.

    .. math:: m_b = (1 + [\arg\max z^t_b = y_b])\, \delta

    with the decay :math:`\delta` over training (.9 every 30 epochs in the paper). It multiplies the divergence of each clip;
    the authors' code multiplies both log-probabilities by it instead, which is not a divergence and can be negative.

    Shapes: ``(B, K)`` and ``(B,)`` -> ``(B,)``.

    Example:
        >>> selective_weight(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])).tolist()
        [2.0, 1.0]
    """
    right = teacher_logits.detach().argmax(1) == labels
    return (1.0 + right.to(torch.float32)) * decay
