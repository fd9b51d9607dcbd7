"""ProKT: the teacher learns beside the student and stays near it; the student follows the teacher's path."""

from __future__ import annotations

import torch
from torch import nn

from modalift.losses import soft_target
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, Update, average, common, label_loss, look, watch
from modalift.signatures import NonNegative, Positive, Share


@scheme("prokt")
class ProKT(Scheme):
    r"""Follow your path: progressive knowledge transfer.

    .. math::
        L_{teacher} = (1 - \lambda)\, \mathrm{CE}(z^t, y) + \lambda\, \mathrm{KL}(p^s \,\|\, p^t), \qquad
        L_{student} = \mathrm{KL}(p^t \,\|\, p^s)

    in turn at every step, the other's answer held fixed. The teacher is not trained before: the student follows its
    whole path, which :math:`\lambda` keeps within reach.

    Args:
        student: the network that learns and ships.
        teacher: another sensor's network; learns too, and stays at home.
        near: :math:`\lambda`, how much the teacher stays near the student.
        labels: weight of the student's own labels; the paper's student sees none.
        temperature: of both divergences; the paper's is 1.
        blank: whether the teacher's classifier begins at zero, without an opinion; None: that of a teacher which is new does,
            one that comes trained keeps what it knows. (New: none of its normalizations has counted a batch, and it was not
            read from a run.) ``modalift explain`` says which.

    Each side is an update of its own (``optim.updates.teacher``, ``optim.updates.student``).

    Source: Shi et al., *Follow your path: a progressive method for knowledge distillation*, 2021, Algorithm 1, across
    sensors; MTCD names it as its model. Deviation: the variant with a dual variable for :math:`\lambda` is left out.
    """

    labels_teach = False

    def __init__(self, student: Recognizer, teacher: Recognizer, *, near: Share = 0.35, labels: NonNegative = 0.0,
                 temperature: Positive = 1.0, blank: bool | None = None) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.near, self.labels, self.temperature = near, labels, temperature
        self.blank = new(teacher) if blank is None else blank
        if self.blank:
            last = [m for m in teacher.head.modules() if isinstance(m, (nn.Linear, nn.Conv3d))][-1]
            with torch.no_grad():
                for p in last.parameters():
                    p.zero_()

    @property
    def notes(self) -> list[str]:
        how = "at zero; one that comes trained keeps its own, unless scheme.blank=true" if self.blank else "as it comes"
        return [f"the teacher's classifier begins {how}"]

    @property
    def students(self) -> dict[str, Recognizer]:
        return {"student": self.student}

    def updates(self) -> list[Update]:
        return [Update("teacher", ("teacher",)), Update("student", ("student",))]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        terms: Terms = {}
        if progress.update in ("teacher", "all"):
            path = watch(self.teacher, batch)
            mine, theirs = common(path, look(self.student, batch))
            terms["ce/teacher"] = (1 - self.near, label_loss(path, batch))
            terms["near/student>teacher"] = (self.near, average(soft_target(mine.logits, theirs.logits, self.temperature,
                                                                            per_sample=True)))
        if progress.update in ("student", "all"):
            seen = watch(self.student, batch)
            own, shown = common(seen, look(self.teacher, batch))
            terms["ce/student"] = (self.labels, label_loss(seen, batch))
            terms["follow/teacher>student"] = (1.0, average(soft_target(own.logits, shown.logits, self.temperature,
                                                                        per_sample=True)))
        return terms


def new(net: Recognizer) -> bool:
    """Whether a network is as it was built: what a run wrote comes in evaluation mode, and normalizations count batches."""
    return net.training and not any(bool(b) for k, b in net.named_buffers() if k.endswith("num_batches_tracked"))
