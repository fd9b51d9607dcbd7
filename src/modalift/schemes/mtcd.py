"""MTCD: infrared teaches dark color, through an assistant that sees color translated to infrared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import feature_distance
from modalift.losses.maps import same_grid
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.projection import to_channels
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, label_loss, look, watch
from modalift.signatures import NonNegative


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
        student: reads color; ships, with its converter.
        teacher: reads infrared; trained by its labels, with its own converter, then frozen.
        assistant: reads the pseudo-infrared view that the translator made of the color view. Without one the teacher
            alone teaches (the second row of Table 4; the first is ``single``).
        alpha, beta: :math:`\alpha, \beta`.
        pull: weight of the teacher's term for the assistant; the paper prints none.
        guide: what stands in :math:`\alpha`'s term: the ``fusion``, the ``sum`` of both maps instead of their mean, or the
            ``assistant`` alone (the third row of Table 4, whose assistant could not reach the student otherwise).
        order: ``together``: assistant and student learn at once; ``staged``: the assistant comes trained, and frozen.
        transform: ``needed``: a learner's map is projected where channels differ; ``always``: where they agree, too.

    Source: *MGR-Dark* (papers/mtcd), equations 5 to 10 and Table 4. Where grids differ, the larger is averaged to the
    smaller. A fusion that is learned is left out.
    """

    frozen_roles: tuple[str, ...] = ("teacher",)
    examples = ({}, {"guide": "assistant"})

    def __init__(self, student: Recognizer, teacher: Recognizer, assistant: Recognizer | None = None, *,
                 alpha: NonNegative = 0.9, beta: NonNegative = 0.3, pull: NonNegative = 1.0,
                 guide: Literal["fusion", "sum", "assistant"] = "fusion", order: Literal["together", "staged"] = "together",
                 transform: Literal["needed", "always"] = "needed") -> None:
        super().__init__()
        if assistant is None and order == "staged":
            raise ModaliftError("scheme.order=staged needs an assistant - add networks.assistant")
        self.student, self.teacher, self.assistant = student, teacher, assistant
        self.alpha, self.beta, self.pull, self.guide = alpha, beta, pull, guide
        self.frozen_roles = self.frozen_for({"order": order})
        channels = {k: net.stages[net.last_stage].channels for k, net in self.roles.items()}
        always = transform == "always"
        self.project_student = to_channels(channels["student"], channels["teacher"], always)  # T_s
        if order == "staged" and channels["assistant"] != channels["teacher"]:
            raise ModaliftError(f"scheme.order=staged: the frozen assistant's map has {channels['assistant']} channels, the"
                                f" teacher's {channels['teacher']} - build both from one family, or use order=together")
        if assistant is not None:
            always = always and order != "staged"  # a target must not learn how to be met
            self.project_assistant = to_channels(channels["assistant"], channels["teacher"], always)  # T_a

    @classmethod
    def frozen_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "assistant") if settings.get("order") == "staged" else ("teacher",)

    @property
    def students(self) -> dict[str, Recognizer]:
        return {"student": self.student}

    @property
    def idle(self) -> dict[str, str]:
        if self.assistant is None:
            return dict.fromkeys(("alpha", "pull", "guide", "order"), "without networks.assistant")
        return {"pull": "with order=staged (the assistant is frozen)"} if "assistant" in self.frozen_roles else {}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = self.seen(self.student, self.project_student, batch, watch)
        shown = self.seen(self.teacher, None, batch, look)
        terms = {"ce/student": (1.0, label_loss(seen, batch)),
                 "imitate/teacher>student": (self.beta, self.distance(seen, shown))}  # equation 5
        if self.assistant is None:
            return terms
        learns = "assistant" not in self.frozen_roles
        helped = self.seen(self.assistant, self.project_assistant, batch, watch if learns else look)
        if learns:
            terms["ce/assistant"] = (1.0, label_loss(helped, batch))
            terms["imitate/teacher>assistant"] = (self.pull, self.distance(helped, shown))  # 6
        if self.guide == "assistant":
            terms["imitate/assistant>student"] = (self.alpha, self.distance(seen, helped))
        else:
            terms["imitate/teacher+assistant>student"] = (self.alpha, self.distance(seen, self.fused(shown, helped)))  # 7
        return terms

    def seen(self, net: Recognizer, project: nn.Module | None, batch: Batch, see: Callable[..., Observation]) -> Observation:
        """What a network made of its clips; its deepest map, ``F``, is projected to the teacher's number of channels."""
        seen = see(net, batch, [net.last_stage])
        F = seen.maps[net.last_stage]
        return Observation(seen.logits, {"F": F if project is None else project(F)}, seen.indices)

    def fused(self, shown: Observation, helped: Observation) -> Observation:
        """The mean (or sum) of teacher and assistant, on the clips that both saw."""
        shown, helped = common(shown, helped)
        one, other = same_grid(shown.maps["F"], helped.maps["F"])
        return Observation(shown.logits, {"F": one + other if self.guide == "sum" else (one + other) / 2}, shown.indices)

    def distance(self, learner: Observation, other: Observation) -> Tensor:
        """Equations 5 to 7, over the clips that both saw."""
        own, shown = common(learner, other)
        return average(feature_distance(own.maps["F"], shown.maps["F"], per_sample=True))
