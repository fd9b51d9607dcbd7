"""RCO: the student is taught by earlier states of the teacher, in the order of its training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from modalift.losses import soft_target
from modalift.modalities import Batch
from modalift.networks import Recognizer
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
from modalift.signatures import Count, NonNegative, Positive


@scheme("route")
class Route(Scheme):
    r"""Route-constrained optimization.

    .. math:: L_{student} = \mathrm{CE}(z^s, y) + w\, T^2\, \mathrm{KL}\big(p^{t(k)} \| p^s\big), \qquad
              L_{teacher} = \mathrm{CE}(z^t, y)

    where :math:`t(k)` is the anchor: a copy of the teacher at the last of ``anchors`` equally spaced points of its training.
    An early state of the teacher is easier to learn from than the final one. Teacher and student are trained in one run;
    before the first anchor the student learns from labels only. Anchors are taken at the beginning of epochs, or of steps if
    there is one epoch.

    Args:
        student: the network that is trained and deployed.
        teacher: the network of another sensor; trained on its labels in the same run, training only.
        anchors: number of anchors.
        kd_weight: w.
        kd_temperature: T.

    Source: Jin et al., *Knowledge distillation via route constrained optimization*, ICCV 2019, Algorithm 1. There the
    teacher is trained before and its checkpoints are kept; the anchors are equally spaced, as in its baseline strategy.
    """

    frozen_roles = ("anchor",)
    reached: Tensor

    def __init__(self, student: Recognizer, teacher: Recognizer, *, anchors: Count = 4, kd_weight: NonNegative = 8.0,
                 kd_temperature: Positive = 4.0) -> None:
        super().__init__()
        self.student, self.teacher, self.anchor = student, teacher, copy.deepcopy(teacher)
        self.anchors, self.kd_weight, self.kd_temperature = anchors, kd_weight, kd_temperature
        self.register_buffer("reached", torch.zeros((), dtype=torch.long))  # how many anchors so far

    @property
    def students(self) -> dict[str, Recognizer]:
        return {"student": self.student}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        done, of = (progress.epoch, progress.epochs) if progress.epochs > 1 else (progress.step, progress.steps)
        due = done * (self.anchors + 1) // of
        if self.training and due > self.reached:
            self.anchor.load_state_dict(self.teacher.state_dict())
            self.reached.fill_(due)
        seen, trained = observe(self.student, batch), observe(self.teacher, batch)
        own, shown = on_common_clips(seen, observe_frozen(self.anchor, batch))
        each = soft_target(own.logits, shown.logits, self.kd_temperature, per_sample=True)
        return {"ce/student": (1.0, label_loss(seen, batch)), "ce/teacher": (1.0, label_loss(trained, batch)),
                "kd/anchor>student": (self.kd_weight, masked_mean(each) * (self.reached > 0))}
