"""Distillation from a frozen teacher of another sensor, by one of seven losses."""

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
    count_across_ranks,
    gather_across_ranks,
    label_loss,
    labels_of,
    masked_mean,
    observe,
    observe_frozen,
    on_common_clips,
)
from modalift.signatures import NonNegative, Positive

Loss = Literal["soft_target", "decoupled", "attention_transfer", "similarity_preserving", "correlation_congruence",
               "relational", "channel_correlation"]
#: The weight that each loss's authors or its usual code give it.
DEFAULT_WEIGHTS: dict[Loss, float] = {
    "soft_target": 9.0, "decoupled": 1.0, "attention_transfer": 1000.0, "similarity_preserving": 3000.0,
    "correlation_congruence": 100.0, "relational": 25.0, "channel_correlation": 6.0,
}
#: Losses of the maps of several stages, and of the deepest stage alone.
OF_STAGES = ("attention_transfer", "channel_correlation")
OF_DEEPEST = ("similarity_preserving", "correlation_congruence", "relational")
#: Setting -> the losses that it concerns.
CONCERNED = {"kd_temperature": ("soft_target", "decoupled"), "tckd_weight": ("decoupled",), "nckd_weight": ("decoupled",),
             "student_stages": (*OF_STAGES, *OF_DEEPEST), "teacher_stages": (*OF_STAGES, *OF_DEEPEST)}


