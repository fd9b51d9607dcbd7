"""A frozen teacher of another sensor, and a choice of what the student takes from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from modalift import losses
from modalift.errors import ModaliftError
from modalift.losses.maps import pooled
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.projection import Projection, paired_stages
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    average,
    common,
    joint,
    joint_count,
    label_loss,
    labels_of,
    look,
    watch,
)
from modalift.signatures import NonNegative, Positive

Loss = Literal["soft_target", "decoupled", "attention_transfer", "similarity_preserving", "correlation_congruence",
               "relational", "channel_correlation"]
#: The weight that each loss's authors or its usual code give it, where a recipe does not say.
USUAL: dict[Loss, float] = {
    "soft_target": 9.0, "decoupled": 1.0, "attention_transfer": 1000.0, "similarity_preserving": 3000.0,
    "correlation_congruence": 100.0, "relational": 25.0, "channel_correlation": 6.0,
}
#: Losses of maps at several depths, of the deepest map, and of the relations between the clips of a batch.
DEEP = ("attention_transfer", "channel_correlation")
LAST = ("similarity_preserving", "correlation_congruence", "relational")
#: Setting -> the losses that take it.
TAKEN = {"temperature": ("soft_target", "decoupled"), "target": ("decoupled",), "others": ("decoupled",),
         "student_stages": (*DEEP, *LAST), "teacher_stages": (*DEEP, *LAST)}


@scheme("distill")
class Distill(Scheme):
    r"""Distillation across sensors.

    .. math:: L = \mathrm{CE}(z^s, y) + w\, L_{kd}(\text{student}, \text{teacher})

    where the teacher reads its own sensor of the same event. Labels count for labeled clips, the teacher for every clip
    that both sensors saw. :math:`L_{kd}` is one of

    - ``soft_target``: :math:`T^2\,\mathrm{KL}(p^t \| p^s)`, :func:`~modalift.losses.soft_target`;
    - ``decoupled`` (DKD): :func:`~modalift.losses.decoupled`; a clip without a label takes the teacher's first answer for it;
    - ``attention_transfer`` (AT): the sum over pairs of stages, the deepest together;
    - ``similarity_preserving`` (SP), ``correlation_congruence`` (CC): the deepest maps;
    - ``relational`` (RKD): :math:`L_D + 2 L_A` of the deepest maps' means;
    - ``channel_correlation`` (CCSKD): the sum over stages of :math:`L_C + L_D + 2 L_A` of the channels' means, the
      student's maps first projected to the teacher's channels (after they were averaged to its deepest map's extents: the
      authors project whole maps, a fifth of a step's time, and average then); beside it the soft target at T = 1, once
      plainly and once weighted where the teacher is right, each by 1/60 of w (the authors: .1 against 6).

    Args:
        student: the network that learns and ships.
        teacher: trained, frozen.
        loss: see above.
        weight: w; None: what the loss's authors or its usual code take.
        temperature: T of ``soft_target`` and ``decoupled``.
        target, others: the two weights of ``decoupled``.
        student_stages, teacher_stages: names of the stages to compare; by default the deepest.

    Source: Hinton, Vinyals, Dean 2015; across modalities: Gupta, Hoffman, Malik, *Cross modal distillation for supervision
    transfer*, CVPR 2016; each loss names its own. Relations span the clips of all processes; how many these were is logged.
    Deviations: w is constant, beside a whole cross-entropy. The authors of CCSKD let the weight of :math:`L_C` decay (to .9
    of it after 60 epochs, .81 after 160) and the selective one (to .9 of it every 30), and begin with 60 epochs without
    cross-entropy and selective term; those of DKD let w rise over 20 epochs.
    """

    frozen_roles = ("teacher",)

    def __init__(self, student: Recognizer, teacher: Recognizer, *, loss: Loss = "soft_target",
                 weight: NonNegative | None = None, temperature: Positive = 4.0, target: NonNegative = 1.0,
                 others: NonNegative = 8.0, student_stages: list[str] | None = None,
                 teacher_stages: list[str] | None = None) -> None:
        super().__init__()
        self.student, self.teacher, self.loss = student, teacher, loss
        self.weight = USUAL[loss] if weight is None else weight
        self.temperature, self.target, self.others = temperature, target, others
        self.pairs: list[tuple[str, str]] = []
        if loss in DEEP or loss in LAST:
            named = (student_stages or [], teacher_stages or [])
            self.pairs = list(zip(*paired_stages(student, teacher, *named, most=1 if loss in LAST else None), strict=True))
        if loss in LAST and len(self.pairs) > 1:
            raise ModaliftError(f"scheme.loss = {loss} compares one map of each network, and {len(self.pairs)} are named -"
                                " name one")
        self.relates_batch = loss in LAST or loss == "channel_correlation"
        self.batch_relation = f"with loss={loss} compares the clips of a batch with each other"
        if loss == "channel_correlation":
            self.project = nn.ModuleList(Projection(student.stages[s].channels, teacher.stages[t].channels, relu=True)
                                         for s, t in self.pairs)

    @property
    def idle(self) -> dict[str, str]:
        return {k: f"with loss={self.loss} (it is for {', '.join(t)})" for k, t in TAKEN.items() if self.loss not in t}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch, [s for s, _ in self.pairs])
        own, shown = common(seen, look(self.teacher, batch, [t for _, t in self.pairs]))
        taught = self.taught(own, shown, batch)
        if self.relates_batch:
            taught["clips"] = (0.0, joint_count(own.logits))
        return {"ce/student": (1.0, label_loss(seen, batch))} | {
            f"{what}/teacher>student": (self.weight * share, raw) for what, (share, raw) in taught.items()}

    def taught(self, own: Observation, shown: Observation, batch: Batch) -> Terms:
        """What the chosen loss compares, on the clips that both networks saw."""
        maps = [(own.maps[s], shown.maps[t]) for s, t in self.pairs]
        labels, labeled = labels_of(own, batch)
        match self.loss:
            case "soft_target":
                each = losses.soft_target(own.logits, shown.logits, self.temperature, per_sample=True)
                return {"answers": (1.0, average(each))}
            case "decoupled":
                known = torch.where(labeled, labels, shown.logits.argmax(1))
                each = losses.decoupled(own.logits, shown.logits, known, self.target, self.others, self.temperature,
                                        per_sample=True)
                return {"answers": (1.0, average(each))}
            case "attention_transfer":
                each = torch.stack([losses.attention_transfer(mine, theirs, per_sample=True) for mine, theirs in maps]).sum(0)
                return {"attention": (1.0, average(each))}
            case "similarity_preserving":
                return {"similarity": (1.0, between(losses.similarity_preserving, *maps[0], whole=True))}
            case "correlation_congruence":
                return {"congruence": (1.0, between(losses.correlation_congruence, *maps[0]))}
            case "relational":
                return {"distances": (1.0, between(losses.relational_distance, *maps[0])),
                        "angles": (2.0, between(losses.relational_angle, *maps[0]))}
        T, H, W = maps[-1][0].shape[2:]
        maps = [(project(pooled(mine, (T, H, W))), theirs) for project, (mine, theirs) in zip(self.project, maps, strict=True)]
        each = torch.stack([losses.channel_correlation(mine, theirs, per_sample=True) for mine, theirs in maps]).sum(0)
        distances = torch.stack([between(losses.relational_distance, *pair) for pair in maps]).sum()
        angles = torch.stack([between(losses.relational_angle, *pair) for pair in maps]).sum()
        plain = losses.soft_target(own.logits, shown.logits, 1.0, per_sample=True)
        trusted = torch.where(labeled, losses.selective_weight(shown.logits, labels), torch.ones_like(plain))
        return {"channels": (1.0, average(each)), "distances": (1.0, distances), "angles": (2.0, angles),
                "answers": (1 / 60, average(plain)), "selected": (1 / 60, average(trusted * plain))}


def between(loss: Callable[[Tensor, Tensor], Tensor], own: Tensor, shown: Tensor, whole: bool = False) -> Tensor:
    """A loss of the relations between clips, of all processes: of the maps' means, or of the ``whole`` maps.

    Where no clip has both sensors it is 0, with a gradient of 0.
    """
    mine, theirs = (joint(m if whole else m.float().mean((2, 3, 4))) for m in (own, shown))
    return loss(mine, theirs) if len(mine) else own.sum() * 0.0
