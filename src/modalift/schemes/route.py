"""RCO: the student follows anchors on the teacher's way, easy ones first."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from modalift.losses import soft_target
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, label_loss, look, watch
from modalift.signatures import Count, NonNegative, Positive


@scheme("route")
class Route(Scheme):
    r"""Route-constrained optimization.

    .. math:: L_{student} = \mathrm{CE}(z^s, y) + w\, T^2\, \mathrm{KL}\big(p^{t(k)} \| p^s\big), \qquad
              L_{teacher} = \mathrm{CE}(z^t, y)

    where :math:`t(k)` is the teacher as it was at the last of ``anchors`` equally spaced moments of its training: a network
    that knows little yet is easier to follow than one that knows all. Teacher and student train in one run; until the
    first anchor the student has its labels alone. Moments are epochs; in a training of one epoch, steps.

    Args:
        student: the network that learns and ships.
        teacher: another sensor's network; learns from its labels, and stays at home.
        anchors: how many moments.
        weight: w.
        temperature: T.

    Source: Jin et al., *Knowledge distillation via route constrained optimization*, ICCV 2019, Algorithm 1. There the
    teacher is trained before and its checkpoints are kept; anchors are equally spaced, as in its plain strategy.
    """

    frozen_roles = ("anchor",)
    reached: Tensor

    def __init__(self, student: Recognizer, teacher: Recognizer, *, anchors: Count = 4, weight: NonNegative = 8.0,
                 temperature: Positive = 4.0) -> None:
        super().__init__()
        self.student, self.teacher, self.anchor = student, teacher, copy.deepcopy(teacher)
        self.anchors, self.weight, self.temperature = anchors, weight, temperature
        self.register_buffer("reached", torch.zeros((), dtype=torch.long))

    @property
    def students(self) -> dict[str, Recognizer]:
        return {"student": self.student}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        done, of = (progress.epoch, progress.epochs) if progress.epochs > 1 else (progress.step, progress.steps)
        due = done * (self.anchors + 1) // of
        if self.training and due > self.reached:
            self.anchor.load_state_dict(self.teacher.state_dict())
            self.reached.fill_(due)
        seen, path = watch(self.student, batch), watch(self.teacher, batch)
        own, shown = common(seen, look(self.anchor, batch))
        each = soft_target(own.logits, shown.logits, self.temperature, per_sample=True)
        return {"ce/student": (1.0, label_loss(seen, batch)), "ce/teacher": (1.0, label_loss(path, batch)),
                "follow/anchor>student": (self.weight, average(each) * (self.reached > 0))}