@scheme("distill")
class Distill(Scheme):
    r"""Distillation across sensors.

    .. math:: L = \mathrm{CE}(z^s, y) + w\, L_{kd}(\text{student}, \text{teacher})

    where the teacher reads its own sensor of the same event. The cross-entropy is a mean over labeled clips, :math:`L_{kd}`
    over all clips that both sensors saw. :math:`L_{kd}` is one of

    - ``soft_target``: :math:`T^2\,\mathrm{KL}(p^t \| p^s)`, :func:`~modalift.losses.soft_target`;
    - ``decoupled`` (DKD): :func:`~modalift.losses.decoupled`; for a clip without a label, with the teacher's top-1 prediction;
    - ``attention_transfer`` (AT): the sum over pairs of stages of equal depth, counted from the deepest;
    - ``similarity_preserving`` (SP), ``correlation_congruence`` (CC): of the deepest maps;
    - ``relational`` (RKD): :math:`L_D + 2 L_A` of the deepest maps' means;
    - ``channel_correlation`` (CCSKD): the sum over stages of :math:`L_C + L_D + 2 L_A` of the channels' means, of the
      student's maps after projection to the teacher's channels (after average pooling to the extents of the student's
      deepest map; the authors project whole maps and pool then, which takes a fifth of a step's time); and twice the soft
      target at T = 1, once unweighted and once with weight 2 for the clips that the teacher recognizes, each times w/60
      (the authors: .1 against 6).

    Args:
        student: the network that is trained and deployed.
        teacher: trained, frozen.
        loss: see above.
        kd_weight: w; None: that of the loss's authors or its usual code.
        kd_temperature: T of ``soft_target`` and ``decoupled``.
        tckd_weight, nckd_weight: the two weights of ``decoupled``.
        student_stages, teacher_stages: names of the stages to compare; by default the deepest.

    Source: Hinton, Vinyals, Dean 2015; across modalities: Gupta, Hoffman, Malik, *Cross modal distillation for supervision
    transfer*, CVPR 2016; each loss names its own. Losses that compare clips with each other span the clips of all processes;
    their number is logged. Deviations: w is constant, and the cross-entropy has weight 1. The authors of CCSKD let the weight
    of :math:`L_C` decay (to .9 of it after 60 epochs, .81 after 160) and the selective one (to .9 of it every 30), and begin
    with 60 epochs without cross-entropy and selective term; those of DKD let w rise over 20 epochs.
    """

    frozen_roles = ("teacher",)

    def __init__(self, student: Recognizer, teacher: Recognizer, *, loss: Loss = "soft_target",
                 kd_weight: NonNegative | None = None, kd_temperature: Positive = 4.0, tckd_weight: NonNegative = 1.0,
                 nckd_weight: NonNegative = 8.0, student_stages: list[str] | None = None,
                 teacher_stages: list[str] | None = None) -> None:
        super().__init__()
        self.student, self.teacher, self.loss = student, teacher, loss
        self.kd_weight = DEFAULT_WEIGHTS[loss] if kd_weight is None else kd_weight
        self.kd_temperature, self.tckd_weight, self.nckd_weight = kd_temperature, tckd_weight, nckd_weight
        self.pairs: list[tuple[str, str]] = []
        if loss in OF_STAGES or loss in OF_DEEPEST:
            named = (student_stages or [], teacher_stages or [])
            most = 1 if loss in OF_DEEPEST else None
            self.pairs = list(zip(*paired_stages(student, teacher, *named, most=most), strict=True))
        if loss in OF_DEEPEST and len(self.pairs) > 1:
            raise ModaliftError(f"scheme.loss = {loss} compares one map of each network, and {len(self.pairs)} are named -"
                                " name one")
        self.relates_batch = loss in OF_DEEPEST or loss == "channel_correlation"
        self.batch_relation = f"with loss={loss} compares the clips of a batch with each other"
        if loss == "channel_correlation":
            self.project = nn.ModuleList(Projection(student.stages[s].channels, teacher.stages[t].channels, relu=True)
                                         for s, t in self.pairs)

    @property
    def unused_settings(self) -> dict[str, str]:
        return {k: f"with loss={self.loss} (it is for {', '.join(known)})" for k, known in CONCERNED.items()
                if self.loss not in known}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch, [s for s, _ in self.pairs])
        own, shown = on_common_clips(seen, observe_frozen(self.teacher, batch, [t for _, t in self.pairs]))
        parts = self.parts(own, shown, batch)
        if self.relates_batch:
            parts["batch_clips"] = (0.0, count_across_ranks(own.logits))
        return {"ce/student": (1.0, label_loss(seen, batch))} | {
            f"{what}/teacher>student": (self.kd_weight * share, raw) for what, (share, raw) in parts.items()}

    def parts(self, own: Observation, shown: Observation, batch: Batch) -> Terms:
        """The parts of the chosen loss with their shares of w, on the clips that both networks saw."""
        maps = [(own.maps[s], shown.maps[t]) for s, t in self.pairs]
        labels, labeled = labels_of(own, batch)
        match self.loss:
            case "soft_target":
                each = losses.soft_target(own.logits, shown.logits, self.kd_temperature, per_sample=True)
                return {"kd": (1.0, masked_mean(each))}
            case "decoupled":
                labels = torch.where(labeled, labels, shown.logits.argmax(1))
                each = losses.decoupled(own.logits, shown.logits, labels, self.tckd_weight, self.nckd_weight,
                                        self.kd_temperature, per_sample=True)
                return {"dkd": (1.0, masked_mean(each))}
            case "attention_transfer":
                each = torch.stack([losses.attention_transfer(mine, theirs, per_sample=True) for mine, theirs in maps]).sum(0)
                return {"at": (1.0, masked_mean(each))}
            case "similarity_preserving":
                return {"sp": (1.0, between_clips(losses.similarity_preserving, *maps[0], whole=True))}
            case "correlation_congruence":
                return {"cc": (1.0, between_clips(losses.correlation_congruence, *maps[0]))}
            case "relational":
                return {"rkd_distance": (1.0, between_clips(losses.relational_distance, *maps[0])),
                        "rkd_angle": (2.0, between_clips(losses.relational_angle, *maps[0]))}
        T, H, W = maps[-1][0].shape[2:]
        maps = [(project(pooled(mine, (T, H, W))), theirs) for project, (mine, theirs) in zip(self.project, maps, strict=True)]
        each = torch.stack([losses.channel_correlation(mine, theirs, per_sample=True) for mine, theirs in maps]).sum(0)
        distance = torch.stack([between_clips(losses.relational_distance, *pair) for pair in maps]).sum()
        angle = torch.stack([between_clips(losses.relational_angle, *pair) for pair in maps]).sum()
        plain = losses.soft_target(own.logits, shown.logits, 1.0, per_sample=True)
        selected = torch.where(labeled, losses.selective_weight(shown.logits, labels), torch.ones_like(plain))
        return {"ccskd_channel": (1.0, masked_mean(each)), "ccskd_distance": (1.0, distance), "ccskd_angle": (2.0, angle),
                "kd": (1 / 60, masked_mean(plain)), "ccskd_selective": (1 / 60, masked_mean(selected * plain))}


def between_clips(loss: Callable[[Tensor, Tensor], Tensor], own: Tensor, shown: Tensor, whole: bool = False) -> Tensor:
    """A loss of the relations between the clips of all processes, of the maps' means or of the ``whole`` maps.

    If no clip has both sensors it is 0, with a gradient of 0.
    """
    mine, theirs = (gather_across_ranks(m if whole else m.float().mean((2, 3, 4))) for m in (own, shown))
    return loss(mine, theirs) if len(mine) else own.sum() * 0.0
