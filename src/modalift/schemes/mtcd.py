"""MTCD: infrared teaches dark colour, through an assistant that sees colour translated to infrared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from modalift.errors import ModaliftError
from modalift.losses import feature_distance
from modalift.losses.maps import same_grid
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.projection import to_channels
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, label_loss, look, scheme, watch


@scheme("mtcd")
class MTCD(Scheme):
    r"""Modality translation and progressive cross-modal distillation.

    .. math::
        L_{student} = \mathrm{CE} + \alpha\, d(F_{fusion}, F_S) + \beta\, d(F_T, F_S), \qquad
        L_{assistant} = \mathrm{CE} + d(F_T, F_A)

    where d is half the mean squared difference (:func:`~modalift.losses.feature_distance`), F the deepest map of each
    network, *after* its feature converter where the network has one (``neck: converter``), and
    :math:`F_{fusion} = (F_T + F_A)/2`. Targets are detached, so each term moves one network. Teaching needs no labels.

    Args:
        student: reads colour; ships, with its converter.
        teacher: reads infrared; trained by its labels, with its own converter, then frozen.
        assistant: reads the pseudo-infrared view that the translator made of the colour view. Without one the teacher
            alone teaches (the second row of Table 4; the first is ``single``).
        alpha, beta: :math:`\alpha, \beta`.
        pull: weight of the teacher's term for the assistant; the paper prints none.
        guide: what stands in :math:`\alpha`'s term: the ``fusion``, or the ``assistant`` alone (the third row of Table 4,
            whose assistant could not reach the student otherwise).
        order: ``together``: assistant and student learn at once; ``staged``: the assistant comes trained, and frozen.

    Source: *MGR-Dark* (papers/mtcd), equations 5 to 10 and Table 4. Where channels differ, the learner's map is projected;
    where grids differ, the larger is averaged to the smaller.
    """

    frozen_roles: tuple[str, ...] = ("teacher",)

    def __init__(self, student: Recognizer, teacher: Recognizer, assistant: Recognizer | None = None, *, alpha: float = 0.9,
                 beta: float = 0.3, pull: float = 1.0, guide: Literal["fusion", "assistant"] = "fusion",
                 order: Literal["together", "staged"] = "together") -> None:
        super().__init__()
        if assistant is None and order == "staged":
            raise ModaliftError("scheme.order=staged needs an assistant - add networks.assistant")
        self.student, self.teacher, self.assistant = student, teacher, assistant
        self.alpha, self.beta, self.pull, self.guide = alpha, beta, pull, guide
        self.frozen_roles = self.frozen_for({"order": order})
        channels = {k: net.stages[net.last_stage].channels for k, net in self.roles.items()}
        self.project_student = to_channels(channels["student"], channels["teacher"])  # T_s
        if order == "staged" and channels["assistant"] != channels["teacher"]:
            raise ModaliftError(f"scheme.order=staged: the frozen assistant's map has {channels['assistant']} channels, the"
                                f" teacher's {channels['teacher']} - build both from one family, or use order=together")
        if assistant is not None:
            self.project_assistant = to_channels(channels["assistant"], channels["teacher"])  # T_a

    @classmethod
    def frozen_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "assistant") if settings.get("order") == "staged" else ("teacher",)

    @property
    def students(self) -> dict[str, Recognizer]:
        return {"student": self.student}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch, [self.student.last_stage])
        shown = look(self.teacher, batch, [self.teacher.last_stage])
        terms = {"recognise/student": (1.0, label_loss(seen, batch)),
                 "imitate/teacher>student": (self.beta, self.distance(seen, shown, "student", "teacher"))}  # equation 5
        if self.assistant is None:
            return terms
        learns = "assistant" not in self.frozen_roles
        helped = (watch if learns else look)(self.assistant, batch, [self.assistant.last_stage])
        if learns:
            terms["recognise/assistant"] = (1.0, label_loss(helped, batch))
            terms["imitate/teacher>assistant"] = (self.pull, self.distance(helped, shown, "assistant", "teacher"))  # 6
        if self.guide == "fusion":
            terms["imitate/teacher+assistant>student"] = (self.alpha, self.fused(seen, shown, helped))  # 7
        else:
            terms["imitate/assistant>student"] = (self.alpha, self.distance(seen, helped, "student", "assistant"))
        return terms

    def converted(self, seen: Observation, role: str) -> Tensor:
        """A network's deepest map with the teacher's number of channels."""
        deepest = seen.maps[self.roles[role].last_stage]
        return deepest if role == "teacher" else getattr(self, f"project_{role}")(deepest)

    def distance(self, learner: Observation, other: Observation, role: str, of: str) -> Tensor:
        """Equations 5 and 6, over the clips that both saw."""
        own, shown = common(learner, other)
        return average(feature_distance(self.converted(own, role), self.converted(shown, of), per_sample=True))

    def fused(self, learner: Observation, shown: Observation, helped: Observation) -> Tensor:
        """Equation 7: the mean of teacher and assistant, over the clips that all three saw."""
        shown, helped = common(shown, helped)
        own, shown = common(learner, shown)
        _, helped = common(own, helped)
        one, other = same_grid(self.converted(shown, "teacher"), self.converted(helped, "assistant").detach())
        return average(feature_distance(self.converted(own, "student"), (one + other) / 2, per_sample=True))
