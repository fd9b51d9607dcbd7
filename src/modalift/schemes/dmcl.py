"""DMCL: for each clip the network with the lowest loss teaches the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import soft_target
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    labels_of,
    masked_mean,
    mean_across_ranks,
    observe,
    on_common_clips,
)
from modalift.signatures import NonNegative, Positive


@scheme("dmcl")
class DMCL(Scheme):
    r"""Distillation multiple choice learning.

    .. math::
        w_b = \arg\min_m \mathrm{CE}(z^m_b, y_b), \qquad
        L_m = \frac1B \sum_b \begin{cases} \mathrm{CE}(z^m_b, y_b) & m = w_b \\
        \gamma\, \mathrm{CE}(z^m_b, y_b) + \lambda\, T^2\, \mathrm{KL}(p^{w_b}_b \,\|\, p^m_b) & \text{else} \end{cases}

    where p is the softmax of logits over T, and the winner's is detached. The winner is chosen for each clip, among the
    sensors that recorded it; networks of equal loss do not teach each other.

    Args:
        learners: one network per sensor; each may be deployed.
        kd_weight: :math:`\lambda`, weight of the divergence from the winner.
        loser_ce_weight: :math:`\gamma`, weight of the labels for all but the winner.
        kd_temperature: T.

    Source: Garcia, Bargal, Ablavsky, Morerio, Murino, Sclaroff, *Distillation multiple choice learning for multimodal action
    recognition*, WACV 2021; weights and temperature are the defaults of the authors' code (github.com/ncgarcia/DMCL). It
    has the cross-entropy with soft targets, whose gradient is that of the divergence. Deviations: for a clip without a label
    the winner is the network with the lowest mean loss over the labeled clips of the batch (the authors label every clip);
    terms are means over the clips that both winner and loser saw.
    """

    def __init__(self, learners: Mapping[str, Recognizer], *, kd_weight: NonNegative = 1.0, loser_ce_weight: NonNegative = 1.0,
                 kd_temperature: Positive = 2.0) -> None:
        super().__init__()
        if len(learners) < 2:
            raise ModaliftError(f"scheme 'dmcl' needs two networks or more, and there is {len(learners)} - add another one to"
                                " networks")
        self.learners = nn.ModuleDict(learners)
        self.kd_weight, self.loser_ce_weight, self.kd_temperature = kd_weight, loser_ce_weight, kd_temperature

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = {k: observe(net, batch) for k, net in self.roles.items()}
        losses = {k: self.losses(o, batch) for k, o in seen.items()}
        lowest = torch.stack([self.per_clip(losses[k], o, batch) for k, o in seen.items()]).amin(0)  # (B,) of the winners
        terms: Terms = {}
        for m, o in seen.items():
            labels, labeled = labels_of(o, batch)
            each = F.cross_entropy(o.logits.float(), labels.clamp_min(0), reduction="none")
            wins = losses[m] <= lowest[o.indices]
            terms[f"ce/{m}"] = (1.0, masked_mean(torch.where(wins, each, self.loser_ce_weight * each), labeled))
            terms[f"win_rate/{m}"] = (0.0, masked_mean(wins.float()))
        for m in seen:
            for n in seen:
                if n == m:
                    continue
                own, other = on_common_clips(seen[m], seen[n])
                mine, best = (self.per_clip(losses[k], seen[k], batch)[own.indices] for k in (m, n))
                lost = (best <= lowest[own.indices]) & (mine > best)
                each = soft_target(own.logits, other.logits, self.kd_temperature, per_sample=True)
                terms[f"kd/{n}>{m}"] = (self.kd_weight, masked_mean(torch.where(lost, each, torch.zeros_like(each))))
        return terms

    def losses(self, seen: Observation, batch: Batch) -> Tensor:
        """The loss of each clip that a network saw, ``(N,)``, without gradient; the labeled clips' mean if it has no label."""
        labels, labeled = labels_of(seen, batch)
        each = F.cross_entropy(seen.logits.detach().float(), labels.clamp_min(0), reduction="none")
        return torch.where(labeled, each, mean_across_ranks(each, labeled))

    def per_clip(self, values: Tensor, seen: Observation, batch: Batch) -> Tensor:
        """Values of the clips that a network saw as ``(B,)``; infinite for the other clips, which it cannot win."""
        return values.new_full((len(batch),), float("inf")).index_copy(0, seen.indices, values)
