"""A frozen teacher of another sensor; its soft answers are the student's second label."""

from __future__ import annotations

from modalift.errors import ModaliftError
from modalift.losses import soft_target
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, label_loss, look, scheme, watch


@scheme("distill")
class Distill(Scheme):
    r"""Hinton's distillation across sensors.

    .. math:: L = \mathrm{CE}(z^s, y) + w\, T^2\, \mathrm{KL}\big(\sigma(z^t/T) \,\|\, \sigma(z^s/T)\big)

    where the teacher reads its own sensor of the same event. Labels count for labelled clips, the teacher for every
    clip that both sensors saw.

    Args:
        student: the network that learns and ships.
        teacher: trained, frozen.
        weight: w.
        temperature: T.

    Source: Hinton, Vinyals, Dean 2015; across modalities: Gupta, Hoffman, Malik, *Cross modal distillation for
    supervision transfer*, CVPR 2016.
    """

    frozen_roles = ("teacher",)

    def __init__(self, student: Recognizer, teacher: Recognizer, *, weight: float = 8.0,
                 temperature: float = 4.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ModaliftError(f"scheme.temperature = {temperature} - it must be above 0")
        self.student = student
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch)
        answer, shown = common(seen, look(self.teacher, batch))
        taught = soft_target(answer.logits, shown.logits, self.temperature, per_sample=True)
        return {
            "recognise/student": (1.0, label_loss(seen, batch)),
            "answers/teacher>student": (self.weight, average(taught)),
        }
