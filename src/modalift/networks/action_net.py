"""``action_net``: a ResNet with spatio-temporal, channel and motion excitation in every block."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modalift.networks.fused_ops import ConvOperator, can_fuse
from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.resnet import Block, ResNet
from modalift.networks.shift import Placement, ShiftDiv
from modalift.networks.spec import NetworkSpec
from modalift.networks.temporal import TemporalConv, frame_difference, pointwise, temporal_conv, temporal_conv_gradients
from modalift.signatures import Positive, Share


def _chunks(x: Tensor) -> Iterator[slice]:
    """Groups of frames that fit a CPU's cache together; on other devices all frames at once."""
    step = max(1, 2**18 // x[0].numel()) if x.device.type == "cpu" else len(x)
    return (slice(i, i + step) for i in range(0, len(x), step))


def _scale(x: Tensor, gain: Tensor, place: Tensor, offset: Tensor | None = None, plane: Tensor | None = None) -> Tensor:
    """``x * (gain + place) + offset + plane``, written into ``x``.

    ``gain`` and ``offset`` have one value per frame and channel, ``place`` and ``plane`` one per frame and pixel.
    """
    for s in _chunks(x):
        part = x[s]
        scaled = part * gain[s] if offset is None else torch.addcmul(offset[s], part, gain[s])
        torch.addcmul(scaled, part, place[s], out=part)
        if plane is not None:
            part += plane[s]
    return x


class _ExcitedConvolution(torch.autograd.Function):
    """``conv(x~ * (gain + place))`` that keeps ``x`` and the small tensors, and computes the rest again for its gradient.

    Written with plain operations, a training step keeps five tensors of the size of ``x`` and allocates a dozen more in
    its backward pass. Here there are no more than two at a time; the time goes into fresh memory, not into arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, action: Action, conv: nn.Conv2d, frames: int, x: Tensor, moving: Tensor, squeeze: Tensor,
                kernel: Tensor, *rest: Tensor) -> Tensor:
        moving, squeeze, kernel = (w.to(x.dtype) for w in (moving, squeeze, kernel))
        shifted = temporal_conv(x, moving, frames)
        narrow, wide = ConvOperator.of(action.action_p3_squeeze), ConvOperator.of(conv)
        small = [shifted.mean(1, keepdim=True), shifted.mean((2, 3), keepdim=True), narrow.forward(shifted, squeeze, None)]
        with torch.enable_grad():  # what follows is small and has a graph of its own
            small = [s.requires_grad_() for s in small]
            masks = tuple(m.to(x.dtype) for m in action.excite(small[0], small[1], small[2], frames))
        place, gain = (m.detach() for m in masks)
        ctx.operators, ctx.frames, ctx.small, ctx.masks, ctx.rest = (narrow, wide), frames, small, masks, rest
        ctx.save_for_backward(x, place, gain, moving, squeeze, kernel)
        return wide.forward(_scale(shifted, gain, place), kernel, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, place, gain, moving, squeeze, kernel = ctx.saved_tensors
        narrow, wide = ctx.operators
        shifted = temporal_conv(x, moving, ctx.frames)
        dy: Tensor = wide.backward(grad, shifted, kernel, (True, False, False))[0]
        dplace, dgain = torch.empty_like(place), torch.empty_like(gain)
        for s in _chunks(dy):
            both = dy[s] * shifted[s]
            torch.sum(both, 1, keepdim=True, out=dplace[s])
            torch.sum(both, (2, 3), keepdim=True, out=dgain[s])
        learn = [w for w in ctx.rest if w.requires_grad]
        dplane, dpool, dz, *found = torch.autograd.grad(ctx.masks, [*ctx.small, *learn], [dplace, dgain], retain_graph=True)
        dsqueeze = narrow.backward(dz, shifted, squeeze, (False, True, False))[1]
        dkernel = wide.backward(grad, _scale(shifted, gain, place), kernel, (False, True, False))[1]
        del shifted
        dshifted = _scale(dy, gain, place, dpool / (x.shape[2] * x.shape[3]), dplane / x.shape[1])
        if dshifted.is_contiguous(memory_format=torch.channels_last):
            rows = dshifted.permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # a view
            rows.addmm_(dz.permute(0, 2, 3, 1).reshape(-1, dz.shape[1]), squeeze.flatten(1))
        else:
            dshifted += narrow.backward(dz, dshifted, squeeze, (True, False, False))[0]
        dx, dmoving = temporal_conv_gradients(dshifted, x, moving, ctx.frames)
        others = iter(found)
        return None, None, None, dx, dmoving, dsqueeze, dkernel, *(next(others) if w.requires_grad else None for w in ctx.rest)


class Action(nn.Module):
    r"""The ACTION module: shifted frames, scaled by spatio-temporal (STE), channel (CE) and motion excitation (ME).

    .. math:: \tilde X = \mathrm{shift}(X), \qquad Y = \tilde X \odot (3 + M_1 + M_2 + M_3)

    .. math:: M_1 = \sigma(K_1 * \mathrm{mean}_C(\tilde X)), \qquad
              M_2 = \sigma(W_2\, \mathrm{ReLU}(K_2 * W_1\, \mathrm{mean}_{HW}(\tilde X)))

    .. math:: M_3 = \sigma(W_4\, \mathrm{mean}_{HW}(d)), \qquad d_t = (K_3 * z)_{t+1} - z_t, \quad d_{T-1} = 0, \qquad
              z = \mathrm{BN}(W_3 \tilde X)

    where the shift is learnable (:class:`~modalift.networks.temporal.TemporalConv`), :math:`K_1` is 3x3x3 over a map of
    one channel, :math:`W_1` and :math:`W_3` reduce C channels to C / 16, :math:`K_2` spans three frames, and :math:`K_3` is
    a depthwise 3x3 convolution.

    The paper adds three excited copies of its input, :math:`\sum_i (\tilde X + \tilde X M_i)`: the same, with two more
    multiplications. They are added and not averaged: at initialization, where the masks are about one half, the output is
    4.5 times the input.

    Args:
        channels: C.
        shift_div: the inverse of the share of channels that is shifted each way at initialization.

    Shapes: ``(B*T, C, H, W)`` and T -> ``(B*T, C, H, W)``.

    Source: Wang, She, Smolic, "ACTION-Net: Multipath excitation for action recognition", CVPR 2021, section 3; the
    normalization of z is in the public code (V-Sense/ACTION-Net) only.

    Example:
        >>> x = torch.ones(4, 32, 5, 5)
        >>> Action(32).eval()(x, frames=4).shape
        torch.Size([4, 32, 5, 5])
    """

    def __init__(self, channels: int, shift_div: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // 16)
        self.action_shift = TemporalConv(channels, channels // shift_div)
        self.action_p1_conv1 = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        self.action_p2_squeeze = nn.Conv2d(channels, inner, 1, bias=False)
        self.action_p2_conv1 = nn.Conv1d(inner, inner, 3, padding=1, bias=False)
        self.action_p2_expand = nn.Conv2d(inner, channels, 1, bias=False)
        self.action_p3_squeeze = nn.Conv2d(channels, inner, 1, bias=False)
        self.action_p3_bn1 = nn.BatchNorm2d(inner)
        self.action_p3_conv1 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.action_p3_expand = nn.Conv2d(inner, channels, 1, bias=False)

    def reset_parameters(self) -> None:
        """Initializes all weights."""
        for layer in self.children():
            layer.reset_parameters()  # type: ignore[operator]

    def excite(self, plane: Tensor, pool: Tensor, z: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """``M1`` and ``3 + M2 + M3`` of the shifted frames' mean over channels, mean over pixels and squeezed map.

        Shapes: ``(B*T, 1, H, W)``, ``(B*T, C, 1, 1)``, ``(B*T, C/16, H, W)`` ->
        ``(B*T, 1, H, W)``, ``(B*T, C, 1, 1)``.
        """
        clip = plane.squeeze(1).unflatten(0, (-1, frames)).unsqueeze(1)  # (B, 1, T, H, W)
        where = self.action_p1_conv1(clip).sigmoid().squeeze(1).flatten(0, 1).unsqueeze(1)

        inner = pointwise(self.action_p2_squeeze, pool).flatten(1).unflatten(0, (-1, frames))  # (B, T, C/16)
        inner = self.action_p2_conv1(inner.transpose(1, 2)).relu().transpose(1, 2).flatten(0, 1)
        channel = pointwise(self.action_p2_expand, inner[..., None, None]).sigmoid()

        difference = frame_difference(self.action_p3_bn1(z), self.action_p3_conv1, frames)
        motion = pointwise(self.action_p3_expand, difference).sigmoid()
        return where, 3 + channel + motion

    def forward(self, x: Tensor, frames: int) -> Tensor:
        shifted = self.action_shift(x, frames)
        place, gain = self.excite(shifted.mean(1, keepdim=True), shifted.mean((2, 3), keepdim=True),
                                  self.action_p3_squeeze(shifted), frames)
        return torch.addcmul(shifted * gain, shifted, place)

    def convolve(self, conv: nn.Conv2d, x: Tensor, frames: int) -> Tensor:
        """``conv(self(x, frames))``, of which a training step keeps little more than ``x`` for its backward pass."""
        if not (self.training and can_fuse(conv, self.action_p3_squeeze)):
            y: Tensor = conv(self(x, frames))
            return y
        if torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        own = ("action_shift.", "action_p3_squeeze.")
        rest = [w for name, w in self.named_parameters() if not name.startswith(own)]
        y = _ExcitedConvolution.apply(self, conv, frames, x, self.action_shift.weight, self.action_p3_squeeze.weight,
                                      conv.weight, *rest)
        return y


class ActionBlock(Block):
    """A residual block with an :class:`Action` module before its first convolution; the skip path is unchanged."""

    def __init__(self, channels_in: int, width: int, stride: int, bottleneck: bool, placement: Placement,
                 shift_div: int, causal: bool) -> None:
        super().__init__(channels_in, width, stride, bottleneck, placement, shift_div, causal)
        self.action = Action(channels_in, shift_div)

    def first_conv(self, x: Tensor, frames: int, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.action.convolve(self.conv1, x, frames), x


class ActionResNet(ResNet):
    """A ResNet of :class:`ActionBlock`; arguments and stages are those of
    :class:`~modalift.networks.resnet.ResNet`."""

    def __init__(self, channels: int, layout: str = "resnet50", width: int = 64, shift_div: int = 8) -> None:
        super().__init__(channels, layout, width, shift_div=shift_div, block=ActionBlock)
        self.warned = False
        for block in self.blocks():
            block.action.reset_parameters()

    def blocks(self) -> list[ActionBlock]:
        """All its blocks, in order."""
        return [m for m in self.modules() if isinstance(m, ActionBlock)]

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        if not torch.compiler.is_compiling():
            if self.training and not self.warned:
                self.warn_of_frozen_statistics()
            if x.device.type in ("cpu", "meta"):  # channels last: convolutions over time then need no copies
                x = x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        return super().features(x, keep)

    def warn_of_frozen_statistics(self) -> None:
        """Warns once if a BatchNorm after an excitation is frozen.

        Its statistics then belong to weights without ACTION modules, while its input is 4.5 times as large: activations
        grow from block to block and training does not start.
        """
        for block in self.blocks():
            frozen = block.conv1.weight.requires_grad and not block.bn1.weight.requires_grad
            if frozen or not block.bn1.training:
                warnings.warn("network 'action_net' trains with frozen BatchNorm, but its ACTION modules multiply their input "
                              "by about 4.5 at initialization - train BatchNorm too (no partial BN), unless the initial "
                              "weights were trained with these modules", stacklevel=2)
                self.warned = True
                return


@network("action_net", papers="MSD")
def action_net(spec: NetworkSpec, *, backbone: str = "resnet50", width: Positive = 1.0, dropout: Share = 0.5,
               shift_div: ShiftDiv = 8) -> Recognizer:
    """ACTION-Net: a temporal-shift ResNet with spatio-temporal, channel and motion excitation in every block.

    Args:
        backbone: ``resnet50`` (published weights); ``resnet18`` and ``resnet34``, where the module comes before the first
            3x3 convolution of every block, as in the public code; ``resnet8`` for small images.
        width: factor on the channels of every layer (1: 64 channels in the stem).
        dropout: dropout probability before the classifier.
        shift_div: the inverse of the share of channels that comes from each neighboring frame at initialization.

    Any number of frames works, also one to three, which the public code refuses. At initialization every module multiplies its
    input by about 4.5 (:class:`Action`): with ImageNet weights, BatchNorm must be trained too; a warning says so where it is
    frozen.

    Raises:
        ModaliftError: an unknown backbone, or an option outside its range.

    Source: Wang, She, Smolic, "ACTION-Net: Multipath excitation for action recognition", CVPR 2021; public code
    V-Sense/ACTION-Net. Parameters and multiply-accumulates are exactly that code's.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("action_net", backbone="resnet18", classes=25, channels=1)
        >>> net.stages["layer4"].channels
        512
    """
    trunk = ActionResNet(spec.prepared_channels, backbone, scaled_width(64, width), shift_div)
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
