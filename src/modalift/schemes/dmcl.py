"""DMCL: for every clip the network that understands it best teaches the others."""

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
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, joint_mean, labels_of, watch
from modalift.signatures import NonNegative, Positive


@scheme("dmcl")
class DMCL(Scheme):
    r"""Distillation multiple choice learning.

    .. math::
        w_b = \arg\min_m \mathrm{CE}(z^m_b, y_b), \qquad
        L_m = \frac1B \sum_b \begin{cases} \mathrm{CE}(z^m_b, y_b) & m = w_b \\
        \gamma\, \mathrm{CE}(z^m_b, y_b) + \lambda\, T^2\, \mathrm{KL}(p^{w_b}_b \,\|\, p^m_b) & \text{else} \end{cases}

    where p is the softmax of logits over T, and the winner's is a target. The winner is chosen clip by clip, among the
    sensors that recorded the clip; equals do not teach each other.

    Args:
        learners: one network a sensor; each may ship.
        weight: :math:`\lambda`, what losers learn from the winner.
        losers: :math:`\gamma`, what losers learn from the label.
        temperature: T.

    Source: Garcia, Bargal, Ablavsky, Morerio, Murino, Sclaroff, *Distillation multiple choice learning for multimodal action
    recognition*, WACV 2021; weights and temperature are the defaults of the authors' code (github.com/ncgarcia/DMCL). It
    has the cross-entropy with soft answers, whose gradient is that of the divergence. Deviations: where a clip has no label
    its losses are unknown, and who wins is told by the batch's mean losses of labeled clips (the authors label every clip);
    terms average over the clips that winner and loser both saw.
    """

    def __init__(self, learners: Mapping[str, Recognizer], *, weight: NonNegative = 1.0, losers: NonNegative = 1.0,
                 temperature: Positive = 2.0) -> None:
        super().__init__()
        if len(learners) < 2:
            raise ModaliftError(f"scheme 'dmcl' lets networks choose among each other, and there is {len(learners)} - add"
                                " another one to networks")
        self.learners = nn.ModuleDict(learners)
        self.weight, self.losers, self.temperature = weight, losers, temperature

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = {k: watch(net, batch) for k, net in self.roles.items()}
        losses = {k: self.losses(o, batch) for k, o in seen.items()}
        lowest = torch.stack([self.placed(losses[k], o, batch) for k, o in seen.items()]).amin(0)  # (B,) of the winners
        terms: Terms = {}
        for m, o in seen.items():
            labels, labeled = labels_of(o, batch)
            each = F.cross_entropy(o.logits.float(), labels.clamp_min(0), reduction="none")
            won = losses[m] <= lowest[o.indices]
            terms[f"ce/{m}"] = (1.0, average(torch.where(won, each, self.losers * each), labeled))
            terms[f"wins/{m}"] = (0.0, average(won.float()))
        for m in seen:
            for n in seen:
                if n == m:
                    continue
                own, other = common(seen[m], seen[n])
                mine, best = (self.placed(losses[k], seen[k], batch)[own.indices] for k in (m, n))
                lost = (best <= lowest[own.indices]) & (mine > best)
                each = soft_target(own.logits, other.logits, self.temperature, per_sample=True)
                terms[f"answers/{n}>{m}"] = (self.weight, average(torch.where(lost, each, torch.zeros_like(each))))
        return terms

    def losses(self, seen: Observation, batch: Batch) -> Tensor:
        """How badly a network does on each clip that it saw, ``(N,)``, without gradient."""
        labels, labeled = labels_of(seen, batch)
        each = F.cross_entropy(seen.logits.detach().float(), labels.clamp_min(0), reduction="none")
        return torch.where(labeled, each, joint_mean(each, labeled))

    def placed(self, values: Tensor, seen: Observation, batch: Batch) -> Tensor:
        """Values of the clips that a network saw as ``(B,)``; infinite for the others, which it cannot win."""
        return values.new_full((len(batch),), float("inf")).index_copy(0, seen.indices, values)
