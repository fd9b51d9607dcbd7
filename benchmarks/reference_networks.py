"""What the published implementations of three networks make PyTorch do, written anew: what ours are measured against.

The operations are theirs, in their order and memory layout (NCHW, eager): TSM fills a tensor of zeros by three slices;
ACTION-Net shifts through two full transpositions around a depthwise temporal convolution and multiplies one tensor by
three excitations one after the other; Inception-V1 I3D pads before every convolution and pooling and activates out of
place. Names of layers are those of :mod:`modalift.networks`, so that weights copy over by name (:func:`take_weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Shift(nn.Module):
    """The temporal shift of one eighth of the channels either way, into a tensor of zeros."""

    def __init__(self, frames: int, part: int = 8) -> None:
        super().__init__()
        self.frames, self.part = frames, part

    def forward(self, x: Tensor) -> Tensor:
        clip = x.view(-1, self.frames, *x.shape[1:])
        f = x.shape[1] // self.part
        out = torch.zeros_like(clip)
        out[:, :-1, :f] = clip[:, 1:, :f]
        out[:, 1:, f : 2 * f] = clip[:, :-1, f : 2 * f]
        out[:, :, 2 * f :] = clip[:, :, 2 * f :]
        return out.view(x.shape)


class Action(nn.Module):
    """ACTION: the convolution ``net`` behind a learnable shift and three excitations."""

    def __init__(self, net: nn.Conv2d, frames: int) -> None:
        super().__init__()
        wide = net.in_channels
        narrow = wide // 16
        self.frames, self.net = frames, net
        self.action_shift = nn.Conv1d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.action_p1_conv1 = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        self.action_p2_squeeze = nn.Conv2d(wide, narrow, 1, bias=False)
        self.action_p2_conv1 = nn.Conv1d(narrow, narrow, 3, padding=1, bias=False)
        self.action_p2_expand = nn.Conv2d(narrow, wide, 1, bias=False)
        self.action_p3_squeeze = nn.Conv2d(wide, narrow, 1, bias=False)
        self.action_p3_bn1 = nn.BatchNorm2d(narrow)
        self.action_p3_conv1 = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False)
        self.action_p3_expand = nn.Conv2d(narrow, wide, 1, bias=False)
        self.sigmoid, self.relu, self.pool = nn.Sigmoid(), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        (count, c, h, w), t = x.shape, self.frames
        n = count // t
        y = x.view(n, t, c, h, w).permute(0, 3, 4, 2, 1).contiguous().view(n * h * w, c, t)
        y = self.action_shift(y).view(n, h, w, c, t).permute(0, 4, 3, 1, 2).contiguous().view(count, c, h, w)
        # where and when
        m = y.view(n, t, c, h, w).transpose(1, 2).contiguous().mean(1, keepdim=True)
        m = self.action_p1_conv1(m).transpose(1, 2).contiguous().view(count, 1, h, w)
        first = y * self.sigmoid(m) + y
        # which channels
        m = self.action_p2_squeeze(self.pool(y)).view(n, t, -1).transpose(1, 2).contiguous()
        m = self.relu(self.action_p2_conv1(m)).transpose(1, 2).contiguous().view(count, -1, 1, 1)
        second = y * self.sigmoid(self.action_p2_expand(m)) + y
        # what moves
        z = self.action_p3_bn1(self.action_p3_squeeze(y))
        now, _ = z.view(n, t, -1, h, w).split([t - 1, 1], 1)
        _, then = self.action_p3_conv1(z).view(n, t, -1, h, w).split([1, t - 1], 1)
        m = F.pad(then - now, (0, 0, 0, 0, 0, 0, 0, 1)).view(count, -1, h, w)
        third = y * self.sigmoid(self.action_p3_expand(self.pool(m))) + y
        return self.net(first + second + third)


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int, wrap: Callable[[nn.Conv2d], nn.Module]) -> None:
        super().__init__()
        self.conv1 = wrap(nn.Conv2d(inside, width, 1, bias=False))
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inside != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inside, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Shifted(nn.Conv2d):
    """A convolution behind a shift, under the convolution's own names."""

    frames = 0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Shift(self.frames)(x))


class ResNet50(nn.Module):
    """ResNet-50 over frames, with something wrapped around each block's first convolution; logits averaged over time."""

    def __init__(self, classes: int, frames: int, wrap: Callable[[nn.Conv2d, int], nn.Module]) -> None:
        super().__init__()
        self.frames = frames
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inside = 64
        for i, count in enumerate((3, 4, 6, 3)):
            blocks = []
            for j in range(count):
                blocks.append(Bottleneck(inside, 64 * 2**i, 2 if i and not j else 1, lambda conv: wrap(conv, frames)))
                inside = 256 * 2**i
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)

    def forward(self, clip: Tensor) -> Tensor:
        x = clip.transpose(1, 2).contiguous().flatten(0, 1)  # published loaders hand in frames, (B*T, C, H, W)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(self, name)(x)
        return self.fc(self.pool(x).flatten(1)).view(-1, self.frames, self.fc.out_features).mean(1)


