"""What ACTION-Net and TEA do with frames that are folded into the batch: convolve over them, and see them change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _as_picture(x: Tensor, frames: int) -> Tensor | None:
    """Channels-last frames on the CPU as pictures ``(B, C, T, H*W)``, without a copy; None for other tensors.

    Over time a convolution is a 3x1 convolution of such a picture, which reads the frames where they are. A compiler is
    shown the plain form: it joins that with what stands around it.
    """
    if torch.compiler.is_compiling() or x.device.type not in ("cpu", "meta"):
        return None
    if x.shape[1] == 1 or x.stride(1) != 1:  # some of the channels of such frames will do
        return None
    return x.permute(0, 2, 3, 1).reshape(-1, frames, x.shape[2] * x.shape[3], x.shape[1]).permute(0, 3, 1, 2)


def _as_frames(picture: Tensor, like: Tensor) -> Tensor:
    """The way back to ``(B*T, C, H, W)``."""
    return picture.permute(0, 2, 3, 1).reshape(-1, *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2)


def temporal_conv(x: Tensor, weight: Tensor, frames: int) -> Tensor:
    """The function of :class:`TemporalConv`; ``weight`` is ``(C, 1, 3)``."""
    picture = _as_picture(x, frames)
    if picture is not None:
        return _as_frames(F.conv2d(picture, weight.unsqueeze(3), padding=(1, 0), groups=x.shape[1]), x)
    clip = x.unflatten(0, (-1, frames))
    past, now, ahead = weight.to(x.dtype).unsqueeze(3).unbind(2)  # (C, 1, 1) each
    y = clip * now
    if frames > 1:
        y = y + F.pad(clip[:, :-1] * past, (0, 0, 0, 0, 0, 0, 1, 0)) + F.pad(clip[:, 1:] * ahead, (0, 0, 0, 0, 0, 0, 0, 1))
    return y.flatten(0, 1)


def temporal_conv_gradients(grad: Tensor, x: Tensor, weight: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`temporal_conv` for its input and its weight, all of one dtype."""
    pictures = _as_picture(grad, frames), _as_picture(x, frames)
    if pictures[0] is not None and pictures[1] is not None:
        dx, dw, _ = torch.ops.aten.convolution_backward(*pictures, weight.unsqueeze(3), None, (1, 1), (1, 0), (1, 1), False,
                                                        (0, 0), x.shape[1], (True, True, False))
        return _as_frames(dx, x), dw.squeeze(3)
    g, clip = grad.unflatten(0, (-1, frames)), x.unflatten(0, (-1, frames))
    past, now, ahead = weight.unsqueeze(3).unbind(2)
    dx = g * now
    dx[:, :-1].addcmul_(g[:, 1:], past)
    dx[:, 1:].addcmul_(g[:, :-1], ahead)
    taps = ((g[:, 1:] * clip[:, :-1]), (g * clip), (g[:, :-1] * clip[:, 1:]))
    return dx.flatten(0, 1), torch.stack([t.sum((0, 1, 3, 4)) for t in taps], 1).unsqueeze(1)


class TemporalConv(nn.Conv1d):
    r"""A convolution over three frames, of every channel by itself, that starts as a shift or as nothing.

    .. math:: y_{t,c} = w_{c,0}\, x_{t-1,c} + w_{c,1}\, x_{t,c} + w_{c,2}\, x_{t+1,c}

    where frames outside the clip are zero. At the start the first ``moved`` channels are those of the next frame, as
    many are those of the frame before and the rest stand still: :func:`modalift.networks.resnet.shift`, but learnable.
    The weight is ``(C, 1, 3)``, as that of the one-dimensional convolution of a pixel's frames that public code has;
    here no pixel's frames are gathered, which would copy the clip twice.

    Args:
        channels: C.
        moved: how many channels are moved each way at the start.

    Shapes: ``(B*T, C, H, W)`` and T -> ``(B*T, C, H, W)``, for any T of at least 1.

    Source: Wang, She, Smolic, "ACTION-Net", CVPR 2021, section 3.2; Li et al., "TEA", CVPR 2020, section 3.2.

    Example:
        >>> conv = TemporalConv(3, moved=1)
        >>> conv(torch.ones(3, 3, 1, 1), frames=3).flatten(1).tolist()  # the first looks ahead, the second back
        [[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """

    def __init__(self, channels: int, moved: int = 0) -> None:
        self.moved = moved
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)

    def reset_parameters(self) -> None:
        """The weight of the start."""
        with torch.no_grad():
            self.weight.zero_()
            self.weight[: self.moved, 0, 2] = 1
            self.weight[self.moved : 2 * self.moved, 0, 0] = 1
            self.weight[2 * self.moved :, 0, 1] = 1

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        return temporal_conv(x, self.weight, frames)


def change(z: Tensor, conv: nn.Module, frames: int) -> Tensor:
    r"""How much each channel changes to the next frame, over the whole picture.

    .. math:: c_t = \mathrm{mean}_{HW}(\mathrm{conv}(z)_{t+1} - z_t), \qquad c_{T-1} = 0

    The mean of the difference is made as the difference of the means, which is smaller.

    Shapes: ``(B*T, C, H, W)`` -> ``(B*T, C, 1, 1)``.
    """
    now = z.mean((2, 3), keepdim=True).unflatten(0, (-1, frames))
    ahead = conv(z).mean((2, 3), keepdim=True).unflatten(0, (-1, frames))
    return torch.cat([ahead[:, 1:] - now[:, :-1], torch.zeros_like(now[:, :1])], 1).flatten(0, 1)


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of single pixels; in training as the matrix product that it is, whose gradient is faster."""
    if conv.training:
        return F.linear(x.flatten(1), conv.weight.flatten(1))[..., None, None]
    y: Tensor = conv(x)
    return y
