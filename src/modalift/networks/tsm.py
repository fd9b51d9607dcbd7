"""``tsm``: temporal-shift networks, ResNets that pass channels on to the frames beside."""

from __future__ import annotations

from typing import Literal

from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, wide
from modalift.networks.registry import network
from modalift.networks.resnet import Part, ResNet
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive


@network("tsm", papers="MSD")
def tsm(spec: NetworkSpec, *, backbone: str = "resnet50", width: Positive = 1.0, dropout: float = 0.5,
        placement: Literal["residual", "block"] = "residual", part: Part = 8) -> Recognizer:
    """A temporal-shift network (TSM): a temporal-segment network whose blocks see the frames beside, at no multiplication.

    Args:
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101`` (every other block is shifted), or ``resnet8`` for
            pictures of 48 to 64 pixels.
        width: factor on the channels of every layer (64 in the stem at 1).
        dropout: before the classifier.
        placement: ``residual`` (the skip path sees its own frame) or ``block`` (in place). Without any shift
            this is ``tsn``.
        part: one ``part``-th of the channels is moved from either neighbor.

    Any number of frames works, also one; the paper uses 8 or 16 of 224 x 224 pixels.

    Raises:
        ModaliftError: an unknown backbone or placement, or a width that leaves no channel.

    Source: Lin, Gan, Han, "TSM: Temporal shift module for efficient video understanding", ICCV 2019, section 3; public code
    mit-han-lab/temporal-shift-module. Parameters and multiply-accumulates are exactly that code's.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("tsm", backbone="resnet18", classes=25, channels=3).stages["layer4"].channels
        512
    """
    trunk = ResNet(spec.prepared_channels, backbone, wide(64, width), placement, part)
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
