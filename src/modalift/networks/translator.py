"""The translator: what one sensor saw, as another would have seen it, frame by frame; and the judge of such pictures."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.modalities import Modality, modality
from modalift.networks.recognizer import Network
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Share

#: Blocks of the generator: ``resnet_9`` and ``resnet_6`` are the published ones, ``resnet_4`` is for a CPU.
Generator = Literal["resnet_9", "resnet_6", "resnet_4"]


def convolution(inside: int, outside: int, kernel: int, stride: int = 1, *, mirrored: int = 0) -> list[nn.Module]:
    """A convolution without bias (the normalization behind it takes any bias away), normalized over each picture."""
    padded: list[nn.Module] = [nn.ReflectionPad2d(mirrored)] if mirrored else []
    return [*padded, nn.Conv2d(inside, outside, kernel, stride, 0 if mirrored else 1, bias=False), nn.InstanceNorm2d(outside)]


def start_small(net: nn.Module) -> None:
    """Weights of every convolution drawn from N(0, 0.02), biases zero, as CycleGAN's authors begin."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class ResidualBlock(nn.Module):
    """``x + IN(conv(drop(relu(IN(conv(x))))))``; what is dropped is the same in all frames of a clip.

    Shapes: ``(B T, C, H, W)`` and T -> the same.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(*convolution(channels, channels, 3, mirrored=1), nn.ReLU(inplace=True))
        self.second = nn.Sequential(*convolution(channels, channels, 3, mirrored=1))
        self.dropout = dropout

    def forward(self, x: Tensor, frames: int) -> Tensor:
        inner = self.first(x)
        if self.training and self.dropout:
            kept = inner.new_full((len(inner) // frames, inner.shape[1], 1, 1), 1 - self.dropout).bernoulli()
            inner = inner * (kept / (1 - self.dropout)).repeat_interleave(frames, 0)
        out: Tensor = x + self.second(inner)
        return out


class Translator(Network):
    r"""A network of one sensor that gives pictures of another: ``net(clip) -> clip`` in the target sensor's unit.

    .. math:: y = m + h\,\tanh(g(x) / 2)

    where :math:`m \pm h` is the target's range and g the generator; with ``output="linear"`` the tanh (a sigmoid over
    the range) is left out. Every frame is translated by itself: instance normalization has no memory, so a clip of any
    length comes out as its frames would.

    Attributes:
        target: the modality that it gives; ``given`` is that Modality.
        middle, reach: :math:`m` and :math:`h` in the target's unit, saved with the weights.

    Shapes: ``(B, C, T, H, W)`` in the sensor's unit, H and W of 8 pixels at least -> ``(B, C', T, H, W)`` float32.
    """

    kind = "translator"
    smallest = (1, 8)
    middle: Tensor
    reach: Tensor

    def __init__(self, spec: NetworkSpec, given: Modality, span: tuple[float, float], blocks: int, ngf: int, dropout: float,
                 output: Literal["sigmoid", "linear"]) -> None:
        super().__init__(spec)
        self.given, self.target, self.output = given, given.name, output
        self.register_buffer("middle", torch.tensor((span[0] + span[1]) / 2))
        self.register_buffer("reach", torch.tensor((span[1] - span[0]) / 2))
        relu = nn.ReLU(inplace=True)
        self.down = nn.Sequential(*convolution(spec.prepared_channels, ngf, 7, mirrored=3), relu,
                                  *convolution(ngf, 2 * ngf, 3, 2), relu, *convolution(2 * ngf, 4 * ngf, 3, 2), relu)
        self.blocks = nn.ModuleList(ResidualBlock(4 * ngf, dropout) for _ in range(blocks))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(4 * ngf, 2 * ngf, 3, 2, 1, 1, bias=False), nn.InstanceNorm2d(2 * ngf), relu,
            nn.ConvTranspose2d(2 * ngf, ngf, 3, 2, 1, 1, bias=False), nn.InstanceNorm2d(ngf), relu,
            nn.ReflectionPad2d(3), nn.Conv2d(ngf, given.channels, 7))
        start_small(self)

    def forward(self, clip: Tensor) -> Tensor:
        """The clip ``(B, C', T, H, W)`` that the other sensor might have recorded, in its unit."""
        self.check(clip, self.smallest, "translator")
        frames, height, width = clip.shape[2:]
        x = self.prepare(clip).transpose(1, 2).flatten(0, 1)  # (B T, C, H, W)
        x = F.pad(x, (0, -width % 4, 0, -height % 4), mode="reflect")  # two halvings
        x = self.down(x)
        for block in self.blocks:
            x = block(x, frames)
        x = self.up(x)[..., :height, :width].float()
        x = torch.tanh(x / 2) if self.output == "sigmoid" else x
        x = self.middle + self.reach * x
        return x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)

    def standard(self, picture: Tensor) -> Tensor:
        """Readings of the target on a scale on which its range is -1 .. 1: what losses and judges compare."""
        return (picture.float() - self.middle) / self.reach

    def recast(self, picture: Tensor) -> Tensor:
        """Readings of the target as if this network's own sensor had made them, so that it can be asked to keep them.

        Ranges are mapped on each other linearly; one channel is repeated, or several are averaged to one.
        """
        own = modality(self.modality)
        scaled = (self.standard(picture) + 1) / 2 * (own.high - own.low) + own.low
        if scaled.shape[1] == self.channels:
            return scaled
        return scaled.mean(1, keepdim=True).expand(-1, self.channels, *scaled.shape[2:])


