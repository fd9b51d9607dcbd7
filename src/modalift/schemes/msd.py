"""MSD: the color network learns to reconstruct depth from its first and from its last stage."""

from __future__ import annotations

from typing import Literal

from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.projection import check_stage
from modalift.schemes.reconstruction import Decoder, Reconstruction
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, observe
from modalift.signatures import NonNegative

Scale = Literal["full", "quarter"]


@scheme("msd")
class MSD(Scheme):
    r"""Multi-scale decoders: recognition, and reconstruction of depth from a shallow and from the deepest map.

    .. math:: L = w_c\, \mathrm{CE}(z, y) + w_l\, \overline{(\hat D_l - D)^2} + w_g\, \overline{(\hat D_g - D\!\downarrow)^2}

    where the local decoder predicts :math:`\hat D_l` from the first stage at the clip's height and width, the global decoder
    :math:`\hat D_g` from the last stage at a quarter of them, and D is the depth in [0, 1]: 0 at ``near``, 1 at ``far``.
    Pixels without a reading are left out. The decoders are training only. Reconstruction needs no labels.

    Args:
        student: the network that is trained and deployed (the paper: color; TSN, TSM, TEA or ACTION-Net on ResNet-50).
        target_view: the view to reconstruct.
        ce_weight, local_weight, global_weight: :math:`w_c, w_l, w_g`.
        near, far: the target's readings that become 0 and 1, in its own unit (millimeters of depth; 0 and 255 for a gray
            image); readings outside are clipped.
        silhouette_threshold: if above 0, reconstruct the silhouette of what is nearer than this, in the target's unit (the
            ablation of Table VIII). Nearer means below if ``near`` is below ``far``, else above (images where near is bright).
        local_scale, global_scale: a reconstruction's height and width, as ``full`` or ``quarter`` of the clip's (Table VII).
        local_stage, global_stage: names of the stages; by default the first and the last.
        sigmoid: whether reconstructions are limited to [0, 1].
        antialias: see :func:`~modalift.losses.depth_reconstruction`.

    Widths are 64-32-1 and 2048-256-32-1 on ResNet-50, the only powers of two that have the paper's 8.5 M parameters and
    4.37 G multiply-accumulates, and the same shares of other networks' channels, at least 8. A full global reconstruction has
    two more transposed convolutions, a quarter local one plain convolutions; the paper does not give their widths.

    Source: *Multi-scale depth decoders* (papers/msd), equations 4 to 7, Tables VI to VIII.
    """

    examples = ({"target_view": "thermal", "near": 0.0, "far": 40.0},)

    def __init__(self, student: Recognizer, *, target_view: str = "depth", ce_weight: NonNegative = 1.0,
                 local_weight: NonNegative = 1.0, global_weight: NonNegative = 0.01, near: float = 500.0, far: float = 4500.0,
                 silhouette_threshold: NonNegative = 0.0, local_scale: Scale = "full", global_scale: Scale = "quarter",
                 local_stage: str = "", global_stage: str = "", sigmoid: bool = False, antialias: bool = False) -> None:
        super().__init__()
        if near == far:
            raise ModaliftError(f"scheme.near = scheme.far = {near} - give the readings that become 0 and 1")
        self.student, self.target_view = student, target_view
        self.ce_weight, self.local_weight, self.global_weight = ce_weight, local_weight, global_weight
        self.reconstruction = Reconstruction(target_view, near, far, silhouette_threshold, antialias)
        self.reconstruction.check(student)
        self.local_stage = check_stage(student, local_stage or next(iter(student.stages)), "local_stage")
        self.global_stage = check_stage(student, global_stage or student.last_stage, "global_stage")
        few, many = student.stages[self.local_stage].channels, student.stages[self.global_stage].channels
        self.local_decoder = Decoder(few, [max(8, few // 2)], local_scale == "full", sigmoid)
        shares = (8, 64) if global_scale == "quarter" else (8, 16, 32, 64)
        self.global_decoder = Decoder(many, [max(8, many // share) for share in shares], True, sigmoid)

    def required_views(self) -> set[str]:
        return {self.student.view, self.target_view}

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch, (self.local_stage, self.global_stage))
        frames = batch.clips[self.student.view].shape[2]
        local = self.reconstruction.loss(self.local_decoder, seen.maps[self.local_stage], seen, frames, batch)
        deepest = self.reconstruction.loss(self.global_decoder, seen.maps[self.global_stage], seen, frames, batch)
        return {"ce/student": (self.ce_weight, label_loss(seen, batch)),  # equation 6
                f"local_reconstruction/{self.target_view}>student": (self.local_weight, local),  # 4
                f"global_reconstruction/{self.target_view}>student": (self.global_weight, deepest)}  # 5
