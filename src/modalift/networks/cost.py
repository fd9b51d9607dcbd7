"""What a network costs: parameters, multiply-accumulates and activation memory, on the meta device."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from modalift.errors import ModaliftError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)

#: A clip of more numbers than this is a typing error: no machine holds its activations.
LARGEST = 2**40

#: A layer, the inputs of one call and its output -> what the call adds to a count.
Rule = Callable[[nn.Module, tuple[Any, ...], Any], int]


@dataclass(frozen=True)
class Cost:
    """Exact integers, for one clip.

    Attributes:
        parameters: number of learnable parameters.
        macs: multiply-accumulates of a forward pass; a figure in FLOPs is about twice this. See :func:`cost` for which
            layers are counted.
        activation_bytes: bytes of distinct tensors that a training step keeps for its backward pass, parameters and
            buffers excluded.
    """

    parameters: int
    macs: int
    activation_bytes: int


def _macs(module: nn.Module, given: tuple[Any, ...], out: Any) -> int:
    """Multiply-accumulates of one call of a layer; 0 for layers that are not counted."""
    if isinstance(module, _CONVOLUTIONS):
        return out.numel() * module.weight[0].numel()  # every output: Cin / groups * kernel
    if isinstance(module, _TRANSPOSED):
        return given[0].numel() * module.weight[0].numel()  # every input: Cout / groups * kernel
    if isinstance(module, nn.Linear):
        return out.numel() * module.in_features
    if isinstance(module, _RECURRENT):
        x = given[0].data if isinstance(given[0], PackedSequence) else given[0]
        weights = sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
        return x.numel() // module.input_size * weights  # every weight of every layer and direction once per time step
    if isinstance(module, nn.MultiheadAttention):
        query, key, value = given[:3]
        steps = (query.numel() // query.shape[-1], key.numel() // key.shape[-1], value.numel() // value.shape[-1])
        inside = sum(n * wide for n, wide in zip(steps, (module.embed_dim, module.kdim, module.vdim), strict=True))
        return (inside + steps[0] * module.embed_dim) * module.embed_dim  # three projections in, one out
    return 0


def _legacy(module: nn.Module, given: tuple[Any, ...], out: Any) -> int:
    """What the early counter adds for one call of a layer; see :func:`legacy_flops`."""
    if type(module) in (nn.Conv2d, nn.Conv3d):
        assert isinstance(module, (nn.Conv2d, nn.Conv3d))
        extent = math.prod(o // s for o, s in zip(out.shape[2:], module.stride, strict=True))
        return out.shape[0] * extent * out.shape[1] * (module.weight[0].numel() + (module.bias is not None))
    if type(module) in (nn.BatchNorm2d, nn.BatchNorm3d):
        return 2 * given[0].numel()
    if type(module) in (nn.ReLU, nn.ReLU6):
        return given[0].numel()
    if type(module) is nn.Linear:
        return out.numel() * (2 * module.in_features - 1)
    return 0


def _on_meta(net: nn.Module) -> nn.Module:
    """A copy of the network on the meta device, without storage."""
    with torch.no_grad():
        # Each tensor is replaced while copying, so that a large network is never in memory twice.
        memo: dict[int, Any] = {}
        for p in net.parameters():
            memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for b in net.buffers():
            memo[id(b)] = torch.empty_like(b, device="meta")
        return copy.deepcopy(net, memo)


def _clip_for(net: nn.Module, frames: int, size: int | tuple[int, int], channels: int | None) -> Tensor:
    """A clip ``(1, C, T, H, W)`` without storage."""
    height, width = (size, size) if isinstance(size, int) else size
    channels = channels or getattr(net, "channels", None)
    if not isinstance(channels, int):
        raise ModaliftError(f"cost: {type(net).__name__} does not say how many channels it reads - give channels=...")
    shape = (1, channels, frames, height, width)
    if min(shape) < 1 or math.prod(shape) > LARGEST:
        raise ModaliftError(f"cost: a clip of {channels} x {frames} x {height} x {width} - each must be 1 or more, and "
                            f"their product at most {LARGEST:,}")
    return torch.empty(shape, device="meta")


def _count(net: nn.Module, clip: Tensor, rule: Rule) -> int:
    total = 0

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        nonlocal total
        total += rule(module, (*args, *kwargs.values()), out)

    handles = [m.register_forward_hook(count, with_kwargs=True) for m in net.modules()]
    try:
        with torch.no_grad():
            net.eval()(clip)
    finally:
        for handle in handles:
            handle.remove()
    return total


def _activation_bytes(net: nn.Module, clip: Tensor) -> int:
    own = {t.untyped_storage()._cdata for t in [*net.parameters(), *net.buffers()]}
    kept: dict[int, Any] = {}  # keeps the storages alive, so that no address is reused

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = net.train().requires_grad_(True)(clip)
    del out
    return sum(s.nbytes() for s in kept.values())


def _activation_bytes_of_one(net: nn.Module, clip: Tensor) -> int:
    try:
        return _activation_bytes(net, clip)
    except ValueError:  # BatchNorm, of one clip whose map has one position: half of what two clips keep
        return _activation_bytes(net, clip.expand(2, -1, -1, -1, -1)) // 2


def _one_line(net: nn.Module, clip: Tensor, work: Callable[[], int]) -> int:
    """``work()``; PyTorch's errors about the clip become a one-line :class:`ModaliftError`."""
    try:
        return work()
    except (RuntimeError, ValueError, OverflowError) as error:
        name = getattr(net, "config", {}).get("name") or type(net).__name__
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModaliftError(f"network '{name}' cannot read a clip of {' x '.join(map(str, clip.shape[1:]))}: {first} - "
                            "give it the extents that it was built for") from None


