"""MTCD: infrared teaches color in the dark, directly and through an assistant of color translated to infrared."""

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
from modalift.signatures import NonNegative


@scheme("mtcd")
class MTCD(Scheme):
    r"""Modality translation and progressive cross-modal distillation.

    .. math::
        L_{student} = \mathrm{CE} + \alpha\, d(F_{fusion}, F_S) + \beta\, d(F_T, F_S), \qquad
        L_{assistant} = \mathrm{CE} + w\, d(F_T, F_A)

    where d is half the mean squared difference (:func:`~modalift.losses.feature_distance`), F the deepest map of each
    network, *after* its feature converter if the network has one (``neck: converter``), and
    :math:`F_{fusion} = (F_T + F_A)/2`. Targets are detached, so each term trains one network. The feature terms need no labels.

    Args:
        student: reads color; deployed, with its converter.
        teacher: reads infrared; trained on its labels, with its own converter, then frozen.
        assistant: reads the pseudo-infrared view that the translator made of the color view. Without an assistant only the
            teacher teaches (the second row of Table 4; the first is ``single``).
        fusion_weight: :math:`\alpha`, the student's weight of the feature distance from the ``guide``.
        teacher_weight: :math:`\beta`, the student's weight of the feature distance from the teacher.
        assistant_weight: w, the assistant's weight of the feature distance from the teacher; the paper prints none.
        guide: the target of the :math:`\alpha` term: ``fusion``, the mean of the teacher's and the assistant's maps; ``sum``,
            their sum; or ``assistant``, its map alone (the third row of Table 4, where the assistant could not influence the
            student otherwise).
        order: ``together``: assistant and student are trained at once; ``staged``: the assistant is trained before, and frozen.
        transform: ``needed``: a learner's map is projected if its channels differ from the teacher's; ``always``: in any case.

    Source: *MGR-Dark* (papers/mtcd), equations 5 to 10 and Table 4. Where grids differ, the larger is average-pooled to the
    smaller. A learned fusion is left out.
    """

    frozen_roles: tuple[str, ...] = ("teacher",)
    examples = ({}, {"guide": "assistant"})

    def __init__(self, student: Recognizer, teacher: Recognizer, assistant: Recognizer | None = None, *,
                 fusion_weight: NonNegative = 0.9, teacher_weight: NonNegative = 0.3, assistant_weight: NonNegative = 1.0,
                 guide: Literal["fusion", "sum", "assistant"] = "fusion", order: Literal["together", "staged"] = "together",
                 transform: Literal["needed", "always"] = "needed") -> None:
        super().__init__()
        if assistant is None and order == "staged":
            raise ModaliftError("scheme.order=staged needs an assistant - add networks.assistant")
        self.student, self.teacher, self.assistant, self.guide = student, teacher, assistant, guide
        self.fusion_weight, self.teacher_weight, self.assistant_weight = fusion_weight, teacher_weight, assistant_weight
        self.frozen_roles = self.frozen_for({"order": order})
        channels = {k: net.stages[net.last_stage].channels for k, net in self.roles.items()}
        always = transform == "always"
        self.project_student = to_channels(channels["student"], channels["teacher"], always)  # T_s
        if order == "staged" and channels["assistant"] != channels["teacher"]:
            raise ModaliftError(f"scheme.order=staged: the frozen assistant's map has {channels['assistant']} channels, the"
                                f" teacher's {channels['teacher']} - build both from one family, or use order=together")
        if assistant is not None:
            always = always and order != "staged"  # a projection must not be trained on the side of the target
            self.project_assistant = to_channels(channels["assistant"], channels["teacher"], always)  # T_a

    @classmethod
    def frozen_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("teacher", "assistant") if settings.get("order") == "staged" else ("teacher",)

    @property
    def students(self) -> dict[str, Recognizer]:
        return {"student": self.student}

    @property
    def unused_settings(self) -> dict[str, str]:
        if self.assistant is None:
            return dict.fromkeys(("fusion_weight", "assistant_weight", "guide", "order"), "without networks.assistant")
        return {"assistant_weight": "with order=staged (the assistant is frozen)"} if "assistant" in self.frozen_roles else {}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = self.deepest(self.student, self.project_student, batch, observe)
        shown = self.deepest(self.teacher, None, batch, observe_frozen)
        terms = {"ce/student": (1.0, label_loss(seen, batch)),
                 "feature/teacher>student": (self.teacher_weight, self.distance(seen, shown))}  # equation 5
        if self.assistant is None:
            return terms
        learns = "assistant" not in self.frozen_roles
        helped = self.deepest(self.assistant, self.project_assistant, batch, observe if learns else observe_frozen)
        if learns:
            terms["ce/assistant"] = (1.0, label_loss(helped, batch))
            terms["feature/teacher>assistant"] = (self.assistant_weight, self.distance(helped, shown))  # 6
        if self.guide == "assistant":
            terms["feature/assistant>student"] = (self.fusion_weight, self.distance(seen, helped))
        else:
            fusion = self.fusion(shown, helped)
            terms["feature/teacher+assistant>student"] = (self.fusion_weight, self.distance(seen, fusion))  # 7
        return terms

    def deepest(self, net: Recognizer, project: nn.Module | None, batch: Batch, see: Callable[..., Observation]) -> Observation:
        """The logits of a network and its deepest map, ``F``, projected to the teacher's number of channels."""
        seen = see(net, batch, [net.last_stage])
        F = seen.maps[net.last_stage]
        return Observation(seen.logits, {"F": F if project is None else project(F)}, seen.indices)

    def fusion(self, shown: Observation, helped: Observation) -> Observation:
        """The mean (or sum) of the teacher's and the assistant's maps, on the clips that both saw."""
        shown, helped = on_common_clips(shown, helped)
        F_T, F_A = same_grid(shown.maps["F"], helped.maps["F"])
        return Observation(shown.logits, {"F": F_T + F_A if self.guide == "sum" else (F_T + F_A) / 2}, shown.indices)

    def distance(self, learner: Observation, target: Observation) -> Tensor:
        """Equations 5 to 7, over the clips that both saw."""
        own, shown = on_common_clips(learner, target)
        return masked_mean(feature_distance(own.maps["F"], shown.maps["F"], per_sample=True))
