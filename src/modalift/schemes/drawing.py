"""What schemes whose student draws a picture share: the decoder, and how far a drawing is from what was to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.losses import depth_reconstruction
from modalift.losses.depth_reconstruction import readings
from modalift.modalities import Batch
from modalift.networks import Observation, Recognizer
from modalift.schemes.scheme import average


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


@dataclass(frozen=True)
class Picture:
    """What is to be drawn: a view on a scale of 0 to 1, or the silhouette of what is nearer than a distance.

    Attributes:
        view: the view; another one than the student reads.
        near, far: its readings that become 0 and 1, in its own unit; what lies outside is clipped.
        nearer: 1 what is nearer than this, 0 what is not, instead of the scale; 0: the scale. Nearer is below where ``near``
            is below ``far``, and above where near is bright.
        antialias: see :func:`~modalift.losses.depth_reconstruction`.
    """

    view: str
    near: float
    far: float
    nearer: float = 0.0
    antialias: bool = False

    def check(self, student: Recognizer) -> None:
        """Raises for a view that the student reads itself."""
        if self.view == student.view:
            raise ModaliftError(f"scheme.target = {self.view} is what the student reads - name another sensor's view")

    def wanted(self, batch: Batch, rows: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """What is to be drawn of these clips, and where there was a reading: both ``(B, 1, T, H, W)``.

        Raises:
            ModaliftError: the view is a signal, or its clips are not of so many frames.
        """
        picture = batch.clips[self.view][rows].float()
        if picture.shape[3] == 1:
            raise ModaliftError(f"scheme.target = {self.view}: a signal is no picture - name a view of a camera")
        if picture.shape[2] != frames:
            raise ModaliftError(f"scheme.target = {self.view}: its clips have {picture.shape[2]} frames, the student's {frames}"
                                " - frame both alike; remove frames from data.per_view")
        sensed = batch.valid[self.view][rows] if self.view in batch.valid else torch.ones_like(picture[:, :1]).bool()
        target = picture.mean(1, keepdim=True)
        if self.nearer:
            near = target < self.nearer if self.near < self.far else target > self.nearer
            return (sensed & near).float(), sensed
        return ((target - self.near) / (self.far - self.near)).clamp(0, 1), sensed

    def loss(self, decoder: nn.Module, feature_map: Tensor, seen: Observation, frames: int, batch: Batch) -> Tensor:
        """How far what a decoder draws of a map is from the picture, over the clips that have both sensors.

        Args:
            decoder: draws.
            feature_map: one of ``seen.maps``.
            seen: what the student made of its clips.
            frames: of the student's clips.
            batch: the clips.
        """
        both = batch.present[self.view][seen.indices]
        made: Tensor = decoder(feature_map[both])
        if not len(made):
            return average(made.flatten(1).sum(1))  # no clip has both: zero, with a gradient of zero
        target, sensed = self.wanted(batch, seen.indices[both], frames)
        if made.shape[2] != target.shape[2]:  # a network that thins out time draws the frames that it kept
            kept = torch.linspace(0, target.shape[2] - 1, made.shape[2], device=made.device).round().long()
            target, sensed = target[:, :, kept], sensed[:, :, kept]
        each = depth_reconstruction(made, target, sensed, antialias=self.antialias, per_sample=True)
        return average(each, readings(sensed, made.shape[3], made.shape[4], self.antialias))
