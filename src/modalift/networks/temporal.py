"""Temporal operations of ACTION-Net and TEA on frames that are folded into the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _as_image(x: Tensor, frames: int) -> Tensor | None:
    """Channels-last frames on the CPU as images ``(B, C, T, H*W)``, without a copy; None for other tensors.

    A convolution over time is a 3x1 convolution of such an image, which needs no copy of the frames. A compiler gets the
    plain form, which it can fuse with its neighbors.
    """
    if torch.compiler.is_compiling() or x.device.type not in ("cpu", "meta"):
        return None
    if x.shape[1] == 1 or x.stride(1) != 1:  # also true for a slice of the channels of channels-last frames
        return None
    return x.permute(0, 2, 3, 1).reshape(-1, frames, x.shape[2] * x.shape[3], x.shape[1]).permute(0, 3, 1, 2)


def _from_image(image: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`_as_image`, to ``(B*T, C, H, W)``."""
    return image.permute(0, 2, 3, 1).reshape(-1, *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2)


def temporal_conv(x: Tensor, weight: Tensor, frames: int) -> Tensor:
    """The forward pass of :class:`TemporalConv`; ``weight`` is ``(C, 1, 3)``."""
    image = _as_image(x, frames)
    if image is not None:
        return _from_image(F.conv2d(image, weight.unsqueeze(3), padding=(1, 0), groups=x.shape[1]), x)
    clip = x.unflatten(0, (-1, frames))
    past, now, ahead = weight.to(x.dtype).unsqueeze(3).unbind(2)  # (C, 1, 1) each
    y = clip * now
    if frames > 1:
        y = y + F.pad(clip[:, :-1] * past, (0, 0, 0, 0, 0, 0, 1, 0)) + F.pad(clip[:, 1:] * ahead, (0, 0, 0, 0, 0, 0, 0, 1))
    return y.flatten(0, 1)


def temporal_conv_gradients(grad: Tensor, x: Tensor, weight: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`temporal_conv` with respect to its input and its weight, all of one dtype."""
    images = _as_image(grad, frames), _as_image(x, frames)
    if images[0] is not None and images[1] is not None:
        dx, dw, _ = torch.ops.aten.convolution_backward(*images, weight.unsqueeze(3), None, (1, 1), (1, 0), (1, 1), False,
                                                        (0, 0), x.shape[1], (True, True, False))
        return _from_image(dx, x), dw.squeeze(3)
    g, clip = grad.unflatten(0, (-1, frames)), x.unflatten(0, (-1, frames))
    past, now, ahead = weight.unsqueeze(3).unbind(2)
    dx = g * now
    dx[:, :-1].addcmul_(g[:, 1:], past)
    dx[:, 1:].addcmul_(g[:, :-1], ahead)
    taps = ((g[:, 1:] * clip[:, :-1]), (g * clip), (g[:, :-1] * clip[:, 1:]))
    return dx.flatten(0, 1), torch.stack([t.sum((0, 1, 3, 4)) for t in taps], 1).unsqueeze(1)


class TemporalConv(nn.Conv1d):
    r"""A depthwise convolution over three frames, initialized as a temporal shift or as the identity.

    .. math:: y_{t,c} = w_{c,0}\, x_{t-1,c} + w_{c,1}\, x_{t,c} + w_{c,2}\, x_{t+1,c}

    where frames outside the clip are zero. At initialization the first ``shifted`` channels come from the next frame, as
    many from the frame before, and the rest from the frame itself: a learnable :func:`modalift.networks.shift.shift`. The
    weight is ``(C, 1, 3)``, as that of the ``Conv1d`` per pixel in public code, which would copy the clip twice.

    Args:
        channels: C.
        shifted: number of channels that are shifted each way at initialization.

    Shapes: ``(B*T, C, H, W)`` and T -> ``(B*T, C, H, W)``, for any T of at least 1.

    Source: Wang, She, Smolic, "ACTION-Net", CVPR 2021, section 3.2; Li et al., "TEA", CVPR 2020, section 3.2.

    Example:
        >>> conv = TemporalConv(3, shifted=1)
        >>> conv(torch.ones(3, 3, 1, 1), frames=3).flatten(1).tolist()  # next, previous, own frame
        [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """

    def __init__(self, channels: int, shifted: int = 0) -> None:
        self.shifted = shifted
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)

    def reset_parameters(self) -> None:
        """Initializes the weight."""
        with torch.no_grad():
            self.weight.zero_()
            self.weight[: self.shifted, 0, 2] = 1
            self.weight[self.shifted : 2 * self.shifted, 0, 0] = 1
            self.weight[2 * self.shifted :, 0, 1] = 1

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        return temporal_conv(x, self.weight, frames)


def frame_difference(z: Tensor, conv: nn.Module, frames: int) -> Tensor:
    r"""The mean change of each channel to the next frame, over the whole image.

    .. math:: c_t = \mathrm{mean}_{HW}(\mathrm{conv}(z)_{t+1} - z_t), \qquad c_{T-1} = 0

    It is computed as the difference of the means, which are smaller tensors.

    Shapes: ``(B*T, C, H, W)`` -> ``(B*T, C, 1, 1)``.
    """
    now = z.mean((2, 3), keepdim=True).unflatten(0, (-1, frames))
    ahead = conv(z).mean((2, 3), keepdim=True).unflatten(0, (-1, frames))
    return torch.cat([ahead[:, 1:] - now[:, :-1], torch.zeros_like(now[:, :1])], 1).flatten(0, 1)


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of single pixels; in training as a matrix product, whose gradient is faster."""
    if conv.training:
        return F.linear(x.flatten(1), conv.weight.flatten(1))[..., None, None]
    y: Tensor = conv(x)
    return y
