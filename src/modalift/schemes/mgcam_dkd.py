"""MGCAM+DKD: a frozen teacher teaches another sensor's student by graphs over the batch and by decoupled logits."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import decoupled, graph_attention
from modalift.modalities import Batch
from modalift.networks import Recognizer
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


@scheme("mgcam_dkd")
class GraphTaughtStudent(Scheme):
    r"""Multi-scale graph cross-attention and decoupled distillation.

    .. math::
        L = \mathrm{CE}(z^s, y) + \alpha\, (a_T\, \mathrm{TCKD} + a_N\, \mathrm{NCKD}) + \beta\, L_{MGCAM}

    where :math:`L_{MGCAM}` compares all pairs of the student's and the teacher's residual stages after both were mixed
    over the clips of the batch, see :func:`~modalift.losses.graph_attention`. For a clip without a label, DKD takes the
    teacher's top-1 prediction in its place. With ``graph_weight=0``, DKD alone, there are no graphs and no projections, and
    no clips are compared with each other.

    **What the graph term teaches.** With the paper's settings the attention A is nearly uniform, so the term compares the
    mean maps of the batch and a clip's own map gets almost no gradient (a share of .000 was measured for a batch of 8; with
    the plain squared error: .87). ``attention_temperature=.1, sigma=.3`` lets each clip attend to similar clips (.87),
    ``residual=True`` adds each clip's own difference (.30).

    Args:
        student: the network that is trained and deployed (the paper: infrared, ResNet-18 of 8 segments).
        teacher: trained on its labels, frozen (RGB, ResNet-50).
        kd_weight, graph_weight: :math:`\alpha, \beta`: .1 and 1 for NTU RGB+D, .01 and 1 for PKU-MMD.
        tckd_weight, nckd_weight: :math:`a_T, a_N`.
        kd_temperature: temperature of DKD; the paper gives none, 4 is the usual one.
        attention_temperature: :math:`\tau` of the attention between graphs; None: :math:`\sqrt B`, as printed.
        sigma: width of the graphs' Gaussian; ``median``: the root of the batch's median squared distance.
        residual: whether mixed maps also keep the map that they were made of.
        graph: ``own``: one graph per network and stage; ``cross``: one between the two networks' maps that are compared, as
            equation 1 is printed.
        pairs: ``all`` pairs of stages, or only stages of the ``same`` depth.
        vertices: the vertices of a graph, ``clips`` or single ``frames`` (of networks that keep time).
        projected: whether the student's maps are projected to the teacher's channels by 1x1 convolutions, one per pair;
            without them spatiotemporal attention maps are compared, and nothing is trained beside the student.
        student_stages, teacher_stages: names of the stages; by default the four deepest.

    Source: *Multi-scale graph cross-attention and decoupled knowledge distillation* (papers/mgcam-dkd), equations 1 to 10
    and Algorithm 1. The projections, needed because channel counts differ, are on the student's side. In distributed training
    the graph spans the clips of all processes; their number is logged.
    """

    frozen_roles = ("teacher",)
    batch_relation = "builds a graph over the clips of a batch"
    examples = ({}, {"graph_weight": 0.0}, {"projected": False},
                {"attention_temperature": 0.1, "sigma": 0.3, "residual": True})

    def __init__(self, student: Recognizer, teacher: Recognizer, *, kd_weight: NonNegative = 0.1,
                 graph_weight: NonNegative = 1.0, tckd_weight: NonNegative = 0.7, nckd_weight: NonNegative = 0.35,
                 kd_temperature: Positive = 4.0, attention_temperature: Positive | None = None,
                 sigma: Positive | Literal["median"] = 1.0, residual: bool = False,
                 graph: Literal["own", "cross"] = "own", pairs: Literal["all", "same"] = "all",
                 vertices: Literal["clips", "frames"] = "clips", projected: bool = True,
                 student_stages: list[str] | None = None, teacher_stages: list[str] | None = None) -> None:
        super().__init__()
        self.student, self.teacher, self.kd_weight, self.graph_weight = student, teacher, kd_weight, graph_weight
        self.tckd_weight, self.nckd_weight, self.kd_temperature = tckd_weight, nckd_weight, kd_temperature
        self.vertices = vertices
        self.graph_options: dict[str, Any] = {"temperature": attention_temperature, "sigma": sigma, "residual": residual,
                                              "graph": graph, "pairs": pairs}
        most = min(4, len(student.stages), len(teacher.stages))
        own, shown = paired_stages(student, teacher, student_stages or [], teacher_stages or [], most)
        self.student_stages, self.teacher_stages = (own, shown) if graph_weight else ([], [])
        self.relates_batch = graph_weight > 0
        self.project = nn.ModuleList(
            nn.ModuleList(Projection(student.stages[i].channels, teacher.stages[j].channels)
                          if pairs == "all" or m == n else nn.Identity() for n, j in enumerate(shown))
            for m, i in enumerate(own)) if projected and graph_weight else None

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch, self.student_stages)
        own, shown = on_common_clips(seen, observe_frozen(self.teacher, batch, self.teacher_stages))
        labels, labeled = labels_of(own, batch)
        labels = torch.where(labeled, labels, shown.logits.argmax(1))
        dkd = decoupled(own.logits, shown.logits, labels, self.tckd_weight, self.nckd_weight, self.kd_temperature,
                        per_sample=True)  # equation 7
        terms: Terms = {"ce/student": (1.0, label_loss(seen, batch)),
                        "dkd/teacher>student": (self.kd_weight, masked_mean(dkd))}
        if not self.graph_weight:
            return terms
        mgcam = self.mgcam([own.maps[s] for s in self.student_stages], [shown.maps[s] for s in self.teacher_stages])
        return terms | {"mgcam/teacher>student": (self.graph_weight, mgcam),
                        "batch_clips/teacher>student": (0.0, count_across_ranks(own.logits))}

    def mgcam(self, own: list[Tensor], shown: list[Tensor]) -> Tensor:
        """Equations 1 to 6 over the clips of all processes."""
        own, shown = [gather_across_ranks(m) for m in own], [gather_across_ranks(m) for m in shown]
        if not len(own[0]):
            learned = () if self.project is None else self.project.parameters()
            return 0.0 * torch.stack([*(m.sum() for m in own), *(p.sum() for p in learned)]).sum()
        if self.vertices == "frames":
            frames = {m.shape[2] for m in (*own, *shown)}
            if len(frames) > 1:
                raise ModaliftError("scheme.vertices=frames needs maps of equal numbers of frames, these have"
                                    f" {sorted(frames)} - use vertices=clips, or networks that keep every frame")
            own, shown = ([m.transpose(1, 2).flatten(0, 1).unsqueeze(2) for m in maps] for maps in (own, shown))
        return graph_attention(own, shown, None if self.project is None else self.projected, **self.graph_options)

    def projected(self, i: int, j: int, own: Tensor) -> Tensor:
        """The student's map of its stage i with the channels of the teacher's stage j."""
        assert self.project is not None
        projection: nn.Module = self.project[i][j]  # type: ignore[index]
        made: Tensor = projection(own)
        return made
