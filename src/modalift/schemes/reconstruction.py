"""What schemes that reconstruct another view share: the decoder, and the loss between its output and the view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import depth_reconstruction
from modalift.losses.depth_reconstruction import has_readings
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.scheme import masked_mean


class Decoder(nn.Module):
    r"""From a map to an image: transposed convolutions of 4 x 4 and stride 2 with ReLU between them.

    Frame by frame, ``(B, C, T, h, w)`` to ``(B, 1, T, h 2^n, w 2^n)`` with n the number of ``widths`` plus one. Without
    ``upsample`` the convolutions are 3 x 3 of stride 1 and keep the extents. The output is linear; in [0, 1] with ``sigmoid``.
    """

    def __init__(self, channels: int, widths: list[int], upsample: bool = True, sigmoid: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, out in zip([channels, *widths], [*widths, 1], strict=True):
            layers += [nn.ConvTranspose2d(inside, out, 4, 2, 1) if upsample else nn.Conv2d(inside, out, 3, 1, 1)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        image = self.layers(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), x.shape[2])).transpose(1, 2)
        return torch.sigmoid(image) if self.sigmoid else image


@dataclass(frozen=True)
class Reconstruction:
    """A view to reconstruct, scaled to [0, 1] or binarized.

    Attributes:
        view: the view; not the one that the student reads.
        near, far: the readings that become 0 and 1, in the view's unit; readings outside are clipped.
        silhouette_threshold: if above 0, the target is binary instead: 1 where the reading is nearer than this, 0 elsewhere.
            Nearer means below if ``near`` is below ``far``, else above.
        antialias: see :func:`~modalift.losses.depth_reconstruction`.
    """

    view: str
    near: float
    far: float
    silhouette_threshold: float = 0.0
    antialias: bool = False

    def check(self, student: Recognizer) -> None:
        """Raises a ModaliftError if the student reads the view itself."""
        if self.view == student.view:
            raise ModaliftError(f"scheme.target_view = {self.view} is what the student reads - name another sensor's view")

    def target(self, batch: Batch, rows: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """The target of these clips in [0, 1], and where the sensor had a reading: both ``(B, 1, T, H, W)``.

        Raises:
            ModaliftError: the view is a signal, or its clips have another number of frames.
        """
        clip = batch.clips[self.view][rows].float()
        if clip.shape[3] == 1:
            raise ModaliftError(f"scheme.target_view = {self.view}: a signal is not an image - name a view of a camera")
        if clip.shape[2] != frames:
            raise ModaliftError(f"scheme.target_view = {self.view}: its clips have {clip.shape[2]} frames, the student's"
                                f" {frames} - frame both alike; remove frames from data.per_view")
        valid = batch.valid[self.view][rows] if self.view in batch.valid else torch.ones_like(clip[:, :1]).bool()
        readings = clip.mean(1, keepdim=True)
        if self.silhouette_threshold:
            nearer = readings < self.silhouette_threshold if self.near < self.far else readings > self.silhouette_threshold
            return (valid & nearer).float(), valid
        return ((readings - self.near) / (self.far - self.near)).clamp(0, 1), valid

    def loss(self, decoder: nn.Module, feature_map: Tensor, seen: Observation, frames: int, batch: Batch) -> Tensor:
        """The mean reconstruction error over the clips that have both sensors.

        Args:
            decoder: reconstructs the view.
            feature_map: its input, one of ``seen.maps``.
            seen: what the student made of its clips.
            frames: of the student's clips.
            batch: the clips.
        """
        both = batch.present[self.view][seen.indices]
        predicted: Tensor = decoder(feature_map[both])
        if not len(predicted):
            return masked_mean(predicted.flatten(1).sum(1))  # no clip has both: zero, with a gradient of zero
        target, valid = self.target(batch, seen.indices[both], frames)
        if predicted.shape[2] != target.shape[2]:  # a network of temporal stride reconstructs the frames that it keeps
            kept = torch.linspace(0, target.shape[2] - 1, predicted.shape[2], device=predicted.device).round().long()
            target, valid = target[:, :, kept], valid[:, :, kept]
        each = depth_reconstruction(predicted, target, valid, antialias=self.antialias, per_sample=True)
        return masked_mean(each, has_readings(valid, predicted.shape[3], predicted.shape[4], self.antialias))