def tsm(classes: int, frames: int) -> nn.Module:
    def wrap(conv: nn.Conv2d, t: int) -> nn.Module:
        conv.__class__ = Shifted
        conv.frames = t  # type: ignore[assignment]
        return conv

    return ResNet50(classes, frames, wrap)


def action_net(classes: int, frames: int) -> nn.Module:
    return ResNet50(classes, frames, Action)


def padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """As TensorFlow's SAME: zeros so that the output has ceil(n / stride) positions, the odd one behind."""
    pads: list[int] = []
    for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
        pads = [missing // 2, missing - missing // 2, *pads]
    return F.pad(x, pads)


class Unit(nn.Module):
    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inside, outside, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outside, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(padded(x, self.conv3d.kernel_size, self.conv3d.stride))))


class Pool(nn.Module):
    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(padded(x, self.kernel, self.stride), self.kernel, self.stride)


class Inception(nn.Module):
    def __init__(self, inside: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int) -> None:
        super().__init__()
        self.b0 = Unit(inside, b0)
        self.b1a, self.b1b = Unit(inside, b1a), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(inside, b2a), Unit(b2a, b2b, 3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(inside, b3b)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


INCEPTIONS = {"3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64),
              "4b": (480, 192, 96, 208, 16, 48, 64), "4c": (512, 160, 112, 224, 24, 64, 64),
              "4d": (512, 128, 128, 256, 24, 64, 64), "4e": (512, 112, 144, 288, 32, 64, 64),
              "4f": (528, 256, 160, 320, 32, 128, 128), "5b": (832, 256, 160, 320, 32, 128, 128),
              "5c": (832, 384, 192, 384, 48, 128, 128)}


class I3D(nn.Module):
    """Inception-V1 I3D; its mean is over the whole map, because the published one asks for 9 frames of 224 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit(3, 64, 7, 2), "MaxPool3d_2a_3x3": Pool((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit(64, 64), "Conv3d_2c_3x3": Unit(64, 192, 3), "MaxPool3d_3a_3x3": Pool((1, 3, 3), (1, 2, 2))}
        for key, sizes in INCEPTIONS.items():
            if key == "4b":
                parts["MaxPool3d_4a_3x3"] = Pool((3, 3, 3), (2, 2, 2))
            if key == "5b":
                parts["MaxPool3d_5a_2x2"] = Pool((2, 2, 2), (2, 2, 2))
            parts[f"Mixed_{key}"] = Inception(*sizes)
        self.order = list(parts)
        for key, part in parts.items():
            self.add_module(key, part)
        self.fc = nn.Linear(1024, classes)

    def forward(self, clip: Tensor) -> Tensor:
        x = clip
        for key in self.order:
            x = getattr(self, key)(x)
        return self.fc(x.mean((2, 3, 4)))


def i3d(classes: int, frames: int) -> nn.Module:
    return I3D(classes)


#: Family -> the reference, by number of classes and frames.
REFERENCES: dict[str, Callable[[int, int], nn.Module]] = {"tsm": tsm, "action_net": action_net, "i3d": i3d}


def counterpart(name: str, ours: Collection[str]) -> str:
    """Our name of a tensor of the reference.

    Raises:
        KeyError: there is none.
    """
    if name.startswith("fc."):
        for key in ours:
            if key.startswith("head.") and key.endswith(name.removeprefix("fc")):
                return key
    for key in (name, name.replace(".conv1.net.", ".conv1."), name.replace(".conv1.action_", ".action.action_")):
        if f"backbone.{key}" in ours:
            return f"backbone.{key}"
    raise KeyError(name)


def take_weights(reference: nn.Module, ours: nn.Module) -> None:
    """Gives the reference our weights and statistics.

    Raises:
        KeyError, ValueError: a tensor without a counterpart of as many numbers.
    """
    given = ours.state_dict()
    names = {name: counterpart(name, given) for name in reference.state_dict()}
    left = [k for k in given if k not in names.values() and not k.startswith("prepare.")]
    if left:
        raise ValueError(f"the reference has no {left[0]}")
    with torch.no_grad():
        for name, tensor in reference.state_dict().items():
            if given[names[name]].numel() != tensor.numel():
                raise ValueError(f"{name}: {tuple(given[names[name]].shape)} against {tuple(tensor.shape)}")
            tensor.copy_(given[names[name]].reshape(tensor.shape))
