"""``tsm``: temporal-shift networks, ResNets that exchange channels between neighboring frames."""

from __future__ import annotations

from typing import Literal

from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.resnet import ResNet
from modalift.networks.shift import ShiftDiv
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive, Share


@network("tsm", papers="MSD")
def tsm(spec: NetworkSpec, *, backbone: str = "resnet50", width: Positive = 1.0, dropout: Share = 0.5,
        placement: Literal["residual", "block"] = "residual", shift_div: ShiftDiv = 8) -> Recognizer:
    """A temporal-shift network (TSM): a TSN whose blocks also use neighboring frames, at no multiplication.

    Args:
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101`` (every other block is shifted), or ``resnet8`` for
            images of 48 to 64 pixels.
        width: factor on the channels of every layer (1: 64 channels in the stem).
        dropout: dropout probability before the classifier.
        placement: ``residual`` (the skip path is not shifted) or ``block`` (it is: "in-place" shift). The network without
            shift is ``tsn``.
        shift_div: the inverse of the share of channels that comes from each neighboring frame.

    Any number of frames works, also one; the paper uses 8 or 16 of 224 x 224 pixels.

    Raises:
        ModaliftError: an unknown backbone or placement, or an option outside its range.

    Source: Lin, Gan, Han, "TSM: Temporal shift module for efficient video understanding", ICCV 2019, section 3; public code
    mit-han-lab/temporal-shift-module. Parameters and multiply-accumulates are exactly that code's.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("tsm", backbone="resnet18", classes=25, channels=3).stages["layer4"].channels
        512
    """
    trunk = ResNet(spec.prepared_channels, backbone, scaled_width(64, width), placement, shift_div)
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
