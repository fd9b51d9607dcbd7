"""``vgg16``: VGG-16 over every frame of a clip."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from modalift.networks.recognizer import Backbone, Recognizer, Stage, wide
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive

#: Channels of the 3 x 3 convolutions in each of the five blocks, configuration D of the paper.
CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
#: Pixels, each way, of the map that the fully connected layers read.
GRID = 7


def floored(pixels: int, stride: int) -> int:
    """Pixels that are left behind poolings that leave the odd one out."""
    return pixels // stride


class VGG16(Backbone):
    """The convolutions of VGG-16 over every frame of a clip.

    Stages are ``block1`` to ``block5``, behind the pooling of each; time keeps its length. ``layers`` counts as the
    usual ImageNet file does (``features.0``, ``features.2``, ...), so that weights load by position.

    Args:
        channels: channels of the prepared clip.
        width: factor on the channels of every layer.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, 512 * width, T, H // 32, W // 32)``, for any T, and H and W of at least 32.
    """

    smallest = (1, 32)

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.stages = {}
        self.ends: dict[int, str] = {}
        for i, block in enumerate(CHANNELS):
            for count in block:
                layers += [nn.Conv2d(channels, wide(count, width), 3, padding=1), nn.ReLU(inplace=True)]
                channels = wide(count, width)
            layers.append(nn.MaxPool2d(2))
            self.ends[len(layers) - 1] = f"block{i + 1}"
            stride = 2 ** (i + 1)
            self.stages[f"block{i + 1}"] = Stage(channels, stride, space=partial(floored, stride=stride))
        self.layers = nn.Sequential(*layers)
        self.channels = channels
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                assert m.bias is not None
                nn.init.zeros_(m.bias)

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        frames = x.shape[2]
        maps: dict[str, Tensor] = {}

        def unfolded(y: Tensor) -> Tensor:
            return y.unflatten(0, (-1, frames)).transpose(1, 2)  # (B*T, C, H, W) -> (B, C, T, H, W), no copy

        y = x.transpose(1, 2).flatten(0, 1)
        for i, layer in enumerate(self.layers):
            y = layer(y)
            name = self.ends.get(i, "")
            if name in keep:
                maps[name] = unfolded(y)
        return unfolded(y), maps


class FrameClassifier(nn.Module):
    r"""The three fully connected layers of VGG-16 on every frame, logits averaged over the frames.

    .. math:: z = \frac1T \sum_t \left( W f(\mathrm{pool}_{7 \times 7}(x_t)) + b \right)

    where f is two layers with ReLU and dropout, and the pooling is an adaptive average (nothing at 224 pixels).

    Args:
        channels: channels of the map.
        classes: K.
        hidden: outputs of the two layers.
        dropout: share of their outputs that is dropped in training.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``, any T, H and W.
    """

    def __init__(self, channels: int, classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.classifier = nn.Sequential(
            nn.Linear(channels * GRID * GRID, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))
        self.fc = nn.Linear(hidden, classes)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=0.01)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[2]
        y = x.transpose(1, 2).flatten(0, 1)  # (B*T, C, H, W)
        if y.shape[2:] != (GRID, GRID):
            y = functional.adaptive_avg_pool2d(y, GRID)
        return self.fc(self.classifier(y.flatten(1))).unflatten(0, (-1, frames)).mean(1)


@network("vgg16", papers="MTUT", clip=(3, 1, 224))
def vgg16(spec: NetworkSpec, *, width: Positive = 1.0, dropout: float = 0.5) -> Recognizer:
    """VGG-16 on every frame, logits averaged over the frames before the softmax: a network that sees no movement.

    Args:
        width: factor on the channels of every layer, the fully connected ones included.
        dropout: behind each of the two fully connected layers in front of the classifier.

    Any number of frames works, of 32 x 32 pixels or more; the published one reads single frames of 224 x 224.

    Raises:
        ModaliftError: a width that leaves no channel.

    Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
    configuration D. A frame's parameters, multiply-accumulates and outputs are those of torchvision's ``vgg16``; its
    ``features.N``, ``classifier.0``, ``classifier.3`` and ``classifier.6`` are here ``backbone.layers.N``,
    ``head.classifier.0``, ``head.classifier.3`` and ``head.fc``.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("vgg16", classes=25, size=64, width=0.125).stages["block5"].shape(8, 64, 64)
        (64, 8, 2, 2)
    """
    trunk = VGG16(spec.prepared_channels, width)
    return Recognizer(spec, trunk, FrameClassifier(trunk.channels, spec.classes, wide(4096, width), dropout))
