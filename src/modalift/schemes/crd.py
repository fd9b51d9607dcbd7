"""CRD: embeddings of one clip by two networks are pulled together, those of different clips are pushed apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.losses import contrastive_representation, soft_target
from modalift.modalities import Batch, Table
from modalift.networks import Observation, Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    count_across_ranks,
    gather_across_ranks,
    label_loss,
    masked_mean,
    observe,
    observe_frozen,
    on_common_clips,
)
from modalift.signatures import Count, NonNegative, Positive, Share


@scheme("crd")
class CRD(Scheme):
    r"""Contrastive representation distillation.

    .. math:: L = \mathrm{CE}(z^s, y) + w\, \big(L_{nce}(v^s; M^t) + L_{nce}(v^t; M^s)\big) + w_{kd}\, L_{soft}

    where :math:`v = \mathrm{norm}(W \bar F)` embeds the mean of each network's deepest map in ``dim`` dimensions, M are two
    memory banks of one embedding per clip, updated with ``momentum`` after every step, and
    :func:`~modalift.losses.contrastive_representation` tells a clip's own pair from ``negatives`` pairs with other clips of
    the bank. It uses no labels, so clips without a label teach as much.

    Args:
        student: the network that is trained and deployed.
        teacher: trained, frozen. Both embedding layers are trained, and training only.
        crd_weight: w.
        kd_weight: :math:`w_{kd}`, the weight of :func:`~modalift.losses.soft_target` at temperature 4; 0: without.
        dim: dimensions of an embedding.
        negatives: number of negatives per clip; the authors' 16384 are for a data set of a million.
        contrast_temperature: :math:`\tau`, divides the similarity of two embeddings.
        momentum: of the memory banks: the share of the old embedding in an update.

    Source: Tian, Krishnan, Isola, *Contrastive representation distillation*, ICLR 2020, equations 10 to 19 and its public
    code. The normalizing constants Z are set by the first batch, as there; they are part of a checkpoint. The clips of a
    step share the random offsets that choose their negatives, and these follow from the step's number, so that a resumed run
    draws the same ones.
    """

    frozen_roles = ("teacher",)
    relates_batch = True
    batch_relation = "draws negatives from a memory bank that every step updates"
    memory_s: Tensor
    memory_t: Tensor
    log_z: Tensor

    def __init__(self, student: Recognizer, teacher: Recognizer, *, crd_weight: NonNegative = 0.8,
                 kd_weight: NonNegative = 0.0, dim: Count = 128, negatives: Count = 256, contrast_temperature: Positive = 0.07,
                 momentum: Share = 0.5) -> None:
        super().__init__()
        self.student, self.teacher, self.crd_weight, self.kd_weight = student, teacher, crd_weight, kd_weight
        self.negatives, self.contrast_temperature, self.momentum = negatives, contrast_temperature, momentum
        self.embed_s = nn.Linear(student.stages[student.last_stage].channels, dim)
        self.embed_t = nn.Linear(teacher.stages[teacher.last_stage].channels, dim)
        self.init_memory(1024)  # until setup() knows the number of clips
        self.register_buffer("log_z", torch.zeros(2))  # of the two directions; 0 until the first batch
        self.newest: list[tuple[Tensor, Tensor, Tensor]] = []

    def init_memory(self, clips: int) -> None:
        """Memory banks of random unit vectors for so many clips, the same in every process."""
        rows = torch.randn(2, clips, self.embed_s.out_features, generator=torch.Generator().manual_seed(0))
        device = self.embed_s.weight.device
        for name, memory in zip(("memory_s", "memory_t"), F.normalize(rows, dim=2).to(device), strict=True):
            self.register_buffer(name, memory)

    def setup(self, table: Table) -> None:
        self.init_memory(len(table))

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch, [self.student.last_stage])
        own, shown = on_common_clips(seen, observe_frozen(self.teacher, batch, [self.teacher.last_stage]))
        rows = batch.index[own.indices]
        v_s, v_t = self.embedding(own, self.student, self.embed_s), self.embedding(shown, self.teacher, self.embed_t)
        self.newest = [(rows, v_s.detach(), v_t.detach())] if self.training else []
        nce = (self.contrast(v_s, self.memory_t, rows, 0, progress.step)
               + self.contrast(v_t, self.memory_s, rows, 1, progress.step))
        terms = {"ce/student": (1.0, label_loss(seen, batch)),
                 "crd/teacher>student": (self.crd_weight, masked_mean(nce)),
                 "batch_clips/teacher>student": (0.0, count_across_ranks(rows))}
        if self.kd_weight:
            divergence = soft_target(own.logits, shown.logits, per_sample=True)
            terms["kd/teacher>student"] = (self.kd_weight, masked_mean(divergence))
        return terms

    def embedding(self, seen: Observation, net: Recognizer, embed: nn.Linear) -> Tensor:
        """Unit vectors ``(B, dim)`` in single precision."""
        return F.normalize(embed(seen.maps[net.last_stage].mean((2, 3, 4))).float(), dim=1)

    def contrast(self, vectors: Tensor, memory: Tensor, rows: Tensor, direction: int, step: int) -> Tensor:
        """Equation 18 for each clip: its own row of the other network's memory bank against random other rows."""
        clips, random = len(memory), torch.Generator().manual_seed(2 * step + direction)
        offsets = torch.randint(1, max(2, clips), (self.negatives,), generator=random).to(rows.device)
        drawn = torch.cat([rows.unsqueeze(1), (rows.unsqueeze(1) + offsets) % clips], 1)
        log_h = torch.einsum("bd,bkd->bk", vectors, memory[drawn].detach()) / self.contrast_temperature
        if self.training and self.log_z[direction] == 0 and len(every := gather_across_ranks(log_h.detach())):
            self.log_z[direction] = every.logsumexp((0, 1)) - math.log(every.numel() / clips)
        log_h = log_h - self.log_z[direction]
        return contrastive_representation(log_h[:, 0], log_h[:, 1:], clips, per_sample=True)

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        for rows, v_s, v_t in self.newest:
            rows, v_s, v_t = gather_across_ranks(rows), gather_across_ranks(v_s), gather_across_ranks(v_t)
            for memory, newest in ((self.memory_s, v_s), (self.memory_t, v_t)):
                memory[rows] = F.normalize(memory[rows] * self.momentum + newest * (1 - self.momentum), dim=1)
        self.newest = []
