"""MGCAM+DKD: a frozen teacher guides another sensor's student by graphs over the batch and by decoupled answers."""

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


@scheme("mgcam_dkd")
class GraphTaughtStudent(Scheme):
    r"""Multi-scale graph cross-attention and decoupled distillation.

    .. math::
        L = \mathrm{CE}(z^s, y) + \alpha\, (a_T\, \mathrm{TCKD} + a_N\, \mathrm{NCKD}) + \beta\, L_{MGCAM}

    where :math:`L_{MGCAM}` compares all pairs of the student's and the teacher's residual stages after both were mixed
    over the clips of the batch, see :func:`~modalift.losses.graph_attention`. A clip without a label takes the teacher's
    first answer for it. With ``beta=0``, DKD alone, no graph and no projection is made, and no clips are compared.

    **What the graph term teaches.** With the paper's settings A is nearly uniform, so the term matches the batch's mean
    map and leaves a clip of its own almost no gradient (a share of .000 was measured for a batch of 8; plain squared
    error: .87). ``temperature=.1, sigma=.3`` lets each clip attend to those like it (.87), ``residual=True`` adds each
    clip's own difference (.30).

    Args:
        student: the network that learns and ships (the paper: infrared, ResNet-18 of 8 segments).
        teacher: trained by its labels, frozen (RGB, ResNet-50).
        alpha, beta: weights of the two parts: .1 and 1 for NTU RGB+D, .01 and 1 for PKU-MMD.
        target, others: :math:`a_T, a_N`.
        softness: temperature of the answers; the paper gives none, 4 is the usual one.
        temperature: of the graphs' attention; None: :math:`\sqrt B`, as printed.
        sigma: width of the graphs' Gaussian; ``median``: the root of the batch's median squared distance.
        residual: whether fused maps also keep what they were made from.
        graph: ``own``: a graph of each network's clips; ``cross``: one between the two networks' maps that are compared, as
            equation 1 is printed.
        pairs: ``all`` pairs of stages, or the ``same`` depths alone.
        vertices: what a graph's vertices are, ``clips`` or single ``frames`` (of networks that keep time).
        projected: whether the student's maps are projected to the teacher's channels by 1x1 convolutions, one a pair;
            without them maps of where networks are active are compared, and nothing is learned beside the student.
        student_stages, teacher_stages: names of the stages; by default the four deepest.

    Source: *Multi-scale graph cross-attention and decoupled knowledge distillation* (papers/mgcam-dkd), equations 1 to 10
    and Algorithm 1. The projections, which channel counts force, stand on the student's side. Under several processes
    the graph spans all their clips; how many these were is logged.
    """

    frozen_roles = ("teacher",)
    batch_relation = "builds a graph over the clips of a batch"
    examples = ({}, {"beta": 0.0}, {"projected": False}, {"temperature": 0.1, "sigma": 0.3, "residual": True})

    def __init__(self, student: Recognizer, teacher: Recognizer, *, alpha: NonNegative = 0.1, beta: NonNegative = 1.0,
                 target: NonNegative = 0.7, others: NonNegative = 0.35, softness: Positive = 4.0,
                 temperature: Positive | None = None, sigma: Positive | Literal["median"] = 1.0, residual: bool = False,
                 graph: Literal["own", "cross"] = "own", pairs: Literal["all", "same"] = "all",
                 vertices: Literal["clips", "frames"] = "clips", projected: bool = True,
                 student_stages: list[str] | None = None, teacher_stages: list[str] | None = None) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.alpha, self.beta, self.target, self.others, self.softness = alpha, beta, target, others, softness
        self.vertices, self.how = vertices, dict[str, Any](temperature=temperature, sigma=sigma, residual=residual, graph=graph,
                                                           pairs=pairs)
        most = min(4, len(student.stages), len(teacher.stages))
        self.own, self.shown = paired_stages(student, teacher, student_stages or [], teacher_stages or [], most)
        self.relates_batch = beta > 0
        self.project = nn.ModuleList(
            nn.ModuleList(Projection(student.stages[i].channels, teacher.stages[j].channels)
                          if pairs == "all" or m == n else nn.Identity() for n, j in enumerate(self.shown))
            for m, i in enumerate(self.own)) if projected and beta else None

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch, self.own if self.beta else ())
        own, shown = common(seen, look(self.teacher, batch, self.shown if self.beta else ()))
        labels, labeled = labels_of(own, batch)
        known = torch.where(labeled, labels, shown.logits.argmax(1))
        answers = decoupled(own.logits, shown.logits, known, self.target, self.others, self.softness, per_sample=True)  # (7)
        terms: Terms = {"ce/student": (1.0, label_loss(seen, batch)),
                        "answers/teacher>student": (self.alpha, average(answers))}
        if not self.beta:
            return terms
        return terms | {
            "graph/teacher>student": (self.beta, self.compared([own.maps[s] for s in self.own],
                                                               [shown.maps[s] for s in self.shown])),
            "clips/teacher>student": (0.0, joint_count(own.logits)),
        }

    def compared(self, own: list[Tensor], shown: list[Tensor]) -> Tensor:
        """Equations 1 to 6 over the clips of all processes."""
        own, shown = [joint(m) for m in own], [joint(m) for m in shown]
        if not len(own[0]):
            learned = () if self.project is None else self.project.parameters()
            return 0.0 * torch.stack([*(m.sum() for m in own), *(p.sum() for p in learned)]).sum()
        if self.vertices == "frames":
            frames = {m.shape[2] for m in (*own, *shown)}
            if len(frames) > 1:
                raise ModaliftError(f"scheme.vertices=frames needs maps of as many frames, these have {sorted(frames)} - use"
                                    " vertices=clips, or networks that keep every frame")
            own, shown = ([m.transpose(1, 2).flatten(0, 1).unsqueeze(2) for m in maps] for maps in (own, shown))
        return graph_attention(own, shown, None if self.project is None else self.projected, **self.how)

    def projected(self, i: int, j: int, own: Tensor) -> Tensor:
        """The student's map of its stage i with the channels of the teacher's stage j."""
        assert self.project is not None
        projection: nn.Module = self.project[i][j]  # type: ignore[index]
        made: Tensor = projection(own)
        return made
