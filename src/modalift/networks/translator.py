"""The translator: from one sensor's images to another's, frame by frame; and the discriminator of such images."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.modalities import Modality, modality
from modalift.networks.frames import fold_frames
from modalift.networks.recognizer import Network
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Share

#: Residual blocks of the generator: ``resnet_9`` and ``resnet_6`` are published, ``resnet_4`` is for a CPU.
Generator = Literal["resnet_9", "resnet_6", "resnet_4"]


def convolution(inside: int, outside: int, kernel: int, stride: int = 1, *, reflect: int = 0) -> list[nn.Module]:
    """A convolution without bias (the normalization would cancel it) and an instance normalization."""
    padded: list[nn.Module] = [nn.ReflectionPad2d(reflect)] if reflect else []
    return [*padded, nn.Conv2d(inside, outside, kernel, stride, 0 if reflect else 1, bias=False), nn.InstanceNorm2d(outside)]


def init_normal(net: nn.Module) -> None:
    """Initializes the weights of every convolution from N(0, 0.02) and biases with zero, as CycleGAN."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class ResidualBlock(nn.Module):
    """``x + IN(conv(drop(relu(IN(conv(x))))))``; the same channels are dropped in all frames of a clip.

    Shapes: ``(B*T, C, H, W)`` and T -> the same.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(*convolution(channels, channels, 3, reflect=1), nn.ReLU(inplace=True))
        self.second = nn.Sequential(*convolution(channels, channels, 3, reflect=1))
        self.dropout = dropout

    def forward(self, x: Tensor, frames: int) -> Tensor:
        inner = self.first(x)
        if self.training and self.dropout:
            kept = inner.new_full((len(inner) // frames, inner.shape[1], 1, 1), 1 - self.dropout).bernoulli()
            inner = inner * (kept / (1 - self.dropout)).repeat_interleave(frames, 0)
        out: Tensor = x + self.second(inner)
        return out


class Translator(Network):
    r"""A network from one sensor's images to another's: ``net(clip) -> clip`` in the target sensor's unit.

    .. math:: y = m + h\,\tanh(g(x) / 2)

    where :math:`m \pm h` is the target's range and g the generator; with ``output="linear"`` the tanh (a sigmoid over
    the range) is left out. Every frame is translated by itself.

    Attributes:
        target, output_modality: the name of the modality that it gives, and that Modality.
        middle, reach: :math:`m` and :math:`h` in the target's unit, saved with the weights.

    Shapes: ``(B, C, T, H, W)`` in the sensor's unit, H and W of at least 8 pixels -> ``(B, C', T, H, W)`` float32.
    """

    kind = "translator"
    smallest = (1, 8)
    middle: Tensor
    reach: Tensor

    def __init__(self, spec: NetworkSpec, given: Modality, span: tuple[float, float], blocks: int, ngf: int, dropout: float,
                 output: Literal["sigmoid", "linear"]) -> None:
        super().__init__(spec)
        self.output_modality, self.target, self.output = given, given.name, output
        self.register_buffer("middle", torch.tensor((span[0] + span[1]) / 2))
        self.register_buffer("reach", torch.tensor((span[1] - span[0]) / 2))
        relu = nn.ReLU(inplace=True)
        self.down = nn.Sequential(*convolution(spec.prepared_channels, ngf, 7, reflect=3), relu,
                                  *convolution(ngf, 2 * ngf, 3, 2), relu, *convolution(2 * ngf, 4 * ngf, 3, 2), relu)
        self.blocks = nn.ModuleList(ResidualBlock(4 * ngf, dropout) for _ in range(blocks))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(4 * ngf, 2 * ngf, 3, 2, 1, 1, bias=False), nn.InstanceNorm2d(2 * ngf), relu,
            nn.ConvTranspose2d(2 * ngf, ngf, 3, 2, 1, 1, bias=False), nn.InstanceNorm2d(ngf), relu,
            nn.ReflectionPad2d(3), nn.Conv2d(ngf, given.channels, 7))
        init_normal(self)

    def forward(self, clip: Tensor) -> Tensor:
        """The translated clip ``(B, C', T, H, W)``, in the target sensor's unit."""
        self.check(clip, self.smallest, "translator")
        frames, height, width = clip.shape[2:]
        x = fold_frames(self.prepare(clip))  
        x = F.pad(x, (0, -width % 4, 0, -height % 4), mode="reflect")  # two strides of 2
        x = self.down(x)
        for block in self.blocks:
            x = block(x, frames)
        x = self.up(x)[..., :height, :width].float()
        x = torch.tanh(x / 2) if self.output == "sigmoid" else x
        x = self.middle + self.reach * x
        return x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)

    def standard(self, image: Tensor) -> Tensor:
        """Readings of the target scaled to -1 .. 1 over its range, as losses and discriminators compare them."""
        return (image.float() - self.middle) / self.reach

    def recast(self, image: Tensor) -> Tensor:
        """Readings of the target in the range and channels of this network's own sensor, as input for an identity loss.

        Ranges are mapped linearly; one channel is repeated, or several are averaged.
        """
        own = modality(self.modality)
        scaled = (self.standard(image) + 1) / 2 * (own.high - own.low) + own.low
        if scaled.shape[1] == self.channels:
            return scaled
        return scaled.mean(1, keepdim=True).expand(-1, self.channels, *scaled.shape[2:])


class PatchDiscriminator(nn.Module):
    """A patch discriminator (PatchGAN): one logit per patch of an image, 70 x 70 pixels with three ``layers``.

    Source: Isola et al., *Image-to-image translation with conditional adversarial networks*, CVPR 2017, section 6.1.2,
    with instance normalization as in CycleGAN.

    Shapes: ``(N, C, H, W)`` on the scale -1 .. 1, at least 24 pixels with three layers -> ``(N, 1, h, w)``.
    """

    def __init__(self, channels: int, ndf: int = 64, layers: int = 3) -> None:
        super().__init__()
        wide = [ndf * min(2**k, 8) for k in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(channels, ndf, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for k in range(1, layers + 1):
            parts += [*convolution(wide[k - 1], wide[k], 4, 2 if k < layers else 1), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(wide[-1], 1, 4, 1, 1))
        self.smallest = 3 * 2**layers
        init_normal(self)

    def forward(self, image: Tensor) -> Tensor:
        if min(image.shape[2:]) < self.smallest:
            raise ModaliftError(f"the patch discriminator got images of {image.shape[2]} x {image.shape[3]} - it needs"
                                f" at least {self.smallest} pixels; set data.size")
        out: Tensor = self.layers(image)
        return out


@network("translator", papers="MTCD", clip=(3, 1, 256), classes=False)
def translator(spec: NetworkSpec, *, target: str = "thermal", backbone: Generator = "resnet_9", ngf: Count = 64,
               dropout: Share = 0.0, output: Literal["sigmoid", "linear"] = "sigmoid", low: float | None = None,
               high: float | None = None) -> Translator:
    """A residual generator that translates each frame into another sensor's image. It can be shipped; it gives no logits.

    Two convolutions of stride 2, residual blocks, two transposed convolutions of stride 2; instance normalization and
    reflection padding.

    Args:
        target: the modality that it gives (``thermal``, ``nir``, ``depth``, ...).
        backbone: number of residual blocks; ``resnet_9`` is the published one, ``resnet_4`` with ``ngf=16`` suits a CPU.
        ngf: channels of the first layer; the blocks have four times as many.
        dropout: dropout probability of channels inside the residual blocks, the same for all frames of a clip.
        output: ``sigmoid`` limits the output to ``low`` .. ``high``, ``linear`` does not.
        low, high: the usual range of the target's readings, in its unit; by default the modality's range.

    Source: Johnson et al. 2016 and Zhu et al., *Unpaired image-to-image translation*, ICCV 2017, section 7.2, as SDA
    (Ge et al. 2020) and so MTCD take it; with a sigmoid as in SDA's public code. Biases before normalization have no
    effect and are left out: 11,372,931 parameters instead of 11,378,179 for three channels to three.
    """
    given = modality(target)
    if given.kind != "video" or not given.channels:
        raise ModaliftError(f"network.target = {target}: a translator gives images - choose a video modality with a fixed"
                            " number of channels")
    span = (given.low if low is None else low, given.high if high is None else high)
    if span[0] >= span[1]:
        raise ModaliftError(f"network.low = {span[0]:g}, high = {span[1]:g} - low must be below high")
    return Translator(spec, given, span, int(backbone.removeprefix("resnet_")), ngf, dropout, output)
