"""Contrastive representation distillation: the two sensors' features of one clip belong together."""

from __future__ import annotations

import torch
from torch import Tensor

from modalift.losses.precision import full_precision


@full_precision
def contrastive_representation(positive: Tensor, negatives: Tensor, clips: int, *, per_sample: bool = False) -> Tensor:
    r"""Whether two features come from one clip, by noise-contrastive estimation (CRD).

    .. math:: L = -\log \frac{h_+}{h_+ + M/N} - \sum_{k=1}^{M} \log \frac{M/N}{h_k + M/N}

    where :math:`h = \exp(v^\top w / \tau) / Z` says how well a feature of the one network fits one of the other, of the
    same clip (:math:`h_+`) or of M others drawn from the N clips that there are. Hand in the *logarithms* of h: the
    exponential overflows half precision, and at :math:`\tau = .07` nearly single precision too.

    Args:
        positive: ``log h`` of the clip's own pair, ``(B,)``.
        negatives: ``log h`` of the drawn pairs, ``(B, M)``.
        clips: N.
        per_sample: ``(B,)`` instead of the mean.

    The memory of features, the normalizing constant Z and the drawing are the scheme's. One direction; the method adds
    the other, with the roles of the networks swapped.

    Source: Tian, Krishnan, Isola, *Contrastive representation distillation*, ICLR 2020, equations 10 to 19; computed as
    log-sigmoids, so that the authors' 1e-7 in the denominators is not needed.

    Example:
        >>> contrastive_representation(torch.tensor([9.0]), torch.tensor([[-9.0, -9.0]]), clips=4).item() < 1e-3
        True
    """
    noise = torch.log(torch.tensor(negatives.shape[1] / clips, dtype=positive.dtype, device=positive.device))
    each = -torch.nn.functional.logsigmoid(positive - noise) - torch.nn.functional.logsigmoid(noise - negatives).sum(1)
    return each if per_sample else each.mean()
