"""MSD: depth is a picture that the color network must be able to draw."""

from __future__ import annotations

from typing import Literal

from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.drawing import Decoder, Picture
from modalift.schemes.projection import check_stage
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, watch
from modalift.signatures import NonNegative

Scale = Literal["full", "quarter"]


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

    examples = ({"target": "thermal", "near": 0.0, "far": 40.0},)

    def __init__(self, student: Recognizer, *, target: str = "depth", classify: NonNegative = 1.0, shallow: NonNegative = 1.0,
                 deep: NonNegative = 0.01, near: float = 500.0, far: float = 4500.0, nearer: NonNegative = 0.0,
                 shallow_scale: Scale = "full", deep_scale: Scale = "quarter", shallow_stage: str = "", deep_stage: str = "",
                 sigmoid: bool = False, antialias: bool = False) -> None:
        super().__init__()
        if near == far:
            raise ModaliftError(f"scheme.near = scheme.far = {near} - they are the readings that become 0 and 1")
        self.student, self.target = student, target
        self.weights, self.picture = (classify, shallow, deep), Picture(target, near, far, nearer, antialias)
        self.picture.check(student)
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
        frames = batch.clips[self.student.view].shape[2]
        terms = {"ce/student": (classify, label_loss(seen, batch))}  # equation 6
        for name, stage, decoder, weight in (("local", self.stages[0], self.local, shallow),  # equation 4
                                             ("global", self.stages[1], self.wide, deep)):  # equation 5
            drawn = self.picture.loss(decoder, seen.maps[stage], seen, frames, batch)
            terms[f"{name}/{self.target}>student"] = (weight, drawn)
        return terms
