"""MSD: depth is a picture that the color network must be able to draw."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import depth_reconstruction
from modalift.losses.depth_reconstruction import readings
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.projection import check_stage
from modalift.schemes.scheme import Progress, Scheme, Terms, average, label_loss, not_negative, scheme, watch

Scale = Literal["full", "quarter"]


class Decoder(nn.Module):
    r"""A map to a picture: transposed convolutions of 4 x 4 and stride 2, ReLU between, each doubling the extents.

    Over every frame, ``(B, C, T, h, w)`` to ``(B, 1, T, h 2^n, w 2^n)`` with n the number of widths. Without ``grow`` the
    convolutions are plain ones of 3 x 3 that keep the extents. The output is linear; in [0, 1] with ``sigmoid``.
    """

    def __init__(self, channels: int, widths: list[int], grow: bool = True, sigmoid: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, out in zip([channels, *widths], [*widths, 1], strict=True):
            layers += [nn.ConvTranspose2d(inside, out, 4, 2, 1) if grow else nn.Conv2d(inside, out, 3, 1, 1)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.layers(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), x.shape[2])).transpose(1, 2)
        return torch.sigmoid(drawn) if self.sigmoid else drawn


@scheme("msd")
class MSD(Scheme):
    r"""Multi-scale decoders: recognize, and draw the depth picture from a shallow and from the deepest map.

    .. math:: L = w_c\, \mathrm{CE}(z, y) + w_l\, \overline{(\hat D_l - D)^2} + w_g\, \overline{(\hat D_g - D\!\downarrow)^2}

    where :math:`\hat D_l` is drawn from the first stage at the clip's extents, :math:`\hat D_g` from the last at a quarter
    of them, and D is the depth picture in [0, 1]: 0 at ``near``, 1 at ``far``. Where the sensor had no reading nothing is
    asked. The decoders stay at home; drawing needs no labels.

    Args:
        student: the network that learns and ships (the paper: color; TSN, TSM, TEA or ACTION-Net on ResNet-50).
        target: the view to draw.
        classify, shallow, deep: :math:`w_c, w_l, w_g`.
        near, far: the target's readings that become 0 and 1, in its own unit (millimeters of depth; 0 and 255 for a gray
            picture); what lies outside is clipped.
        nearer: draw the silhouette of what is nearer than this instead (the ablation of Table VIII); 0: do not. Nearer is
            below where ``near`` is below ``far``, and above where near is bright.
        shallow_scale, deep_scale: a drawing's extents as ``full`` or ``quarter`` of the clip's (Table VII).
        shallow_stage, deep_stage: names of the stages; by default the first and the last.
        sigmoid: whether drawings are kept in [0, 1].
        antialias: see :func:`~modalift.losses.depth_reconstruction`.

    Widths are 64-32-1 and 2048-256-32-1 on ResNet-50, the only powers of two that have the paper's 8.5 M parameters and
    4.37 G multiply-accumulates, and the same shares of other networks' channels, at least 8. A full deep drawing takes two more
    steps and a quarter shallow one plain convolutions; the paper does not give their widths.

    Source: *Multi-scale depth decoders* (papers/msd), equations 4 to 7, Tables VI to VIII.
    """

    def __init__(self, student: Recognizer, *, target: str = "depth", classify: float = 1.0, shallow: float = 1.0,
                 deep: float = 0.01, near: float = 500.0, far: float = 4500.0, nearer: float = 0.0,
                 shallow_scale: Scale = "full", deep_scale: Scale = "quarter", shallow_stage: str = "", deep_stage: str = "",
                 sigmoid: bool = False, antialias: bool = False) -> None:
        super().__init__()
        if near == far:
            raise ModaliftError(f"scheme.near = scheme.far = {near} - they are the readings that become 0 and 1")
        if target == student.view:
            raise ModaliftError(f"scheme.target = {target} is what the student reads - name another sensor's view")
        not_negative(classify=classify, shallow=shallow, deep=deep, nearer=nearer)
        self.student, self.target = student, target
        self.weights, self.near, self.far, self.nearer = (classify, shallow, deep), near, far, nearer
        self.antialias = antialias
        first = check_stage(student, shallow_stage or next(iter(student.stages)), "shallow_stage")
        last = check_stage(student, deep_stage or student.last_stage, "deep_stage")
        self.stages = first, last
        few, many = student.stages[first].channels, student.stages[last].channels
        self.local = Decoder(few, [max(8, few // 2)], shallow_scale == "full", sigmoid)
        shares = (8, 64) if deep_scale == "quarter" else (8, 16, 32, 64)
        self.wide = Decoder(many, [max(8, many // share) for share in shares], True, sigmoid)

    def needs(self) -> set[str]:
        return {self.student.view, self.target}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = watch(self.student, batch, self.stages)
        classify, shallow, deep = self.weights
        terms = {"ce/student": (classify, label_loss(seen, batch))}  # equation 6
        for name, stage, decoder, weight in (("local", self.stages[0], self.local, shallow),  # equation 4
                                             ("global", self.stages[1], self.wide, deep)):  # equation 5
            terms[f"{name}/{self.target}>student"] = (weight, self.drawn(seen, stage, decoder, batch))
        return terms

    def drawn(self, seen: Observation, stage: str, decoder: nn.Module, batch: Batch) -> Tensor:
        """How far a drawing is from the target, over the clips that have both sensors."""
        rows = torch.arange(len(batch), device=batch.labels.device) if seen.rows is None else seen.rows
        both = batch.present[self.target][rows]
        made = decoder(seen.maps[stage][both])
        if not len(made):
            return average(made.flatten(1).sum(1))  # no clip has both: zero, with a gradient of zero
        picture = batch.clips[self.target][rows[both]].float()
        if picture.shape[3] == 1:
            raise ModaliftError(f"scheme.target = {self.target}: a signal is no picture - name a view of a camera")
        frames, wanted = picture.shape[2], batch.clips[self.student.view].shape[2]
        if frames != wanted:
            raise ModaliftError(f"scheme.target = {self.target}: its clips have {frames} frames, the student's {wanted} -"
                                " frame both alike; remove frames from data.per_view")
        sensed = batch.valid[self.target][rows[both]] if self.target in batch.valid else torch.ones_like(picture[:, :1]).bool()
        target = picture.mean(1, keepdim=True)
        if self.nearer:
            near = target < self.nearer if self.near < self.far else target > self.nearer
            target = (sensed & near).float()
        else:
            target = ((target - self.near) / (self.far - self.near)).clamp(0, 1)
        if made.shape[2] != target.shape[2]:  # a network that thins out time draws the frames that it kept
            kept = torch.linspace(0, target.shape[2] - 1, made.shape[2], device=made.device).round().long()
            target, sensed = target[:, :, kept], sensed[:, :, kept]
        each = depth_reconstruction(made, target, sensed, antialias=self.antialias, per_sample=True)
        return average(each, readings(sensed, made.shape[3], made.shape[4], self.antialias))
