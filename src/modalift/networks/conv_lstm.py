"""``conv_lstm``: a short 3D ResNet, two convolutional LSTMs over its frames, and a MobileNet over their outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks.frames import fold_frames, unfold_frames
from modalift.networks.padding import pad_same
from modalift.networks.r3d import PooledLogits, convolve
from modalift.networks.recognizer import Backbone, Recognizer, Stage, scaled_width
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive, Share

#: The cells of the two recurrent layers: gated twice, attention then gated, standard twice.
Cell = Literal["gated", "attention_input", "standard"]

#: Output channels and stride of the separable convolutions after the recurrent layers.
MOBILE = ((256, 1), (256, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 2))


def hard_sigmoid(x: Tensor) -> Tensor:
    r"""The gates' sigmoid as in Keras, :math:`\mathrm{clip}(0.2 x + 0.5, 0, 1)`.

    Steeper than :func:`torch.nn.functional.hardsigmoid`.
    """
    return (0.2 * x + 0.5).clamp(0, 1)


def norm3d(channels: int) -> nn.BatchNorm3d:
    """BatchNorm with the constants of the reference, which are Keras's."""
    return nn.BatchNorm3d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """A residual block of two 3 x 3 x 3 convolutions.

    Args:
        channels_in, channels: of its input and output.
        stride: in time, height and width.
        project: whether the skip path goes through a 1 x 1 x 1 convolution.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T / stride, H / stride, W / stride)``, rounded up.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, project: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv3d(channels_in, channels, 3, stride, bias=False)
        self.bn1 = norm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if project:
            self.downsample = nn.Sequential(nn.Conv3d(channels_in, channels, 1, stride, bias=False), norm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(pad_same(x, [3] * 3, [self.stride] * 3))))
        y = self.bn2(convolve(self.conv2, y))
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(y + skip)


class Separable(nn.Sequential):
    """A depthwise 3 x 3 convolution, then a 1 x 1 convolution.

    Shapes: ``(B, C, H, W)`` -> ``(B, C', H / stride, W / stride)``, rounded up.
    """

    def __init__(self, channels_in: int, channels: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, groups=channels_in, bias=False)
        self.pointwise = nn.Conv2d(channels_in, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(pad_same(x, [3] * 2, [self.stride] * 2)))


class Recurrent(nn.Module):
    """Base of the convolutional LSTMs, over the frames of a clip; h and c start at zero.

    Args:
        hidden: channels of h and c.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, hidden, T, H, W)``: h of every frame.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def input_terms(self, x: Tensor) -> tuple[Tensor, ...]:
        """The terms that do not depend on h, computed for all frames ``(B*T, C, H, W)`` at once."""
        raise NotImplementedError  # every cell implements it

    def step(self, terms: Sequence[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next h and c, from one frame of :meth:`input_terms`."""
        raise NotImplementedError  # every cell implements it

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[2]
        parts = [p.unflatten(0, (-1, frames)).unbind(1) for p in self.input_terms(fold_frames(x))]
        h = c = parts[0][0].new_zeros((x.shape[0], self.hidden, *x.shape[3:]))
        states = []
        for terms in zip(*parts, strict=True):
            h, c = self.step(terms, h, c)
            states.append(h)
        return torch.stack(states, 2)


class ConvLSTM(Recurrent):
    r"""An LSTM with 3 x 3 convolutions in place of matrix products.

    .. math:: i, f, o = \sigma(W * x_t + U * h_{t-1} + b), \quad
              \tilde c = \tanh(W_c * x_t + U_c * h_{t-1} + b_c), \quad
              c_t = f c_{t-1} + i \tilde c, \quad h_t = o \tanh c_t

    with :math:`\sigma` the :func:`hard_sigmoid`; the forget gate's bias starts at 1.

    Args:
        channels, hidden: of its input, and of h and c.

    Shapes: see :class:`Recurrent`. Source: Shi et al., "Convolutional LSTM network", NeurIPS 2015, without peepholes.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(hidden)
        self.input = nn.Conv2d(channels, 4 * hidden, 3, padding=1)
        self.recurrent = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)

    def input_terms(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.input(x),)

    def step(self, terms: Sequence[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, candidate, o = (terms[0] + self.recurrent(h)).chunk(4, 1)
        c = hard_sigmoid(f) * c + hard_sigmoid(i) * candidate.tanh()
        return hard_sigmoid(o) * c.tanh(), c


class GatedConvLSTM(Recurrent):
    r"""A ConvLSTM whose gates have one number per channel, and whose convolutions are separable.

    .. math:: i, f, o = \sigma(W \bar x_t + U \bar h_{t-1} + b), \quad
              \tilde c = \tanh(W_c \star x_t + U_c \star h_{t-1} + b_c), \quad
              c_t = f c_{t-1} + i \tilde c, \quad h_t = o \tanh c_t

    where bars are means over height and width, :math:`\star` a separable 3 x 3 convolution and :math:`\sigma` the
    :func:`hard_sigmoid`. W and U start at one over their number of inputs.

    Args:
        channels, hidden: of its input, and of h and c.

    Shapes: see :class:`Recurrent`. Source: Zhu et al., "Redundancy and attention in convolutional LSTM for gesture
    recognition", TNNLS 2019 (reference repository: GuangmingZhu/ConvLSTMForGR).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(hidden)
        self.input = Separable(channels, hidden)
        self.recurrent = Separable(hidden, hidden, bias=False)
        self.input_gates = nn.Linear(channels, 3 * hidden)
        self.recurrent_gates = nn.Linear(hidden, 3 * hidden, bias=False)

    def input_terms(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.input(x), self.input_gates(x.mean((2, 3)))

    def step(self, terms: Sequence[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        candidate, gates = terms
        gates = hard_sigmoid(gates + self.recurrent_gates(h.mean((2, 3))))
        i, f, o = gates[:, :, None, None].chunk(3, 1)  # (B, hidden, 1, 1)
        c = f * c + i * (candidate + self.recurrent(h)).tanh()
        return o * c.tanh(), c


class AttentionConvLSTM(GatedConvLSTM):
    r"""A gated ConvLSTM with spatial attention on its input.

    .. math:: a = \mathrm{softmax}_{HW}\left( w * \tanh(W_a \star x_t + U_a \star h_{t-1} + b_a) \right), \qquad
              x_t \leftarrow a\, x_t

    and then the step of :class:`GatedConvLSTM`; ``w`` is a 3 x 3 kernel with one output, and a sums to one over
    the frame.

    Args:
        channels, hidden: of its input, and of h and c.

    Shapes: see :class:`Recurrent`. Source: Zhang et al., "Attention in convolutional LSTM for gesture recognition",
    NeurIPS 2018, variant (b) (reference repository: GuangmingZhu/AttentionConvLSTM).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels, hidden)
        self.input_attention = Separable(channels, hidden)
        self.recurrent_attention = Separable(hidden, hidden, bias=False)
        self.attention = nn.Conv2d(hidden, 1, 3, padding=1, bias=False)

    def input_terms(self, x: Tensor) -> tuple[Tensor, ...]:
        return x, self.input_attention(x)

    def step(self, terms: Sequence[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        x, projected = terms
        score = self.attention((projected + self.recurrent_attention(h)).tanh())  # (B, 1, H, W)
        x = x * score.flatten(1).softmax(1).view_as(score)
        return super().step(super().input_terms(x), h, c)


#: The classes of the two recurrent layers; their arguments are the channels of the input and of h.
CELLS: dict[str, tuple[Callable[[int, int], Recurrent], Callable[[int, int], Recurrent]]] = {
    "gated": (GatedConvLSTM, GatedConvLSTM),
    "attention_input": (AttentionConvLSTM, GatedConvLSTM),
    "standard": (ConvLSTM, ConvLSTM),
}


class MobileNet(nn.Sequential):
    """Separable convolutions with BatchNorm and ReLU6 over every frame.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', T, H / 8, W / 8)``, rounded up.
    """

    def __init__(self, channels: int, plan: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.channels = channels
        for out, stride in plan:
            self.append(nn.Sequential(Separable(self.channels, out, stride), nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
                                      nn.ReLU6(inplace=True)))
            self.channels = out

    def forward(self, x: Tensor) -> Tensor:
        return unfold_frames(super().forward(fold_frames(x)), x.shape[2])


class Res3DConvLSTM(Backbone):
    """The trunk: Res3D, two recurrent layers, MobileNet.

    Stages are ``conv1``, ``res2`` to ``res4``, ``lstm1``, ``lstm2`` and ``mobile``.

    Args:
        channels: channels of the prepared clip.
        cell: which recurrent layers.
        width: factor on the channels of every layer.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, 1024 * width, T / 2, H / 32, W / 32)``, rounded up, for any T, H and W of at
    least 1.
    """

    def __init__(self, channels: int, cell: Cell = "gated", width: float = 1.0) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ModaliftError(f"unknown cell '{cell}' of conv_lstm - {nearest(cell, CELLS)}")
        scaled = partial(scaled_width, width=width)
        inside = scaled(64)
        self.conv1 = nn.Conv3d(channels, inside, (3, 7, 7), (1, 2, 2), bias=False)
        self.bn1 = norm3d(inside)
        self.relu = nn.ReLU(inplace=True)
        self.stages = {"conv1": Stage(inside, 2)}
        space, time = 2, 1
        for number, count, stride in ((2, 64, 1), (3, 128, 2), (4, 256, 1)):
            blocks = nn.Sequential(Block(inside, scaled(count), stride, project=True),
                                   Block(scaled(count), scaled(count), 1, project=False))
            self.add_module(f"res{number}", blocks)
            inside, space, time = scaled(count), space * stride, time * stride
            self.stages[f"res{number}"] = Stage(inside, space, time)
        for i, kind in enumerate(CELLS[cell]):
            self.add_module(f"lstm{i + 1}", kind(inside, scaled(256)))
            inside = scaled(256)
            self.stages[f"lstm{i + 1}"] = Stage(inside, space, time)
        self.mobile = MobileNet(inside, [(scaled(count), stride) for count, stride in MOBILE])
        self.channels = self.mobile.channels
        self.stages["mobile"] = Stage(self.channels, space * 8, time)
        self.initialize()

    def initialize(self) -> None:
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
            elif isinstance(m, nn.Linear):  # of gates: the mean of their inputs
                nn.init.constant_(m.weight, 1 / m.in_features)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        for m in self.modules():
            if isinstance(m, ConvLSTM):
                assert m.input.bias is not None
                with torch.no_grad():
                    m.input.bias[m.hidden: 2 * m.hidden] = 1.0

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        maps: dict[str, Tensor] = {}
        x = self.relu(self.bn1(self.conv1(pad_same(x, (3, 7, 7), (1, 2, 2)))))
        if "conv1" in keep:
            maps["conv1"] = x
        for name in list(self.stages)[1:]:
            stage = getattr(self, name)
            for part in stage if name.startswith("res") else [stage]:
                x = self.checkpointed(part, x)
            if name in keep:
                maps[name] = x
        return x, maps


@network("conv_lstm", papers="MSD, MTCD", clip=(3, 32, 112))
def conv_lstm(spec: NetworkSpec, *, cell: Cell = "gated", width: Positive = 1.0, dropout: Share = 0.0,
              checkpointing: bool = False) -> Recognizer:
    """Res3D, two convolutional LSTMs of 256 channels, and a MobileNet on each of their frames.

    Args:
        cell: ``gated`` (both layers gated), ``attention_input`` (the first one also has spatial attention on its input) or
            ``standard``.
        width: factor on the channels of every layer.
        dropout: dropout probability before the classifier.
        checkpointing: in training, keep only the inputs of blocks and recurrent layers, and compute the rest again.

    Any number of frames and pixels works; the papers use 32 of 112 x 112.

    Raises:
        ModaliftError: an unknown cell, or an option outside its range.

    Source: Zhang et al., "Attention in convolutional LSTM for gesture recognition", NeurIPS 2018; Zhu et al.,
    "Redundancy and attention in convolutional LSTM for gesture recognition", TNNLS 2019 (reference repositories:
    GuangmingZhu/AttentionConvLSTM and ConvLSTMForGR, TensorFlow 1, whose padding and BatchNorm constants are kept).
    MTCD's AttentionLSTM is ``attention_input`` and its gateconvLSTM ``gated``; the parameters of MSD's attentionLSTM
    (20.7 M) are those of ``standard`` at 83 classes. Deviation: He's initialization throughout; a depthwise kernel counts
    as nine inputs.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("conv_lstm", classes=25, width=0.125).stages["lstm2"].shape(32, 112, 112)
        (32, 16, 28, 28)
    """
    trunk = Res3DConvLSTM(spec.prepared_channels, cell, width)
    trunk.checkpointing = checkpointing
    return Recognizer(spec, trunk, PooledLogits(trunk.channels, spec.classes, dropout))
