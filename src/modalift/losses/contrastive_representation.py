"""Contrastive representation distillation: features of one clip by two networks against those of different clips."""

from __future__ import annotations

import torch
from torch import Tensor

from modalift.losses.full_precision import full_precision


@full_precision
def contrastive_representation(positive: Tensor, negatives: Tensor, clips: int, *, per_sample: bool = False) -> Tensor:
    r"""Noise-contrastive estimation of whether two features are of one clip (CRD).

    .. math:: L = -\log \frac{h_+}{h_+ + M/N} - \sum_{k=1}^{M} \log \frac{M/N}{h_k + M/N}

    where :math:`h = \exp(v^\top w / \tau) / Z` is the similarity of features of two networks, of the same clip
    (:math:`h_+`) or of M other clips drawn from a set of N. The arguments are the *logarithms* of h: the exponential
    overflows half precision and, at :math:`\tau = .07`, nearly single precision too.

    Args:
        positive: ``log h`` of the clip's own pair, ``(B,)``.
        negatives: ``log h`` of the drawn pairs, ``(B, M)``.
        clips: N, the number of clips of the training set.
        per_sample: ``(B,)`` instead of the mean.

    The scheme holds the memory bank and the normalizing constant Z, and draws the negatives. This is one direction; CRD adds
    the other, with the networks exchanged.

    Source: Tian, Krishnan, Isola, *Contrastive representation distillation*, ICLR 2020, equations 10 to 19; computed as
    log-sigmoids, so that the authors' 1e-7 in the denominators is not needed.

    Example:
        >>> contrastive_representation(torch.tensor([9.0]), torch.tensor([[-9.0, -9.0]]), clips=4).item() < 1e-3
        True
    """
    noise = torch.log(torch.tensor(negatives.shape[1] / clips, dtype=positive.dtype, device=positive.device))
    each = -torch.nn.functional.logsigmoid(positive - noise) - torch.nn.functional.logsigmoid(noise - negatives).sum(1)
    return each if per_sample else each.mean()
