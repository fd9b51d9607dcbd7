"""MTUT: networks of all sensors learn together; at each moment the better one teaches the worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import focal_weight, semantic_alignment
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.projection import check_stage
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, joint_mean, label_loss, labels_of, watch
from modalift.signatures import Count, NonNegative, Positive


@scheme("mtut")
class MTUT(Scheme):
    r"""Multimodal training, unimodal testing.

    .. math::
        L = \sum_m \Big[ \ell^m_{cls} + \lambda \sum_{n \ne m} \ell^{m,n}_{SSA} \Big], \qquad
        \ell^{m,n}_{SSA} = \rho_{m,n}\, \|\mathrm{corr}(F_m) - \mathrm{corr}(F_n)\|_F^2

    where :math:`\rho_{m,n} = \max(e^{\beta(\ell^m - \ell^n)} - 1, 0)` is detached, as is everything of network n in the
    term of network m: :math:`\ell^m` trains network m alone.

    Args:
        learners: one network a sensor; each may ship.
        weight: :math:`\lambda`.
        focus: :math:`\beta`.
        limit: largest focal weight; the exponential runs away on hard clips.
        focal: False sets every :math:`\rho` to 1 (the paper's ablation).
        alone: share of training with labels only, before alignment begins (the paper: 60 of 75 epochs). The last epoch aligns
            unless it is 1.
        stage: name of the aligned map; empty for each network's deepest.
        reduction, reference: see :func:`~modalift.losses.semantic_alignment`.
        rho_grad: whether :math:`\rho` keeps the gradient of :math:`\ell^m`, so that m also learns where n is the better one;
            never that of :math:`\ell^n`.

    Source: Abavisani, Joze, Patel, CVPR 2019, equations 1-4. Where a clip has no label its losses are unknown; its
    focal weight is then that of the batch: from the mean losses of the labeled clips that both networks saw.
    """

    examples = ({}, {"focal": False, "reduction": "mean"})

    def __init__(self, learners: Mapping[str, Recognizer], *, weight: NonNegative = 0.05, focus: Positive = 2.0,
                 limit: Positive = 10.0, focal: bool = True, alone: Annotated[float, Ge(0), Le(1)] = 0.8, stage: str = "",
                 reduction: Literal["sum", "mean"] = "sum", reference: Count = 392, rho_grad: bool = False) -> None:
        super().__init__()
        if len(learners) < 2:
            raise ModaliftError(f"scheme 'mtut' lets networks teach each other, and there is {len(learners)} - add another one"
                                " to networks")
        self.learners = nn.ModuleDict(learners)
        self.weight, self.focus, self.limit, self.focal, self.alone = weight, focus, limit, focal, alone
        self.reduction, self.reference, self.rho_grad = reduction, reference, rho_grad
        self.stages = {k: check_stage(net, stage or net.last_stage, "stage") for k, net in learners.items()}

    @property
    def idle(self) -> dict[str, str]:
        return ({} if self.focal else dict.fromkeys(("focus", "limit", "rho_grad"), "with focal=false")) | (
            {"reference": "with reduction=mean"} if self.reduction == "mean" else {})

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = {k: watch(net, batch, [self.stages[k]]) for k, net in self.roles.items()}
        terms: Terms = {f"ce/{k}": (1.0, label_loss(o, batch)) for k, o in seen.items()}
        begins = min(self.alone * progress.epochs, progress.epochs - (self.alone < 1))  # the last epoch at the latest
        weight = self.weight if progress.epoch >= begins else 0.0
        for m in seen:
            for n in seen:
                if n == m:
                    continue
                own, other = common(seen[m], seen[n])
                with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):  # while alone, only for the log
                    distance = semantic_alignment(own.maps[self.stages[m]], other.maps[self.stages[n]], self.reduction,
                                                  reference=self.reference, eps=1e-5, per_sample=True)
                    rho = self.focal_weights(own, other, batch)
                terms[f"align/{n}>{m}"] = (weight, average(rho * distance))
                terms[f"distance/{n}>{m}"] = (0.0, average(distance.detach()))
                terms[f"focus/{n}>{m}"] = (0.0, average(rho.detach()))
        return terms

    def focal_weights(self, own: Observation, other: Observation, batch: Batch) -> Tensor:
        """Equation 3 for each clip ``(B,)``; see the class for clips without a label."""
        if not self.focal:
            return torch.ones(len(own), device=own.logits.device)
        labels, labeled = labels_of(own, batch)
        mine, theirs = (F.cross_entropy(o.logits.float(), labels.clamp_min(0), reduction="none") for o in (own, other))
        each = focal_weight(mine, theirs, self.focus, limit=self.limit, rho_grad=self.rho_grad)
        joint = focal_weight(joint_mean(mine, labeled), joint_mean(theirs, labeled), self.focus, limit=self.limit)
        return torch.where(labeled, each, joint)
