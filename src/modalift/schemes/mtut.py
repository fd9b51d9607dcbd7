"""MTUT: networks of all sensors are trained together; for each clip the better one teaches the worse."""

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
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    label_loss,
    labels_of,
    masked_mean,
    mean_across_ranks,
    observe,
    on_common_clips,
)
from modalift.signatures import Count, NonNegative, Positive


@scheme("mtut")
class MTUT(Scheme):
    r"""Multimodal training, unimodal testing.

    .. math::
        L = \sum_m \Big[ \ell^m_{cls} + \lambda \sum_{n \ne m} \ell^{m,n}_{SSA} \Big], \qquad
        \ell^{m,n}_{SSA} = \rho_{m,n}\, \|\mathrm{corr}(F_m) - \mathrm{corr}(F_n)\|_F^2

    where the focal weight :math:`\rho_{m,n} = \max(e^{\beta(\ell^m - \ell^n)} - 1, 0)` is detached, as is everything of
    network n in the term of network m: :math:`\ell^{m,n}_{SSA}` trains network m alone.

    Args:
        learners: one network per sensor; each may be deployed.
        ssa_weight: :math:`\lambda`.
        focal_beta: :math:`\beta`.
        focal_limit: largest focal weight; the exponential grows without bound on hard clips.
        focal: False sets every :math:`\rho` to 1 (the paper's ablation).
        align_after: share of training without alignment, with labels only (the paper: 60 of 75 epochs). The last epoch always
            aligns, unless this is 1.
        stage: name of the aligned stage; empty for each network's deepest.
        reduction, reference: see :func:`~modalift.losses.semantic_alignment`.
        rho_grad: whether :math:`\rho` keeps the gradient of :math:`\ell^m`, which gives clips that n recognizes better a
            larger weight in m's loss; the gradient of :math:`\ell^n` is never kept.

    Source: Abavisani, Joze, Patel, CVPR 2019, equations 1-4. The losses of a clip without a label are unknown; its focal
    weight is that of the mean losses over the labeled clips of the batch that both networks saw.
    """

    examples = ({}, {"focal": False, "reduction": "mean"})

    def __init__(self, learners: Mapping[str, Recognizer], *, ssa_weight: NonNegative = 0.05, focal_beta: Positive = 2.0,
                 focal_limit: Positive = 10.0, focal: bool = True, align_after: Annotated[float, Ge(0), Le(1)] = 0.8,
                 stage: str = "", reduction: Literal["sum", "mean"] = "sum", reference: Count = 392,
                 rho_grad: bool = False) -> None:
        super().__init__()
        if len(learners) < 2:
            raise ModaliftError(f"scheme 'mtut' lets networks teach each other, and there is {len(learners)} - add another one"
                                " to networks")
        self.learners = nn.ModuleDict(learners)
        self.ssa_weight, self.align_after, self.focal = ssa_weight, align_after, focal
        self.focal_beta, self.focal_limit, self.rho_grad = focal_beta, focal_limit, rho_grad
        self.reduction, self.reference = reduction, reference
        self.stages = {k: check_stage(net, stage or net.last_stage, "stage") for k, net in learners.items()}

    @property
    def unused_settings(self) -> dict[str, str]:
        return ({} if self.focal else dict.fromkeys(("focal_beta", "focal_limit", "rho_grad"), "with focal=false")) | (
            {"reference": "with reduction=mean"} if self.reduction == "mean" else {})

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = {k: observe(net, batch, [self.stages[k]]) for k, net in self.roles.items()}
        terms: Terms = {f"ce/{k}": (1.0, label_loss(o, batch)) for k, o in seen.items()}
        first = min(self.align_after * progress.epochs, progress.epochs - (self.align_after < 1))
        weight = self.ssa_weight if progress.epoch >= first else 0.0
        for m in seen:
            for n in seen:
                if n == m:
                    continue
                own, other = on_common_clips(seen[m], seen[n])
                with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):  # before alignment: for the log only
                    distance = semantic_alignment(own.maps[self.stages[m]], other.maps[self.stages[n]], self.reduction,
                                                  reference=self.reference, eps=1e-5, per_sample=True)
                    rho = self.rho(own, other, batch)
                terms[f"ssa/{n}>{m}"] = (weight, masked_mean(rho * distance))
                terms[f"ssa_distance/{n}>{m}"] = (0.0, masked_mean(distance.detach()))
                terms[f"focal_weight/{n}>{m}"] = (0.0, masked_mean(rho.detach()))
        return terms

    def rho(self, own: Observation, other: Observation, batch: Batch) -> Tensor:
        """Equation 3 for each clip, ``(B,)``; clips without a label: see the class."""
        if not self.focal:
            return torch.ones(len(own), device=own.logits.device)
        labels, labeled = labels_of(own, batch)
        mine, theirs = (F.cross_entropy(o.logits.float(), labels.clamp_min(0), reduction="none") for o in (own, other))
        each = focal_weight(mine, theirs, self.focal_beta, limit=self.focal_limit, rho_grad=self.rho_grad)
        means = mean_across_ranks(mine, labeled), mean_across_ranks(theirs, labeled)
        return torch.where(labeled, each, focal_weight(*means, self.focal_beta, limit=self.focal_limit))
