"""MTCD's attentive feature converter: a neck between a trunk and its classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError


class FeatureConverter(nn.Module):
    r"""Spatial attention, then temporal attention, added to the input map.

    .. math::
        U = \mathrm{Conv}_{3 \times 3}(F), \quad S = \sigma(\mathrm{Conv}_{3 \times 3}(U)), \quad G = F + U \otimes S, \\
        A = \sigma(\mathrm{Conv}_3(\mathrm{avgpool}_{HW}(G))), \quad F_{out} = F + G \otimes A

    where S has one number per position and frame, ``(B, 1, T, H, W)``, and A one per channel and frame, ``(B, C, T, 1, 1)``,
    from a convolution over time: after pooling, a 3 x 3 convolution over the image would see padding only.

    Args:
        channels: C.
        reduction: r. With 1 each convolution has C channels, as printed: 50 million weights at C = 2048, more than the
            trunk has. Otherwise each is a bottleneck of C / r channels (about 5 million weights at 8).

    Shapes: ``(B, C, T, H, W)`` -> the same.

    Raises:
        ModaliftError: a reduction outside 1 .. C.

    Source: MTCD, equations 8 and 9, which print two names for one map; the channels of S and the reduction are our
    choice, as the paper gives neither.

    Example:
        >>> FeatureConverter(8, reduction=2)(torch.rand(1, 8, 3, 4, 4)).shape
        torch.Size([1, 8, 3, 4, 4])
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ModaliftError(f"neck_reduction = {reduction} - it must lie between 1 and the map's {channels} channels")
        inner = channels // reduction
        frame = {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}
        self.convert: nn.Module = nn.Conv3d(channels, inner, **frame)  # type: ignore[arg-type]
        self.along: nn.Module = nn.Conv1d(channels, inner, 3, padding=1)
        if reduction > 1:
            self.convert = nn.Sequential(self.convert, nn.ReLU(inplace=True), nn.Conv3d(inner, channels, 1))
            self.along = nn.Sequential(self.along, nn.ReLU(inplace=True), nn.Conv1d(inner, channels, 1))
        self.where = nn.Conv3d(channels, 1, **frame)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        converted = self.convert(x)
        gated = x + converted * torch.sigmoid(self.where(converted))
        when = torch.sigmoid(self.along(gated.mean((3, 4))))[..., None, None]
        return x + gated * when
