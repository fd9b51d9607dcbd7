"""``vgg16``: VGG-16 over every frame of a clip."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from modalift.networks.frames import fold_frames, unfold_frames
from modalift.networks.recognizer import Backbone, Recognizer, Stage, scaled_width
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive, Share

#: Channels of the 3 x 3 convolutions in each of the five blocks, configuration D of the paper.
CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
#: Height and width of the map that the fully connected layers read.
GRID = 7


def floor_div(pixels: int, stride: int) -> int:
    """Pixels that remain after poolings that round down."""
    return pixels // stride


class VGG16(Backbone):
    """The convolutions of VGG-16 over every frame of a clip.

    Stages are ``block1`` to ``block5``, after the pooling of each; time keeps its length. ``layers`` has the indices of the
    usual ImageNet files (``features.0``, ``features.2``, ...), so that weights load by position.

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
                layers += [nn.Conv2d(channels, scaled_width(count, width), 3, padding=1), nn.ReLU(inplace=True)]
                channels = scaled_width(count, width)
            layers.append(nn.MaxPool2d(2))
            self.ends[len(layers) - 1] = f"block{i + 1}"
            stride = 2 ** (i + 1)
            self.stages[f"block{i + 1}"] = Stage(channels, stride, space=partial(floor_div, stride=stride))
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
        y = fold_frames(x)
        for i, layer in enumerate(self.layers):
            y = layer(y)
            name = self.ends.get(i, "")
            if name in keep:
                maps[name] = unfold_frames(y, frames)
        return unfold_frames(y, frames), maps


class FrameClassifier(nn.Module):
    r"""The three fully connected layers of VGG-16 for every frame, logits averaged over the frames.

    .. math:: z = \frac1T \sum_t \left( W f(\mathrm{pool}_{7 \times 7}(x_t)) + b \right)

    where f is two layers with ReLU and dropout, and the pooling is an adaptive average (the identity at 224 pixels).

    Args:
        channels: channels of the map.
        classes: K.
        hidden: outputs of the two layers.
        dropout: dropout probability of their outputs.

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
        y = fold_frames(x)
        if y.shape[2:] != (GRID, GRID):
            y = functional.adaptive_avg_pool2d(y, GRID)
        return self.fc(self.classifier(y.flatten(1))).unflatten(0, (-1, frames)).mean(1)


@network("vgg16", papers="MTUT", clip=(3, 1, 224))
def vgg16(spec: NetworkSpec, *, width: Positive = 1.0, dropout: Share = 0.5) -> Recognizer:
    """VGG-16 over every frame, logits averaged over the frames before the softmax; it uses no motion.

    Args:
        width: factor on the channels of every layer, the fully connected ones included.
        dropout: dropout probability after each of the two fully connected layers before the classifier.

    Any number of frames works, of 32 x 32 pixels or more; the published one reads single frames of 224 x 224.

    Raises:
        ModaliftError: an option outside its range.

    Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
    configuration D. Parameters, multiply-accumulates and outputs per frame are those of torchvision's ``vgg16``; its
    ``features.N``, ``classifier.0``, ``classifier.3`` and ``classifier.6`` are here ``backbone.layers.N``,
    ``head.classifier.0``, ``head.classifier.3`` and ``head.fc``.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("vgg16", classes=25, size=64, width=0.125).stages["block5"].shape(8, 64, 64)
        (64, 8, 2, 2)
    """
    trunk = VGG16(spec.prepared_channels, width)
    return Recognizer(spec, trunk, FrameClassifier(trunk.channels, spec.classes, scaled_width(4096, width), dropout))
