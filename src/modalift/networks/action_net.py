"""``action_net``: a ResNet whose blocks ask where, in which channel and in which motion something happens."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modalift.networks.fused import Operator, saves
from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, wide
from modalift.networks.registry import network
from modalift.networks.resnet import Block, Part, Placement, ResNet
from modalift.networks.spec import NetworkSpec
from modalift.networks.temporal import TemporalConv, change, pointwise, temporal_conv, temporal_conv_gradients
from modalift.signatures import Positive


def _pieces(x: Tensor) -> Iterator[slice]:
    """Runs of frames that stay in a CPU's cache while they are worked on; elsewhere all frames at once."""
    step = max(1, 2**18 // x[0].numel()) if x.device.type == "cpu" else len(x)
    return (slice(i, i + step) for i in range(0, len(x), step))


def _scale(x: Tensor, gain: Tensor, place: Tensor, offset: Tensor | None = None, plane: Tensor | None = None) -> Tensor:
    """``x * (gain + place) + offset + plane`` in place of ``x``: one value a frame and channel, or a frame and pixel."""
    for s in _pieces(x):
        part = x[s]
        scaled = part * gain[s] if offset is None else torch.addcmul(offset[s], part, gain[s])
        torch.addcmul(scaled, part, place[s], out=part)
        if plane is not None:
            part += plane[s]
    return x


class _ExcitedConvolution(torch.autograd.Function):
    """``conv(x~ * (gain + place))`` that keeps ``x`` and the small tensors, and makes the rest again for its gradient.

    Written out, a training step keeps five tensors of the size of ``x`` and makes a dozen more on its way back. Here no
    more than two are there at a time: beside such steps it is the fresh memory that costs, not the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, action: Action, conv: nn.Conv2d, frames: int, x: Tensor, moving: Tensor, squeeze: Tensor,
                kernel: Tensor, *rest: Tensor) -> Tensor:
        moving, squeeze, kernel = (w.to(x.dtype) for w in (moving, squeeze, kernel))
        moved = temporal_conv(x, moving, frames)
        narrow, wide = Operator.of(action.action_p3_squeeze), Operator.of(conv)
        small = [moved.mean(1, keepdim=True), moved.mean((2, 3), keepdim=True), narrow.forward(moved, squeeze, None)]
        with torch.enable_grad():  # what follows is small and keeps a graph of its own
            small = [s.requires_grad_() for s in small]
            masks = tuple(m.to(x.dtype) for m in action.excite(small[0], small[1], small[2], frames))
        place, gain = (m.detach() for m in masks)
        ctx.operators, ctx.frames, ctx.small, ctx.masks, ctx.rest = (narrow, wide), frames, small, masks, rest
        ctx.save_for_backward(x, place, gain, moving, squeeze, kernel)
        return wide.forward(_scale(moved, gain, place), kernel, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, place, gain, moving, squeeze, kernel = ctx.saved_tensors
        narrow, wide = ctx.operators
        moved = temporal_conv(x, moving, ctx.frames)
        dy: Tensor = wide.backward(grad, moved, kernel, (True, False, False))[0]
        dplace, dgain = torch.empty_like(place), torch.empty_like(gain)
        for s in _pieces(dy):
            both = dy[s] * moved[s]
            torch.sum(both, 1, keepdim=True, out=dplace[s])
            torch.sum(both, (2, 3), keepdim=True, out=dgain[s])
        learn = [w for w in ctx.rest if w.requires_grad]
        dplane, dpool, dz, *found = torch.autograd.grad(ctx.masks, [*ctx.small, *learn], [dplace, dgain], retain_graph=True)
        dsqueeze = narrow.backward(dz, moved, squeeze, (False, True, False))[1]
        dkernel = wide.backward(grad, _scale(moved, gain, place), kernel, (False, True, False))[1]
        del moved
        dmoved = _scale(dy, gain, place, dpool / (x.shape[2] * x.shape[3]), dplane / x.shape[1])
        if dmoved.is_contiguous(memory_format=torch.channels_last):
            rows = dmoved.permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # a view
            rows.addmm_(dz.permute(0, 2, 3, 1).reshape(-1, dz.shape[1]), squeeze.flatten(1))
        else:
            dmoved += narrow.backward(dz, dmoved, squeeze, (True, False, False))[0]
        dx, dmoving = temporal_conv_gradients(dmoved, x, moving, ctx.frames)
        others = iter(found)
        return None, None, None, dx, dmoving, dsqueeze, dkernel, *(next(others) if w.requires_grad else None for w in ctx.rest)


class Action(nn.Module):
    r"""The ACTION module: shifted frames, each excited where (STE), in which channel (CE) and in which motion (ME).

    .. math:: \tilde X = \mathrm{shift}(X), \qquad Y = \tilde X \odot (3 + M_1 + M_2 + M_3)

    .. math:: M_1 = \sigma(K_1 * \mathrm{mean}_C(\tilde X)), \qquad
              M_2 = \sigma(W_2\, \mathrm{ReLU}(K_2 * W_1\, \mathrm{mean}_{HW}(\tilde X)))

    .. math:: M_3 = \sigma(W_4\, \mathrm{mean}_{HW}(d)), \qquad d_t = (K_3 * z)_{t+1} - z_t, \quad d_{T-1} = 0, \qquad
              z = \mathrm{BN}(W_3 \tilde X)

    where the shift is learnable (:class:`~modalift.networks.temporal.TemporalConv`), :math:`K_1` is 3x3x3 over a map of
    one channel, :math:`W_1` and :math:`W_3` leave one channel of sixteen, :math:`K_2` looks at three frames and
    :math:`K_3` at 3x3 pixels of each channel by itself.

    The paper adds three excited copies of its input, :math:`\sum_i (\tilde X + \tilde X M_i)`: the same with two
    multiplications more. They are added and not averaged, so that with masks of one half, as they are about at the start,
    the output is 4.5 times the input.

    Args:
        channels: C.
        part: one ``part``-th of the channels is moved each way at the start.

    Shapes: ``(B*T, C, H, W)`` and T -> ``(B*T, C, H, W)``.

    Source: Wang, She, Smolic, "ACTION-Net: Multipath excitation for action recognition", CVPR 2021, section 3; the
    normalization of z stands in the public code (V-Sense/ACTION-Net) only.

    Example:
        >>> x = torch.ones(4, 32, 5, 5)
        >>> Action(32).eval()(x, frames=4).shape
        torch.Size([4, 32, 5, 5])
    """

    def __init__(self, channels: int, part: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // 16)
        self.action_shift = TemporalConv(channels, channels // part)
        self.action_p1_conv1 = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        self.action_p2_squeeze = nn.Conv2d(channels, inner, 1, bias=False)
        self.action_p2_conv1 = nn.Conv1d(inner, inner, 3, padding=1, bias=False)
        self.action_p2_expand = nn.Conv2d(inner, channels, 1, bias=False)
        self.action_p3_squeeze = nn.Conv2d(channels, inner, 1, bias=False)
        self.action_p3_bn1 = nn.BatchNorm2d(inner)
        self.action_p3_conv1 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.action_p3_expand = nn.Conv2d(inner, channels, 1, bias=False)

    def reset_parameters(self) -> None:
        """The weights of the start."""
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

        motion = pointwise(self.action_p3_expand, change(self.action_p3_bn1(z), self.action_p3_conv1, frames)).sigmoid()
        return where, 3 + channel + motion

    def forward(self, x: Tensor, frames: int) -> Tensor:
        moved = self.action_shift(x, frames)
        place, gain = self.excite(moved.mean(1, keepdim=True), moved.mean((2, 3), keepdim=True),
                                  self.action_p3_squeeze(moved), frames)
        return torch.addcmul(moved * gain, moved, place)

    def convolve(self, conv: nn.Conv2d, x: Tensor, frames: int) -> Tensor:
        """``conv(self(x, frames))``, of which a training step keeps little more than ``x``."""
        if not (self.training and saves(conv, self.action_p3_squeeze)):
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
    """A residual block with an :class:`Action` module in front of its first convolution; the skip path is left alone."""

    def __init__(self, channels_in: int, width: int, stride: int, bottleneck: bool, placement: Placement,
                 part: int, causal: bool) -> None:
        super().__init__(channels_in, width, stride, bottleneck, placement, part, causal)
        self.action = Action(channels_in, part)

    def first(self, x: Tensor, frames: int, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.action.convolve(self.conv1, x, frames), x


class ActionResNet(ResNet):
    """A ResNet of :class:`ActionBlock`; arguments and stages are those of
    :class:`~modalift.networks.resnet.ResNet`."""

    def __init__(self, channels: int, layout: str = "resnet50", width: int = 64, part: int = 8) -> None:
        super().__init__(channels, layout, width, part=part, block=ActionBlock)
        self.told = False
        for block in self.blocks():
            block.action.reset_parameters()

    def blocks(self) -> list[ActionBlock]:
        """All of them, in order."""
        return [m for m in self.modules() if isinstance(m, ActionBlock)]

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        if not torch.compiler.is_compiling():
            if self.training and not self.told:
                self.warn_of_frozen_statistics()
            if x.device.type in ("cpu", "meta"):  # channels last: convolutions over time then need no copies
                x = x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        return super().features(x, keep)

    def warn_of_frozen_statistics(self) -> None:
        """Says once if a BatchNorm behind an excitation does not learn.

        Its statistics are then those of weights without ACTION, and what it gets is 4.5 times as large: activations
        grow from block to block and training does not start.
        """
        for block in self.blocks():
            still = block.conv1.weight.requires_grad and not block.bn1.weight.requires_grad
            if still or not block.bn1.training:
                warnings.warn("network 'action_net' trains with frozen BatchNorm, but its modules multiply their input by "
                              "about 4.5 at the start - let BatchNorm train (no partial BN), unless the weights that it "
                              "starts from were trained with these modules", stacklevel=2)
                self.told = True
                return


@network("action_net", papers="MSD")
def action_net(spec: NetworkSpec, *, backbone: str = "resnet50", width: Positive = 1.0, dropout: float = 0.5,
               part: Part = 8) -> Recognizer:
    """ACTION-Net: a temporal-shift ResNet with spatio-temporal, channel and motion excitation in every block.

    Args:
        backbone: ``resnet50`` (published weights); ``resnet18`` and ``resnet34``, where the module stands in front of
            the first 3x3 convolution of every block, as the public code has it; ``resnet8`` for small pictures.
        width: factor on the channels of every layer (64 in the stem at 1).
        dropout: before the classifier.
        part: one ``part``-th of the channels is moved from either neighbor at the start.

    Any number of frames works, also one to three, which the public code refuses. At the start every module multiplies
    its input by about 4.5 (:class:`Action`): with weights of ImageNet the statistics of BatchNorm must be trained along,
    and a warning says so where they are frozen.

    Raises:
        ModaliftError: an unknown backbone, or a width that leaves no channel.

    Source: Wang, She, Smolic, "ACTION-Net: Multipath excitation for action recognition", CVPR 2021; public code
    V-Sense/ACTION-Net. Parameters and multiply-accumulates are exactly that code's.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("action_net", backbone="resnet18", classes=25, channels=1)
        >>> net.stages["layer4"].channels
        512
    """
    trunk = ActionResNet(spec.prepared_channels, backbone, wide(64, width), part)
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
