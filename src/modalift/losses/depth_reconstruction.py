"""MSD's reconstruction: from the color network's maps the depth picture can be drawn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modalift.losses.maps import as_clip
from modalift.losses.precision import full_precision


def readings(valid: Tensor, height: int, width: int, antialias: bool = False) -> Tensor:
    """Which clips have any reading left at these extents: bool ``(B, 1, T, H, W)`` to ``(B,)``."""
    return resized(valid.float(), height, width, antialias).flatten(1).amax(1) > 0


def resized(picture: Tensor, height: int, width: int, antialias: bool = False) -> Tensor:
    """Frames ``(B, C, T, H, W)`` brought to other extents by bilinear interpolation."""
    if picture.shape[3:] == (height, width):
        return picture
    frames = picture.transpose(1, 2).flatten(0, 1)
    small = F.interpolate(frames, (height, width), mode="bilinear", align_corners=False, antialias=antialias)
    return small.unflatten(0, (len(picture), picture.shape[2])).transpose(1, 2)


@full_precision
def depth_reconstruction(drawn: Tensor, depth: Tensor, valid: Tensor | None = None, *, antialias: bool = False,
                         per_sample: bool = False) -> Tensor:
    r"""Mean squared error of a drawn depth picture.

    .. math:: L = \overline{\ \sum_p v_p\, (\hat d_p - d_p)^2 \big/ \sum_p v_p\ }

    where d is the depth in [0, 1], resized to the drawing's extents, p runs over a clip's frames and pixels, and v says where
    the sensor had a reading: a pixel of the smaller picture counts by the share of its readings. The mean is over the clips
    that have any.

    Args:
        drawn: ``(B, 1, T, h, w)`` or ``(B, 1, h, w)``.
        depth: the same with extents H, W; a target.
        valid: bool, as ``depth``; None: everywhere.
        antialias: average over all pixels when shrinking. Without it, as in the paper's code base, a factor of 4 reads
            4 of 16 pixels.
        per_sample: ``(B,)``; 0 for a clip without any reading.

    Source: MSD, equations 4 and 5. These print a sum over pixels and clips divided by the number of clips; the text says
    pixel-wise mean squared error, and with the sum no weight near 1 could stand beside a cross-entropy.

    Example:
        >>> depth_reconstruction(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 4, 4)).item()
        1.0
    """
    drawn, depth = as_clip(drawn), as_clip(depth.detach())
    height, width = drawn.shape[3:]
    if valid is None:
        weight, target = torch.ones_like(drawn), resized(depth, height, width, antialias)
    else:
        weight = resized(as_clip(valid).to(drawn.dtype), height, width, antialias)
        read = torch.where(as_clip(valid), depth, torch.zeros_like(depth))
        target = resized(read, height, width, antialias) / weight.clamp_min(1e-6)
    error = (weight * (drawn - target).square()).flatten(1).sum(1)
    count = weight.expand_as(drawn).flatten(1).sum(1)
    each = error / count.clamp_min(1e-6)
    return each if per_sample else each.sum() / (count > 0).sum().clamp_min(1)
