"""Decoupled distillation (DKD): the divergence of target and non-target classes, weighted separately."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modalift.losses.full_precision import full_precision


@full_precision
def decoupled_parts(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor,
                    temperature: float = 4.0) -> tuple[Tensor, Tensor]:
    r"""The target-class and the non-target-class part of Hinton's divergence, for each clip.

    .. math::
        \mathrm{TCKD} = T^2\, \mathrm{KL}(b^t \,\|\, b^s), \qquad \mathrm{NCKD} = T^2\, \mathrm{KL}(\hat p^t \,\|\, \hat p^s)

    where :math:`b = (p_y, 1 - p_y)` is the binary prediction of the label, and :math:`\hat p` the softmax over the other
    classes alone, both at temperature T. Together they are Hinton's divergence:
    :math:`T^2\,\mathrm{KL}(p^t \| p^s) = \mathrm{TCKD} + (1 - p^t_y)\,\mathrm{NCKD}`.

    With :math:`s = \mathrm{logsumexp}_{k \ne y} z_k / T`, both logarithms of b are log-sigmoids of
    :math:`\pm(z_y / T - s)`: accurate where the usual softmax underflows, and without a large constant in place of the masked
    class.

    Shapes: logits ``(B, K)`` with K >= 2, labels ``(B,)``; returns ``(B,)`` twice. NCKD of two classes is 0.

    Source: Zhao et al., *Decoupled knowledge distillation*, CVPR 2022, equations 5 and 6.
    """
    own = labels.unsqueeze(1)
    rest = torch.arange(student_logits.shape[1] - 1, device=labels.device).expand(len(labels), -1)
    rest = rest + (rest >= own)  # every class but the clip's own

    def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
        scaled = logits / temperature
        others = scaled.gather(1, rest)  # (B, K - 1)
        lead = scaled.gather(1, own).squeeze(1) - others.logsumexp(1)
        return torch.stack([F.logsigmoid(lead), F.logsigmoid(-lead)], 1), F.log_softmax(others, 1)

    (binary_s, others_s), (binary_t, others_t) = (
        log_probabilities(student_logits), log_probabilities(teacher_logits.detach()))

    def divergence(predicted: Tensor, target: Tensor) -> Tensor:
        return temperature**2 * F.kl_div(predicted, target, reduction="none", log_target=True).sum(1)

    return divergence(binary_s, binary_t), divergence(others_s, others_t)


def decoupled(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, tckd_weight: float = 1.0,
              nckd_weight: float = 8.0, temperature: float = 4.0, *, per_sample: bool = False) -> Tensor:
    r"""Decoupled knowledge distillation (DKD).

    .. math:: L = \alpha\, \mathrm{TCKD} + \beta\, \mathrm{NCKD}

    where :math:`\alpha` is ``tckd_weight``, :math:`\beta` is ``nckd_weight``, and the parts are those of
    :func:`decoupled_parts`. In Hinton's loss the weight of the second part falls with the teacher's confidence; here it is set.

    Shapes: logits ``(B, K)``, labels ``(B,)``; returns a scalar, or ``(B,)`` with ``per_sample``. The teacher's logits
    get no gradient.

    Source: Zhao et al., *Decoupled knowledge distillation*, CVPR 2022, equation 7; MGCAM+DKD, equations 7 to 9, with
    .7 and .35.

    Example:
        >>> z = torch.tensor([[2.0, 0.0, 0.0]])
        >>> decoupled(z, z, torch.tensor([0])).item()
        0.0
    """
    tckd, nckd = decoupled_parts(student_logits, teacher_logits, labels, temperature)
    each = tckd_weight * tckd + nckd_weight * nckd
    return each if per_sample else each.mean()
