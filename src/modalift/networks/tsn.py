"""``tsn``: temporal-segment networks, a ResNet that sees every frame by itself."""

from __future__ import annotations

from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, wide
from modalift.networks.registry import network
from modalift.networks.resnet import ResNet
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive


@network("tsn", papers="MGCAM+DKD, MTCD", clip=(3, 16, 224))
def tsn(spec: NetworkSpec, *, backbone: str = "resnet50", width: Positive = 1.0, dropout: float = 0.5) -> Recognizer:
    r"""A temporal-segment network (TSN): frames are classified apart, and their logits averaged.

    .. math:: z = \frac1T \sum_t \left( W\, \mathrm{drop}(\overline{f(x_t)}) + b \right)

    where :math:`f` is a ResNet over one frame and the bar the mean over height and width. The order of the frames does not
    matter. That one frame is taken of each of T equal segments of a clip is a matter of reading it (sampler
    ``segments``, the default).

    Args:
        backbone: ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101``, or ``resnet8`` for pictures of 48 to 64 pixels.
        width: factor on the channels of every layer (64 in the stem at 1).
        dropout: before the classifier.

    Raises:
        ModaliftError: an unknown backbone, or a width that leaves no channel.

    Source: Wang et al., "Temporal segment networks: Toward good practices for deep action recognition", ECCV 2016, with
    the average as consensus and a ResNet in place of BN-Inception, as in the public code of TSM.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("tsn", backbone="resnet34", classes=10, channels=1).stages["layer4"].channels
        512
    """
    trunk = ResNet(spec.prepared_channels, backbone, wide(64, width), "none")
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
