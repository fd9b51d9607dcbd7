"""Segmentation, then recurrence: first learn to draw where the hand is, then to read the drawing's encoder over time."""

from __future__ import annotations

import math

import torch

from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.drawing import Decoder, Picture
from modalift.schemes.projection import check_stage
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, watch
from modalift.signatures import Positive, Share


@scheme("segmentation_lstm")
class SegmentationLSTM(Scheme):
    r"""An encoder that has learned to draw the binarized depth feeds a recurrent network.

    .. math::
        L = \overline{(\hat D - [D < d_0])^2} \ \text{at first}, \qquad L = \mathrm{CE}(z, y) \ \text{after that}

    In the second phase the encoder stands still, statistics included, and only the recurrent head learns; in the third
    both do, and the last epoch is always of the third. What a phase does not teach rests: neither decay nor momentum moves
    it. Clips without labels take part in the first.

    Args:
        student: the network that learns and ships: an encoder of frames under a recurrent head (``cnn_lstm``), of 8, 16,
            24 or all frames of a clip.
        target: the view to draw.
        nearer: :math:`d_0`, in the target's unit: what is nearer is the hand.
        bright: whether larger readings are nearer, as in pictures that show near as bright.
        draw: share of training that draws.
        still: share of training after that in which the encoder stands still.
        deep_stage: the stage that the drawing is made from; by default the last.

    Source: the rival "Segmentation + LSTM" of MSD's Table V (arXiv 1909.08606; no code is public, and MSD gives neither
    layers nor schedule: those are ours; the shares were chosen on a training subject of UTD-MHAD, where .4 and .3 left too
    little of the training to learn labels from). The drawing has the clip's extents.
    """

    rests = True
    examples = ({"target": "thermal", "nearer": 25.0},)

    def __init__(self, student: Recognizer, *, target: str = "depth", nearer: Positive = 1000.0, bright: bool = False,
                 draw: Share = 0.2, still: Share = 0.2, deep_stage: str = "") -> None:
        super().__init__()
        if draw + still >= 1:
            raise ModaliftError(f"scheme.draw = {draw}, scheme.still = {still} - shares of training whose sum is below 1")
        self.student, self.target = student, target
        self.picture = Picture(target, near=float(bright), far=float(not bright), nearer=nearer)
        self.picture.check(student)
        self.draw, self.still = draw, still
        self.stage = check_stage(student, deep_stage or student.last_stage, "deep_stage")
        channels = student.stages[self.stage].channels
        self.decoder = Decoder(channels, [max(8, channels // share) for share in (8, 16, 32, 64)])

    def needs(self) -> set[str]:
        return {self.student.view, self.target}

    def phases(self, epochs: int) -> tuple[int, int]:
        """The epochs at which the second and the third phase begin: the last epoch, at the latest, learns labels."""
        ends = [math.ceil(round(share * epochs, 6)) for share in (self.draw, self.draw + self.still)]
        most = epochs - 1
        still = int(self.still > 0 and most > 1)  # a short training still has each phase that fits
        first = min(ends[0], most - still)
        return first, min(max(ends[1], first + still), most)

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        first, second = self.phases(progress.epochs)
        drawing, stands = progress.epoch < first, first <= progress.epoch < second
        if stands:
            self.student.backbone.eval()
        seen = watch(self.student, batch, [self.stage, self.student.last_stage])
        with torch.set_grad_enabled(drawing and torch.is_grad_enabled()):  # afterwards only for the log
            frames = batch.clips[self.student.view].shape[2]
            drawn = self.picture.loss(self.decoder, seen.maps[self.stage], seen, frames, batch)
        if stands:
            seen.logits = self.student.head(seen.maps[self.student.last_stage].detach())
            self.student.backbone.train(self.training)
        with torch.set_grad_enabled(not drawing and torch.is_grad_enabled()):
            recognized = label_loss(seen, batch)
        return {"ce/student": (0.0 if drawing else 1.0, recognized),
                f"draw/{self.target}>student": (1.0 if drawing else 0.0, drawn)}
