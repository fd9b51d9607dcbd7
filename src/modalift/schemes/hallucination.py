"""Hallucination: a network of the deployed sensor predicts the features of a network of the privileged sensor."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modalift.losses import soft_target
from modalift.losses.maps import same_grid
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.projection import to_channels
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    label_loss,
    masked_mean,
    observe,
    observe_frozen,
    on_common_clips,
)
from modalift.signatures import NonNegative, Positive, Share


@scheme("hallucination")
class Hallucination(Scheme):
    r"""Modality hallucination by generalized distillation: step 3 of the published four.

    .. math::
        L = (1 - \alpha) \big[(1 - \lambda)\, \mathrm{CE}(z^h, y) + \lambda\, \mathrm{KL}(p^t \| p^h)\big]
        + \alpha\, \mu\, \|\sigma(F_h) - \sigma(F_t)\|_2^2

    divided by :math:`(1 - \alpha)(1 - \lambda)`, so that labels have weight 1 as in every scheme. F are the deepest maps,
    :math:`\sigma` is the logistic function (maps of two networks differ in scale), and p the softmax of logits over T.

    The steps: the teacher is trained on its labels (``single``); here it is frozen and teaches the student, which is deployed
    alone. The published product is a *pair*: this network and a plain one of the same sensor, whose predictions are averaged.
    ``modalift fuse`` evaluates that pair, and `fusion` (``late``, ``own_ce_weight: 0``) fine-tunes it as the published step 4.

    Args:
        student: the hallucination network: reads the deployed sensor. The authors initialize it with the teacher's weights
            (``networks.student.init``), if both are of one family.
        teacher: reads the privileged sensor; trained, frozen.
        kd_share: :math:`\lambda`, the share of the teacher's predictions against labels.
        feature_share: :math:`\alpha`, the share of the feature distance against both.
        feature_weight: :math:`\mu`, multiplies the feature distance.
        kd_temperature: T.
        reduction: ``sum`` over the elements of the map, as published, or their ``mean``, which needs a far larger
            ``feature_weight``.

    Source: Garcia, Morerio, Murino, *Modality distillation with multiple stream networks for action recognition*, ECCV 2018;
    every number is that of the authors' code (github.com/ncgarcia/modality-distillation). Its divergence is not multiplied
    by :math:`T^2`, and neither is this one. Deviations: the distance is a mean over clips (theirs sums over the batch too:
    with their batches of 5 use ``feature_weight: 0.05``); where channels differ, the student's map is projected; where grids
    differ, the larger is average-pooled to the smaller; the multiplicative connections between streams of step 2 and the
    adversarial variant of the later journal paper are left out.
    """

    frozen_roles = ("teacher",)

    def __init__(self, student: Recognizer, teacher: Recognizer, *, kd_share: Share = 0.5, feature_share: Share = 0.5,
                 feature_weight: NonNegative = 0.01, kd_temperature: Positive = 10.0,
                 reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.kd_temperature, self.reduction = kd_temperature, reduction
        self.kd_weight = kd_share / (1 - kd_share)  # both relative to the weight of labels
        self.feature_weight = feature_share * feature_weight / ((1 - feature_share) * (1 - kd_share))
        self.project = to_channels(student.stages[student.last_stage].channels, teacher.stages[teacher.last_stage].channels)

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch, [self.student.last_stage])
        own, shown = on_common_clips(seen, observe_frozen(self.teacher, batch, [self.teacher.last_stage]))
        divergence = soft_target(own.logits, shown.logits, self.kd_temperature, per_sample=True) / self.kd_temperature**2
        F_h, F_t = own.maps[self.student.last_stage], shown.maps[self.teacher.last_stage]
        return {"ce/student": (1.0, label_loss(seen, batch)),
                "kd/teacher>student": (self.kd_weight, masked_mean(divergence)),
                "feature/teacher>student": (self.feature_weight, masked_mean(self.distance(self.project(F_h), F_t)))}

    def distance(self, own_map: Tensor, other_map: Tensor) -> Tensor:
        """The squared distance of two maps after the logistic function, ``(B,)``, in float32: half precision overflows."""
        own, other = same_grid(own_map.float(), other_map.detach().float())
        each = (torch.sigmoid(own) - torch.sigmoid(other)).square().flatten(1)
        return each.sum(1) if self.reduction == "sum" else each.mean(1)
