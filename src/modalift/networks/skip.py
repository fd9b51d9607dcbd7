"""The strided 1x1 convolution of a skip path, correct on every processor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: From this number of input channels on (the width of an AVX-512 register), oneDNN's strided convolution is correct.
_SAFE_CHANNELS = 16


class SlicedConv2d(nn.Conv2d):
    r"""A strided 1x1 convolution that, in training, first slices its input and then convolves without a stride.

    .. math:: y_{n,o,i,j} = \sum_c W_{o,c}\, x_{n,c,si,sj}

    Parameters, results and gradients are those of ``nn.Conv2d``. In PyTorch 2.13, oneDNN computes the weight
    gradient of a strided 1x1 convolution of channels-last maps in a workspace that it overruns if there are fewer channels
    than a vector register holds: wrong gradients, or a crash (uxlfoundation/oneDNN #6035; float32, 2 to 7
    channels with AVX2). Without a stride it uses no workspace.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and self.weight.requires_grad):  # only the weight's gradient is affected
            return super().forward(x)
        down, right = self.stride
        return F.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


def skip_convolution(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """The 1x1 convolution of a skip path, without bias, with correct gradients on every processor.

    Example:
        >>> type(skip_convolution(4, 8, 2)).__name__, type(skip_convolution(64, 128, 2)).__name__
        ('SlicedConv2d', 'Conv2d')
    """
    sliced = stride > 1 and channels_in < _SAFE_CHANNELS
    return (SlicedConv2d if sliced else nn.Conv2d)(channels_in, channels, 1, stride, bias=False)
