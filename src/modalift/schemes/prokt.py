"""ProKT: teacher and student learn in turn, each with a divergence from the other's predictions."""

from __future__ import annotations

import torch
from torch import nn

from modalift.losses import soft_target
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    Update,
    label_loss,
    masked_mean,
    observe,
    observe_frozen,
    on_common_clips,
)
from modalift.signatures import NonNegative, Positive, Share


@scheme("prokt")
class ProKT(Scheme):
    r"""Follow your path: progressive knowledge transfer.

    .. math::
        L_{teacher} = (1 - \lambda)\, \mathrm{CE}(z^t, y) + \lambda\, \mathrm{KL}(p^s \,\|\, p^t), \qquad
        L_{student} = \mathrm{KL}(p^t \,\|\, p^s)

    The two losses are minimized in turn in every step, with the other network's prediction as a fixed target. The teacher is
    not trained before: the student learns from every state of it, and :math:`\lambda` bounds the distance between the two.

    Args:
        student: the network that is trained and deployed.
        teacher: the network of another sensor; trained in the same run, training only.
        consistency_weight: :math:`\lambda`, the teacher's weight of its divergence from the student, against its labels.
        ce_weight: weight of the student's own cross-entropy; the paper has none.
        kd_temperature: temperature of both divergences; 1 in the paper.
        zero_init: whether the teacher's classifier is set to zero at first, so that its predictions are uniform; None: only if
            the teacher is new, that is, it was not read from a run and none of its normalizations has counted a batch.
            ``modalift explain`` prints the choice.

    The losses belong to two updates (``optim.updates.teacher``, ``optim.updates.student``).

    Source: Shi et al., *Follow your path: a progressive method for knowledge distillation*, 2021, Algorithm 1, across
    sensors; MTCD cites it as its model. Deviation: the variant with a dual variable for :math:`\lambda` is left out.
    """

    trains_on_labels = False

    def __init__(self, student: Recognizer, teacher: Recognizer, *, consistency_weight: Share = 0.35,
                 ce_weight: NonNegative = 0.0, kd_temperature: Positive = 1.0, zero_init: bool | None = None) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.consistency_weight, self.ce_weight, self.kd_temperature = consistency_weight, ce_weight, kd_temperature
        self.zero_init = is_new(teacher) if zero_init is None else zero_init
        if self.zero_init:
            last = [m for m in teacher.head.modules() if isinstance(m, (nn.Linear, nn.Conv3d))][-1]
            with torch.no_grad():
                for p in last.parameters():
                    p.zero_()

    @property
    def notes(self) -> list[str]:
        if self.zero_init:
            return ["the teacher's classifier is set to zero; a trained one is kept, unless scheme.zero_init=true"]
        return ["the teacher's classifier is kept; scheme.zero_init=true sets it to zero"]

    @property
    def students(self) -> dict[str, Recognizer]:
        return {"student": self.student}

    def updates(self) -> list[Update]:
        return [Update("teacher", ("teacher",)), Update("student", ("student",))]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        terms: Terms = {}
        if progress.update in ("teacher", "all"):
            seen = observe(self.teacher, batch)
            own, shown = on_common_clips(seen, observe_frozen(self.student, batch))
            each = soft_target(own.logits, shown.logits, self.kd_temperature, per_sample=True)
            terms["ce/teacher"] = (1 - self.consistency_weight, label_loss(seen, batch))
            terms["kd/student>teacher"] = (self.consistency_weight, masked_mean(each))
        if progress.update in ("student", "all"):
            seen = observe(self.student, batch)
            own, shown = on_common_clips(seen, observe_frozen(self.teacher, batch))
            each = soft_target(own.logits, shown.logits, self.kd_temperature, per_sample=True)
            terms["ce/student"] = (self.ce_weight, label_loss(seen, batch))
            terms["kd/teacher>student"] = (1.0, masked_mean(each))
        return terms


def is_new(net: Recognizer) -> bool:
    """Whether a network is untrained: one that is read from a run is in evaluation mode, and normalizations count batches."""
    return net.training and not any(bool(b) for k, b in net.named_buffers() if k.endswith("num_batches_tracked"))
