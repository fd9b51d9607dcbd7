"""Hallucination: a network of the sensor that ships imagines what the privileged one would have seen."""

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
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, label_loss, look, watch
from modalift.signatures import NonNegative, Positive, Share


@scheme("hallucination")
class Hallucination(Scheme):
    r"""Modality hallucination by generalized distillation: step 3 of the published four.

    .. math::
        L = (1 - \alpha) \big[(1 - \lambda)\, \mathrm{CE}(z^h, y) + \lambda\, \mathrm{KL}(p^t \| p^h)\big]
        + \alpha\, \mu\, \|\sigma(F_h) - \sigma(F_t)\|_2^2

    divided by :math:`(1 - \alpha)(1 - \lambda)`, so that labels weigh 1 as everywhere here. F are the deepest maps,
    :math:`\sigma` is the logistic function (maps of two networks differ in scale), and p the softmax of logits over T.

    The steps: the teacher learns by its labels (``single``), here it is frozen and the student imitates it; the student
    ships alone. The published product is a *pair*: this network and a plain one of the same sensor, their answers averaged.
    ``modalift fuse`` gives that pair's answer, and `fusion` (``late``, ``own: 0``) trains it on as the published step 4.

    Args:
        student: the hallucination network: reads the sensor that ships. The authors start it from the teacher's weights
            (``networks.student.init``), where both are of one family.
        teacher: reads the privileged sensor; trained, frozen.
        imitate: :math:`\lambda`, the share of the teacher's answers against labels.
        near: :math:`\alpha`, the share of the distance against both.
        scale: :math:`\mu`.
        temperature: T.
        reduction: ``sum`` over the map's numbers, as published, or their ``mean``, which wants a far larger ``scale``.

    Source: Garcia, Morerio, Murino, *Modality distillation with multiple stream networks for action recognition*, ECCV 2018;
    every number is that of the authors' code (github.com/ncgarcia/modality-distillation). Its divergence is not multiplied
    by :math:`T^2`, and neither is this one. Deviations: the distance is a mean over clips (theirs sums over the batch too:
    with their batches of 5 use ``scale: 0.05``); where channels differ, the student's map is projected; where grids do, the
    larger is averaged to the smaller; the multiplicative links between streams of step 2 are left out, as the teacher stands
    alone; the adversarial variant of the later journal paper is not here.
    """

    frozen_roles = ("teacher",)

    def __init__(self, student: Recognizer, teacher: Recognizer, *, imitate: Share = 0.5, near: Share = 0.5,
                 scale: NonNegative = 0.01, temperature: Positive = 10.0, reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.imitate, self.temperature, self.reduction = imitate / (1 - imitate), temperature, reduction
        self.near = near * scale / ((1 - near) * (1 - imitate))
        self.project = to_channels(student.stages[student.last_stage].channels, teacher.stages[teacher.last_stage].channels)

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch, [self.student.last_stage])
        own, shown = common(seen, look(self.teacher, batch, [self.teacher.last_stage]))
        answers = soft_target(own.logits, shown.logits, self.temperature, per_sample=True) / self.temperature**2
        imagined, true = own.maps[self.student.last_stage], shown.maps[self.teacher.last_stage]
        return {"ce/student": (1.0, label_loss(seen, batch)),
                "answers/teacher>student": (self.imitate, average(answers)),
                "imagine/teacher>student": (self.near, average(self.distance(self.project(imagined), true)))}

    def distance(self, imagined: Tensor, true: Tensor) -> Tensor:
        """How far imagined maps are from true ones, ``(B,)``, in float32: sums over a map overflow half precision."""
        imagined, true = same_grid(imagined.float(), true.detach().float())
        each = (torch.sigmoid(imagined) - torch.sigmoid(true)).square().flatten(1)
        return each.sum(1) if self.reduction == "sum" else each.mean(1)
