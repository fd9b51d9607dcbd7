"""What a network costs: parameters, multiply-accumulates and the memory that training keeps, without running it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modalift.networks.recognizer import Recognizer

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Cost:
    """Exact integers, of one clip.

    Attributes:
        parameters: learnable numbers.
        macs: multiply-accumulates of convolutions, transposed convolutions and linear layers in a forward pass, biases
            not counted; a figure in FLOPs is about twice this.
        activation_bytes: bytes of distinct tensors that a training step keeps for its backward pass, parameters and
            buffers excluded.
    """

    parameters: int
    macs: int
    activation_bytes: int


def _macs(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """Multiply-accumulates of one call of a layer; 0 for layers that are not counted."""
    if isinstance(module, _CONVOLUTIONS):
        return y.numel() * module.weight[0].numel()  # every output: Cin / groups * kernel
    if isinstance(module, _TRANSPOSED):
        return x.numel() * module.weight[0].numel()  # every input: Cout / groups * kernel
    if isinstance(module, nn.Linear):
        return y.numel() * module.in_features
    return 0


def _legacy(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """What the early counter makes of one call of a layer; see :func:`legacy_flops`."""
    if type(module) in (nn.Conv2d, nn.Conv3d):
        assert isinstance(module, (nn.Conv2d, nn.Conv3d))
        extent = math.prod(o // s for o, s in zip(y.shape[2:], module.stride, strict=True))
        return y.shape[0] * extent * y.shape[1] * (module.weight[0].numel() + (module.bias is not None))
    if type(module) in (nn.BatchNorm2d, nn.BatchNorm3d):
        return 2 * x.numel()
    if type(module) in (nn.ReLU, nn.ReLU6):
        return x.numel()
    if type(module) is nn.Linear:
        return y.numel() * (2 * module.in_features - 1)
    return 0


def _on_meta(net: Recognizer, frames: int, size: int) -> tuple[Recognizer, Tensor]:
    """A copy of the network without storage, and a clip without storage for it."""
    with torch.no_grad():
        # Moving each tensor while copying, so that a large network is never there twice.
        memo: dict[int, Any] = {}
        for p in net.parameters():
            memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for b in net.buffers():
            memo[id(b)] = torch.empty_like(b, device="meta")
        ghost = copy.deepcopy(net, memo)
    return ghost, torch.empty((1, net.channels, frames, size, size), device="meta")


def _count(net: nn.Module, clip: Tensor, rule: Callable[[nn.Module, Tensor, Tensor], int]) -> int:
    total = 0

    def seen(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        total += rule(module, args[0], out)

    leaves = [m for m in net.modules() if not list(m.children())]
    handles = [m.register_forward_hook(seen) for m in leaves]
    try:
        with torch.no_grad():
            net.eval()(clip)
    finally:
        for handle in handles:
            handle.remove()
    return total


def _kept(net: nn.Module, clip: Tensor) -> int:
    own = {t.untyped_storage()._cdata for t in [*net.parameters(), *net.buffers()]}
    kept: dict[int, Any] = {}  # the storages are held, so that no address is used twice

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = net.train().requires_grad_(True)(clip)
    del out
    return sum(s.nbytes() for s in kept.values())


def cost(net: Recognizer, frames: int = 8, size: int = 224) -> Cost:
    """Parameters, multiply-accumulates and activation memory of one clip, exactly and without computing anything.

    Args:
        net: the network; it is left untouched.
        frames, size: frames and pixels (height = width) of the clip; ``size=1`` for signals.

    Example:
        >>> import modalift.networks as networks
        >>> cost(networks.build("tsm", backbone="resnet50", classes=83, channels=3), frames=8, size=224).macs
        32698449920
    """
    ghost, clip = _on_meta(net, frames, size)
    parameters = sum(p.numel() for p in net.parameters())
    return Cost(parameters, _count(ghost, clip, _macs), _kept(ghost, clip))


def legacy_flops(net: Recognizer, frames: int = 8, size: int = 224) -> int:
    r"""The "FLOPs" of papers that used the first release of a popular counter; only to reproduce such a column.

    That counter divides the extent of a strided convolution's output by the stride once more, and mixes units:

    .. math:: \sum_{conv} \prod_d \lfloor o_d / s_d \rfloor\, C_{out} (K C_{in} / g + b)
              + \sum_{bn} 2 n_{in} + \sum_{relu} n + \sum_{linear} (2 C_{in} - 1)\, n_{out}

    with output extents :math:`o_d`, strides :math:`s_d`, kernel elements K, groups g, 1 for a bias b and numbers of
    elements n. Pooling, one-dimensional convolutions and functional activations are not counted.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("tsm", backbone="resnet50", classes=83, channels=3)
        >>> round(legacy_flops(net, frames=8, size=224) / 1e9, 1)
        28.2
    """
    ghost, clip = _on_meta(net, frames, size)
    return _count(ghost, clip, _legacy)
