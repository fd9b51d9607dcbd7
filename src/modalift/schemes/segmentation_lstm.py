"""Segmentation, then recurrence: an encoder first learns to segment the hand, then a recurrent head learns to use it."""

from __future__ import annotations

import math

import torch

from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.projection import check_stage
from modalift.schemes.reconstruction import Decoder, Reconstruction
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, observe
from modalift.signatures import Positive, Share


@scheme("segmentation_lstm")
class SegmentationLSTM(Scheme):
    r"""An encoder that was trained to predict the binarized depth feeds a recurrent network.

    .. math::
        L = \overline{(\hat D - [D < d_0])^2} \ \text{in phase 1}, \qquad L = \mathrm{CE}(z, y) \ \text{in phases 2 and 3}

    In the second phase the encoder is frozen, statistics included, and only the recurrent head is trained; in the third
    both are, and the last epoch is always of the third. Parameters without a gradient in a phase are not changed by weight
    decay or momentum either. Clips without labels contribute to the first phase only.

    Args:
        student: the network that is trained and deployed: an encoder of frames and a recurrent head (``cnn_lstm``), of 8, 16,
            24 or all frames of a clip.
        target_view: the view to segment.
        silhouette_threshold: :math:`d_0`, in the target's unit: nearer pixels are the hand.
        larger_is_nearer: whether larger readings are nearer, as in images where near is bright.
        segmentation_share: share of training that is phase 1.
        frozen_share: share of training that is phase 2.
        stage: the stage that the decoder reads; by default the last.

    Source: the compared method "Segmentation + LSTM" of MSD's Table V (arXiv 1909.08606; no code is public, and MSD gives
    neither layers nor schedule: those are ours; the shares were chosen on a training subject of UTD-MHAD, where .4 and .3 left
    too little of the training to learn labels from). The decoder's output has the clip's height and width.
    """

    has_phases = True
    examples = ({"target_view": "thermal", "silhouette_threshold": 25.0},)

    def __init__(self, student: Recognizer, *, target_view: str = "depth", silhouette_threshold: Positive = 1000.0,
                 larger_is_nearer: bool = False, segmentation_share: Share = 0.2, frozen_share: Share = 0.2,
                 stage: str = "") -> None:
        super().__init__()
        if segmentation_share + frozen_share >= 1:
            raise ModaliftError(f"scheme.segmentation_share = {segmentation_share}, scheme.frozen_share = {frozen_share} - give"
                                " shares of training whose sum is below 1")
        self.student, self.target_view = student, target_view
        self.segmentation_share, self.frozen_share = segmentation_share, frozen_share
        self.segmentation = Reconstruction(target_view, near=float(larger_is_nearer), far=float(not larger_is_nearer),
                                           silhouette_threshold=silhouette_threshold)
        self.segmentation.check(student)
        self.stage = check_stage(student, stage or student.last_stage, "stage")
        channels = student.stages[self.stage].channels
        self.decoder = Decoder(channels, [max(8, channels // share) for share in (8, 16, 32, 64)])

    def required_views(self) -> set[str]:
        return {self.student.view, self.target_view}

    def phases(self, epochs: int) -> tuple[int, int]:
        """The first epochs of the second and of the third phase; in a short training, every phase that fits has an epoch."""
        shares = self.segmentation_share, self.segmentation_share + self.frozen_share
        second, third = (math.ceil(round(share * epochs, 6)) for share in shares)
        last = epochs - 1
        at_least = int(self.frozen_share > 0 and last > 1)  # epochs of the second phase
        second = min(second, last - at_least)
        return second, min(max(third, second + at_least), last)

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        second, third = self.phases(progress.epochs)
        segments, frozen = progress.epoch < second, second <= progress.epoch < third
        if frozen:
            self.student.backbone.eval()
        seen = observe(self.student, batch, [self.stage, self.student.last_stage])
        with torch.set_grad_enabled(segments and torch.is_grad_enabled()):  # in the other phases only for the log
            frames = batch.clips[self.student.view].shape[2]
            error = self.segmentation.loss(self.decoder, seen.maps[self.stage], seen, frames, batch)
        if frozen:
            seen.logits = self.student.head(seen.maps[self.student.last_stage].detach())
            self.student.backbone.train(self.training)
        with torch.set_grad_enabled(not segments and torch.is_grad_enabled()):
            cross_entropy = label_loss(seen, batch)
        return {"ce/student": (0.0 if segments else 1.0, cross_entropy),
                f"segmentation/{self.target_view}>student": (1.0 if segments else 0.0, error)}
