"""``resnext101_3d``: the 3D ResNeXt-101 of gesture recognition."""

from __future__ import annotations

from modalift.networks.r3d import Layout3d, PooledLogits, ResNet3d
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive, Share


@network("resnext101_3d", papers="MSD", clip=(3, 32, 112))
def resnext101_3d(spec: NetworkSpec, *, width: Positive = 1.0, groups: Count = 32, dropout: Share = 0.0,
                  checkpointing: bool = False) -> Recognizer:
    """A 3D ResNeXt-101: bottlenecks with 3x3x3 convolutions in 32 groups.

    The stem is a 7x7x7 convolution with stride 1 in time, then max-pooling over 3x3x3 with stride 2; the four layers
    have 3, 4, 23 and 3 blocks with 128, 256, 512 and 1024 channels inside and twice as many outside.

    Args:
        width: factor on the channels of every layer (1: 64 channels in the stem); those inside a block are a multiple of
            ``groups``, at least one per group.
        groups: groups of the 3x3x3 convolutions (the "cardinality").
        dropout: dropout probability before the classifier.
        checkpointing: in training, keep only each block's input, and compute the rest again.

    Any number of frames and any size works; it was published with 16 frames, and the paper uses 32, of 112 x 112 pixels.

    Raises:
        ModaliftError: an option outside its range.

    Source: Hara, Kataoka, Satoh, "Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?", CVPR 2018;
    Köpüklü, Gunduz, Kose, Rigoll, "Real-time hand gesture detection and classification using convolutional neural
    networks", FG 2019 (ahmetgunduz/Real-time-GesRec). Parameters and multiply-accumulates are exactly theirs.

    Deviation: the mean is over the whole last map, where that code has a window of fixed size.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("resnext101_3d", classes=83, channels=3, width=0.25).stages["layer4"].shape(32, 112, 112)
        (512, 2, 4, 4)
    """
    stem, out = scaled_width(64, width), tuple(scaled_width(256, width) * 2**i for i in range(4))
    middle = tuple(groups * max(1, round(128 * 2**i * width / groups)) for i in range(4))
    times = tuple(((1, 3, 1),) * n for n in (3, 4, 23, 3))
    trunk = ResNet3d(spec.prepared_channels, Layout3d(stem, middle, out, times, groups=groups), checkpointing)
    return Recognizer(spec, trunk, PooledLogits(trunk.channels, spec.classes, dropout))
