"""Losses of identities: the batch-hard triplet loss, and SDA's relation consistency."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modalift.losses.full_precision import full_precision
from modalift.losses.maps import l2_norm


def pairwise_distances(features: Tensor) -> Tensor:
    """Euclidean distances ``(B, B)`` of features ``(B, C)``, from differences: accurate with any common offset."""
    return l2_norm(features.unsqueeze(0) - features.unsqueeze(1)).squeeze(-1)


def _hardest(apart: Tensor, identities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the farthest clip of the same identity and the nearest of another, and which anchors have both."""
    same = identities.unsqueeze(0) == identities.unsqueeze(1)
    other_self = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    usable = other_self.any(1) & ~same.all(1)
    far = torch.where(same, apart.detach(), -torch.inf).argmax(1)
    near = torch.where(same, torch.inf, apart.detach()).argmin(1)
    return far, near, usable


def _mean_over(values: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable, values, torch.zeros_like(values)).sum() / usable.sum().clamp_min(1)


@full_precision
def batch_hard_triplet(embeddings: Tensor, identities: Tensor, margin: float | None = 0.3, *,
                       per_sample: bool = False) -> Tensor:
    r"""Triplet loss of the hardest positive and negative in a batch.

    .. math:: L = \overline{\max\big(0,\ d(a, p^*) - d(a, n^*) + m\big)}

    where :math:`p^*` is the farthest clip of the anchor's identity, :math:`n^*` the nearest of another, d the Euclidean
    distance and m the ``margin``; with ``margin=None`` the softplus of :math:`d(a,p^*) - d(a,n^*)`. The mean is over
    anchors that have another clip of their identity and one of another; where none has, the loss is 0. Identities may
    have unequal numbers of clips.

    Shapes: ``(B, C)`` and ``(B,)``; returns a scalar, or ``(B,)`` with ``per_sample`` (0 for anchors without a triplet).

    Source: Hermans, Beyer, Leibe, *In defense of the triplet loss*, 2017, equation 5; MTCD, equation 3. The numbers
    equal those of the usual implementation of person re-identification if all identities have equally many clips;
    with unequal numbers that implementation mixes rows.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
        >>> batch_hard_triplet(x, torch.tensor([0, 0, 1, 1]), margin=4.0).item()
        0.5
    """
    apart = pairwise_distances(embeddings)
    far, near, usable = _hardest(apart, identities)
    lead = apart.gather(1, far[:, None]).squeeze(1) - apart.gather(1, near[:, None]).squeeze(1)
    each = F.softplus(lead) if margin is None else F.relu(lead + margin)
    return torch.where(usable, each, torch.zeros_like(each)) if per_sample else _mean_over(each, usable)


@full_precision
def relation_consistency(translated: Tensor, source: Tensor, identities: Tensor) -> Tensor:
    r"""Relation consistency: translation keeps the relations between identities (SDA).

    .. math:: L = -\overline{\sum_{r \in \{p, n\}} \pi_r(d^{src}) \log \pi_r(d^{tr})}, \qquad
              \pi(d) = \mathrm{softmax}(d_{p^*}, d_{n^*})

    where the hardest positive :math:`p^*` and negative :math:`n^*` of each anchor are those of the translated images'
    features, and the target is the same function of the source images' features for the same pairs. Both encoders are frozen;
    the gradient reaches the generator through the translated images.

    Shapes: ``(B, C)``, ``(B, C')`` and ``(B,)``; returns a scalar, 0 where no anchor has both.

    Source: Ge et al., *Structured domain adaptation*, 2020, equation 5, as in its public code.

    Example:
        >>> x = torch.rand(4, 3)
        >>> relation_consistency(x, x, torch.tensor([0, 0, 1, 1])).item() > 0
        True
    """
    apart, reference = pairwise_distances(translated), pairwise_distances(source.detach())
    far, near, usable = _hardest(apart, identities)
    pair = torch.stack([far, near], 1)
    each = -(torch.softmax(reference.gather(1, pair), 1) * F.log_softmax(apart.gather(1, pair), 1)).sum(1)
    return _mean_over(each, usable)