def macs(net: nn.Module, frames: int = 8, size: int | tuple[int, int] = 224, channels: int | None = None) -> int:
    """The multiply-accumulates of :func:`cost` alone, in half the time."""
    meta, clip = _on_meta(net), _clip_for(net, frames, size, channels)
    return _one_line(net, clip, lambda: _count(meta, clip, _macs))


def cost(net: nn.Module, frames: int = 8, size: int | tuple[int, int] = 224, channels: int | None = None) -> Cost:
    r"""Parameters, multiply-accumulates and activation memory for one clip, exact, without computing anything.

    Counted are the multiply-accumulates of the layers that hold weight matrices: convolutions
    (:math:`n_{out}\, C_{in} K / g`), transposed convolutions (:math:`n_{in}\, C_{out} K / g`), linear layers
    (:math:`n_{out}\, C_{in}`), recurrent layers and cells (every weight once per time step), and the four
    projections of multi-head attention. As in most published figures, not counted are biases, normalization, activations,
    pooling, element-wise products of gates, and attention's products of queries, keys and values. A layer counts as often
    as it is called. Weights that are used without calling their module (``F.conv2d(x, layer.weight)``) are not counted.

    Args:
        net: a Recognizer, or any module that is called on ``(B, C, T, H, W)``; it is not changed. It may be on the ``meta``
            device.
        frames: frames of the clip.
        size: pixels of the clip: height and width, or one number for both; 1 for signals.
        channels: channels of the clip; by default ``net.channels``.

    Raises:
        ModaliftError: a clip that the network cannot read, or of more than :data:`LARGEST` numbers.

    Example:
        >>> import modalift.networks as networks
        >>> cost(networks.build("tsm", backbone="resnet50", classes=83, channels=3), frames=8, size=224).macs
        32698449920
        >>> cost(nn.Conv3d(3, 4, 1), frames=2, size=(5, 6), channels=3).macs  # 2 x 5 x 6 positions, 3 x 4 weights
        720
    """
    meta, clip = _on_meta(net), _clip_for(net, frames, size, channels)
    parameters = sum(p.numel() for p in net.parameters())
    return Cost(parameters, _one_line(net, clip, lambda: _count(meta, clip, _macs)),
                _one_line(net, clip, lambda: _activation_bytes_of_one(meta, clip)))


def legacy_flops(net: nn.Module, frames: int = 8, size: int | tuple[int, int] = 224, channels: int | None = None) -> int:
    r"""The "FLOPs" of papers that used the first release of a popular counter; only to reproduce their tables.

    That counter divides the output extent of a strided convolution by the stride once more, and mixes units:

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
    meta, clip = _on_meta(net), _clip_for(net, frames, size, channels)
    return _one_line(net, clip, lambda: _count(meta, clip, _legacy))