class PatchJudge(nn.Module):
    """A patch discriminator: how real each patch of a picture looks; 70 x 70 pixels with three ``layers``.

    Source: Isola et al., *Image-to-image translation with conditional adversarial networks*, CVPR 2017, section 6.1.2,
    with instance normalization as in CycleGAN.

    Shapes: ``(N, C, H, W)`` on a standard scale, at least 24 pixels with three layers -> ``(N, 1, h, w)``.
    """

    def __init__(self, channels: int, ndf: int = 64, layers: int = 3) -> None:
        super().__init__()
        wide = [ndf * min(2**k, 8) for k in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(channels, ndf, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for k in range(1, layers + 1):
            parts += [*convolution(wide[k - 1], wide[k], 4, 2 if k < layers else 1), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(wide[-1], 1, 4, 1, 1))
        self.smallest = 3 * 2**layers
        start_small(self)

    def forward(self, picture: Tensor) -> Tensor:
        if min(picture.shape[2:]) < self.smallest:
            raise ModaliftError(f"a judge of patches got pictures of {picture.shape[2]} x {picture.shape[3]} - it needs"
                                f" {self.smallest} pixels at least; set data.size")
        out: Tensor = self.layers(picture)
        return out


@network("translator", papers="MTCD", clip=(3, 1, 256), classes=False)
def translator(spec: NetworkSpec, *, target: str = "thermal", backbone: Generator = "resnet_9", ngf: Count = 64,
               dropout: Share = 0.0, output: Literal["sigmoid", "linear"] = "sigmoid", low: float | None = None,
               high: float | None = None) -> Translator:
    """A residual generator that translates each frame into another sensor's picture. It ships, and gives no logits.

    Two halvings, residual blocks and two doublings, with instance normalization over each picture and mirrored borders.

    Args:
        target: the modality that it gives (``thermal``, ``nir``, ``depth``, ...).
        backbone: number of residual blocks; ``resnet_9`` is the published one, ``resnet_4`` with ``ngf=16`` suits a CPU.
        ngf: channels of the first layer; the blocks have four times as many.
        dropout: of channels inside the residual blocks, the same for all frames of a clip.
        output: ``sigmoid`` keeps to the target's range, ``linear`` may leave it.
        low, high: ends of the range that the target's readings mostly keep to; by default the modality's.

    Source: Johnson et al. 2016 and Zhu et al., *Unpaired image-to-image translation*, ICCV 2017, section 7.2, as SDA
    (Ge et al. 2020) and so MTCD take it; with a sigmoid as in SDA's public code. Biases before normalization, which do
    nothing, are left out: 11,372,931 parameters instead of 11,378,179 for three channels to three.
    """
    given = modality(target)
    if given.kind != "video" or not given.channels:
        raise ModaliftError(f"network.target = {target}: a translator gives pictures - name a video modality of fixed channels")
    span = (given.low if low is None else low, given.high if high is None else high)
    if span[0] >= span[1]:
        raise ModaliftError(f"network.low = {span[0]:g}, high = {span[1]:g} - low must be below high")
    return Translator(spec, given, span, int(backbone.removeprefix("resnet_")), ngf, dropout, output)
