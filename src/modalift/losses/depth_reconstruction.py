"""MSD's reconstruction error of a predicted depth image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modalift.losses.full_precision import full_precision
from modalift.losses.maps import as_clip


def has_readings(valid: Tensor, height: int, width: int, antialias: bool = False) -> Tensor:
    """Which clips have a valid reading after resizing ``valid``, bool ``(B, 1, T, H, W)``: bool ``(B,)``."""
    return resized(valid.float(), height, width, antialias).flatten(1).amax(1) > 0


def resized(image: Tensor, height: int, width: int, antialias: bool = False) -> Tensor:
    """Frames ``(B, C, T, H, W)``, bilinearly interpolated to another height and width."""
    if image.shape[3:] == (height, width):
        return image
    frames = image.transpose(1, 2).flatten(0, 1)
    small = F.interpolate(frames, (height, width), mode="bilinear", align_corners=False, antialias=antialias)
    return small.unflatten(0, (len(image), image.shape[2])).transpose(1, 2)


@full_precision
def depth_reconstruction(predicted: Tensor, depth: Tensor, valid: Tensor | None = None, *, antialias: bool = False,
                         per_sample: bool = False) -> Tensor:
    r"""Mean squared error of a predicted depth image.

    .. math:: L = \overline{\ \sum_p v_p\, (\hat d_p - d_p)^2 \big/ \sum_p v_p\ }

    where d is the depth in [0, 1], resized to the height and width of the prediction, p runs over a clip's frames and pixels,
    and v is 1 where the sensor had a reading, else 0; after resizing, the share of valid pixels. The mean is over the clips
    that have a reading.

    Args:
        predicted: ``(B, 1, T, h, w)`` or ``(B, 1, h, w)``.
        depth: the target, the same with H, W; gets no gradient.
        valid: bool, of the shape of ``depth``; None: all valid.
        antialias: whether downsampling averages over all pixels. Without it, as in the paper's code base, downsampling by 4
            reads 4 of 16 pixels.
        per_sample: ``(B,)`` instead of the mean; 0 for a clip without a reading.

    Source: MSD, equations 4 and 5. These print a sum over pixels and clips divided by the number of clips; the text says
    pixel-wise mean squared error, and with the sum no weight near 1 would balance a cross-entropy.

    Example:
        >>> depth_reconstruction(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 4, 4)).item()
        1.0
    """
    predicted, depth = as_clip(predicted), as_clip(depth.detach())
    height, width = predicted.shape[3:]
    if valid is None:
        weight, target = torch.ones_like(predicted), resized(depth, height, width, antialias)
    else:
        weight = resized(as_clip(valid).to(predicted.dtype), height, width, antialias)
        known = torch.where(as_clip(valid), depth, torch.zeros_like(depth))
        target = resized(known, height, width, antialias) / weight.clamp_min(1e-6)
    error = (weight * (predicted - target).square()).flatten(1).sum(1)
    count = weight.expand_as(predicted).flatten(1).sum(1)
    each = error / count.clamp_min(1e-6)
    return each if per_sample else each.sum() / (count > 0).sum().clamp_min(1)
