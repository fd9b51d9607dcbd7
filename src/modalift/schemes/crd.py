"""CRD: the two sensors' features of one clip attract each other, those of different clips repel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.losses import contrastive_representation, soft_target
from modalift.modalities import Batch, Table
from modalift.networks import Observation, Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, average, common, joint, joint_count, label_loss, look, watch
from modalift.signatures import Count, NonNegative, Positive, Share


@scheme("crd")
class CRD(Scheme):
    r"""Contrastive representation distillation.

    .. math:: L = \mathrm{CE}(z^s, y) + w\, \big(L_{nce}(v^s; M^t) + L_{nce}(v^t; M^s)\big) + w_a\, L_{soft}

    where :math:`v = \mathrm{norm}(W \bar F)` embeds the mean of each network's deepest map in ``dim`` numbers, M are
    memories of one embedding a clip and network, each moved toward the newest by (1 - ``momentum``), and
    :func:`~modalift.losses.contrastive_representation` tells a clip's own pair from ``negatives`` others drawn from the
    memory. Labels are not used by it: clips without one teach as much.

    Args:
        student: the network that learns and ships.
        teacher: trained, frozen. Its embedding learns, and stays at home as the student's does.
        weight: w.
        answers: :math:`w_a`, the weight of :func:`~modalift.losses.soft_target` at temperature 4; 0: without.
        dim: numbers an embedding.
        negatives: clips drawn for each; the authors' 16384 suit a data set of a million.
        tau: temperature of the similarity.
        momentum: how much of a memory stays.

    Source: Tian, Krishnan, Isola, *Contrastive representation distillation*, ICLR 2020, equations 10 to 19 and its public
    code. The normalizing constants are set by the first batch, as there; they are part of a checkpoint. The clips of a
    step share the random offsets from which their negatives follow, so that a resumed run draws the same ones.
    """

    frozen_roles = ("teacher",)
    relates_batch = True
    batch_relation = "draws from a memory that every step renews"
    memory_s: Tensor
    memory_t: Tensor
    scale: Tensor

    def __init__(self, student: Recognizer, teacher: Recognizer, *, weight: NonNegative = 0.8, answers: NonNegative = 0.0,
                 dim: Count = 128, negatives: Count = 256, tau: Positive = 0.07, momentum: Share = 0.5) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.weight, self.answers, self.negatives, self.tau, self.momentum = weight, answers, negatives, tau, momentum
        self.embed_s = nn.Linear(student.stages[student.last_stage].channels, dim)
        self.embed_t = nn.Linear(teacher.stages[teacher.last_stage].channels, dim)
        self.remember(1024)  # until setup says how many clips there are
        self.register_buffer("scale", torch.zeros(2))  # log Z of the two directions; 0 until the first batch
        self.fresh: list[tuple[Tensor, Tensor, Tensor]] = []

    def remember(self, clips: int) -> None:
        """Memories of random directions for so many clips, the same ones in every process."""
        rows = torch.randn(2, clips, self.embed_s.out_features, generator=torch.Generator().manual_seed(0))
        device = self.embed_s.weight.device
        for name, memory in zip(("memory_s", "memory_t"), F.normalize(rows, dim=2).to(device), strict=True):
            self.register_buffer(name, memory)

    def setup(self, table: Table) -> None:
        self.remember(len(table))

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch, [self.student.last_stage])
        own, shown = common(seen, look(self.teacher, batch, [self.teacher.last_stage]))
        rows = batch.index[own.indices]
        v_s, v_t = self.embedded(own, self.student, self.embed_s), self.embedded(shown, self.teacher, self.embed_t)
        self.fresh = [(rows, v_s.detach(), v_t.detach())] if self.training else []
        there = self.contrast(v_s, self.memory_t, rows, 0, progress.step)
        back = self.contrast(v_t, self.memory_s, rows, 1, progress.step)
        terms = {"ce/student": (1.0, label_loss(seen, batch)),
                 "contrast/teacher>student": (self.weight, average(there + back)),
                 "clips/teacher>student": (0.0, joint_count(rows))}
        if self.answers:
            terms["answers/teacher>student"] = (self.answers, average(soft_target(own.logits, shown.logits, per_sample=True)))
        return terms

    def embedded(self, seen: Observation, net: Recognizer, embed: nn.Linear) -> Tensor:
        """Unit vectors ``(B, dim)`` in single precision."""
        return F.normalize(embed(seen.maps[net.last_stage].mean((2, 3, 4))).float(), dim=1)

    def contrast(self, vectors: Tensor, memory: Tensor, rows: Tensor, way: int, step: int) -> Tensor:
        """Equation 18 for each clip: its own row of the other network's memory against drawn ones."""
        clips, chance = len(memory), torch.Generator().manual_seed(2 * step + way)
        offsets = torch.randint(1, max(2, clips), (self.negatives,), generator=chance).to(rows.device)
        drawn = torch.cat([rows.unsqueeze(1), (rows.unsqueeze(1) + offsets) % clips], 1)
        fit = torch.einsum("bd,bkd->bk", vectors, memory[drawn].detach()) / self.tau
        if self.training and self.scale[way] == 0 and len(every := joint(fit.detach())):
            self.scale[way] = every.logsumexp((0, 1)) - math.log(every.numel() / clips)
        fit = fit - self.scale[way]
        return contrastive_representation(fit[:, 0], fit[:, 1:], clips, per_sample=True)

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        for rows, v_s, v_t in self.fresh:
            rows, v_s, v_t = joint(rows), joint(v_s), joint(v_t)
            for memory, newest in ((self.memory_s, v_s), (self.memory_t, v_t)):
                memory[rows] = F.normalize(memory[rows] * self.momentum + newest * (1 - self.momentum), dim=1)
        self.fresh = []
