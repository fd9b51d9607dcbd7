"""``i3d_resnet50``: the inflated 3D ResNet-50, with the temporal strides of SlowFast or of mmaction2."""

from __future__ import annotations

from typing import Literal

from modalift.networks.r3d import Layout3d, PooledLogits, ResNet3d
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive, Share

#: Which convolutions span several frames. ``i3d``: 5 frames in the stem, 3 in the first 1x1 of every block of ``layer1``
#: and of every other block of the later layers. ``heavy``: the same blocks, but in the 3x3 and not the 1x1. ``slowonly``:
#: the first 1x1 of all blocks of ``layer3`` and ``layer4``, no others.
Pattern = Literal["i3d", "heavy", "slowonly"]
#: Temporal strides: 2 in all, after ``layer1``; or 8, also in the stem's convolution and pooling.
Strides = Literal["slowfast", "mmaction2"]

#: Which blocks of each layer span several frames.
_ALTERNATING = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))
_LATE = ((0,) * 3, (0,) * 4, (1,) * 6, (1,) * 3)


@network("i3d_resnet50", papers="MTCD", clip=(3, 32, 224))
def i3d_resnet50(spec: NetworkSpec, *, pattern: Pattern = "i3d", strides: Strides = "slowfast", width: Positive = 1.0,
                 dropout: Share = 0.5, checkpointing: bool = False) -> Recognizer:
    """A ResNet-50 inflated to 3D: the "I3D" or "3D ResNet50" of most papers that start from Kinetics weights.

    Args:
        pattern: ``i3d``, ``heavy`` (3x3x3 convolutions, which cost more) or ``slowonly`` (temporal convolutions in the
            last two layers only, and no temporal stride: ``strides`` has no effect).
        strides: ``slowfast`` has a temporal stride of 2 (after ``layer1``), ``mmaction2`` of 8 (in the stem's convolution,
            its pooling, and after ``layer1``). Both have the same parameters; the second costs a quarter.
        width: factor on the channels of every layer (1: 64 channels in the stem).
        dropout: dropout probability before the classifier.
        checkpointing: in training, keep only each block's input, and compute the rest again.

    Any number of frames and any size works; papers use 8 to 32 frames of 224 x 224 pixels.

    Raises:
        ModaliftError: an unknown pattern or strides, or an option outside its range.

    Source: Wang, Girshick, Gupta, He, "Non-local neural networks", CVPR 2018, table 1; Feichtenhofer, Fan, Malik, He,
    "SlowFast networks", ICCV 2019 (facebookresearch/SlowFast ``I3D_8x8_R50``; ``slowonly`` is its Slow pathway); and
    open-mmlab/mmaction2 ``i3d_r50``, ``i3d_r50_heavy`` and ``slowonly_r50``. Parameters and multiply-accumulates are
    exactly theirs. The idea of inflation is Carreira and Zisserman's, "Quo vadis, action recognition?", CVPR 2017.

    Deviations: the pooling after ``layer1`` rounds an odd number of frames up, not down, so that a clip of one frame works.
    The last BatchNorm weight of a block is initialized to one, as in ``r3d``; both libraries initialize it to zero. The
    first pooling is padded, as in both; the earlier code of the first paper did not pad it (55 pixels, not 56).

    Example:
        >>> import modalift.networks as networks
        >>> for strides in ("slowfast", "mmaction2"):
        ...     net = networks.build("i3d_resnet50", classes=10, channels=3, width=0.25, strides=strides)
        ...     print(net.stages["layer4"].shape(32, 224, 224))
        (512, 16, 7, 7)
        (512, 4, 7, 7)
    """
    late = pattern == "slowonly"
    kernel = (1, 3, 1) if pattern == "heavy" else (3, 1, 1)
    times = tuple(tuple(kernel if inflated else (1, 1, 1) for inflated in layer)
                  for layer in (_LATE if late else _ALTERNATING))
    middle = tuple(scaled_width(64, width) * 2**i for i in range(4))
    step = 2 if strides == "mmaction2" and not late else 1
    layout = Layout3d(middle[0], middle, tuple(4 * m for m in middle), times, stem_time=(1 if late else 5, step),
                      pool=(1, step), halve=not late, time_stride=1)
    trunk = ResNet3d(spec.prepared_channels, layout, checkpointing)
    return Recognizer(spec, trunk, PooledLogits(trunk.channels, spec.classes, dropout))
