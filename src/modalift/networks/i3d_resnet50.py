"""``i3d_resnet50``: the inflated 3D ResNet-50, with the strides in time that people give it."""

from __future__ import annotations

from typing import Literal

from modalift.networks.r3d import Layout3d, PooledLogits, ResNet3d
from modalift.networks.recognizer import Recognizer, wide
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive

#: Where convolutions reach over time. ``i3d``: 5 frames in the stem, 3 in the first 1x1 of every block of ``layer1`` and
#: of every other block behind it. ``heavy``: the same blocks, in the 3x3 in place of the 1x1. ``slowonly``: in the first
#: 1x1 of all blocks of ``layer3`` and ``layer4``, and nowhere else.
Pattern = Literal["i3d", "heavy", "slowonly"]
#: How time shrinks: by 2, behind ``layer1``; or by 8, also in the stem's convolution and pooling.
Strides = Literal["slowfast", "mmaction2"]

#: Which blocks of each layer reach over time.
_ALTERNATING = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))
_LATE = ((0,) * 3, (0,) * 4, (1,) * 6, (1,) * 3)


@network("i3d_resnet50", papers="MTCD", clip=(3, 32, 224))
def i3d_resnet50(spec: NetworkSpec, *, pattern: Pattern = "i3d", strides: Strides = "slowfast", width: Positive = 1.0,
                 dropout: float = 0.5, recompute: bool = False) -> Recognizer:
    """A ResNet-50 inflated to 3D: "I3D" and "3D ResNet50" of most papers that start from Kinetics weights.

    Args:
        pattern: ``i3d``, ``heavy`` (3x3x3 convolutions, dearer) or ``slowonly`` (time enters late, and is not strided
            at all: ``strides`` makes no difference).
        strides: ``slowfast`` halves time (behind ``layer1``), ``mmaction2`` divides it by eight (in the stem's
            convolution, its pooling, and behind ``layer1``). Parameters, and so the weights that load, are the same;
            the second costs a quarter.
        width: factor on the channels of every layer (64 in the stem at 1).
        dropout: before the classifier.
        recompute: keep only each block's input in training, and compute the rest again.

    Any number of frames and any size works; papers use 8 to 32 frames of 224 x 224 pixels.

    Raises:
        ModaliftError: an unknown pattern or strides, or a width that is not above 0.

    Source: Wang, Girshick, Gupta, He, "Non-local neural networks", CVPR 2018, table 1; Feichtenhofer, Fan, Malik, He,
    "SlowFast networks", ICCV 2019 (facebookresearch/SlowFast ``I3D_8x8_R50``; ``slowonly`` is its Slow pathway); and
    open-mmlab/mmaction2 ``i3d_r50``, ``i3d_r50_heavy`` and ``slowonly_r50``. Parameters and multiply-accumulates are
    exactly theirs. The idea of inflation is Carreira and Zisserman's, "Quo vadis, action recognition?", CVPR 2017.

    Deviations: the pooling behind ``layer1`` rounds an odd number of frames up, not down, so that one frame passes. The
    last BatchNorm of a block starts at one, as in ``r3d``, where both libraries start it at zero. The first pooling is
    padded, as in both; the earlier code of the first paper did not pad it (55 pixels in place of 56).

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
    middle = tuple(wide(64, width) * 2**i for i in range(4))
    step = 2 if strides == "mmaction2" and not late else 1
    layout = Layout3d(middle[0], middle, tuple(4 * m for m in middle), times, stem_time=(1 if late else 5, step),
                      pool=(1, step), halve=not late, time_stride=1)
    trunk = ResNet3d(spec.prepared_channels, layout, recompute)
    return Recognizer(spec, trunk, PooledLogits(trunk.channels, spec.classes, dropout))
