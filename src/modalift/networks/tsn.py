"""``tsn``: temporal-segment networks, a ResNet over every frame, logits averaged."""

from __future__ import annotations

from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.resnet import ResNet
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Positive, Share


@network("tsn", papers="MGCAM+DKD, MTCD", clip=(3, 16, 224))
def tsn(spec: NetworkSpec, *, backbone: str = "resnet50", width: Positive = 1.0, dropout: Share = 0.5) -> Recognizer:
    r"""A temporal-segment network (TSN): each frame is classified by itself, and the logits are averaged.

    .. math:: z = \frac1T \sum_t \left( W\, \mathrm{drop}(\overline{f(x_t)}) + b \right)

    where :math:`f` is a ResNet over one frame and the bar the mean over height and width. The order of the frames does not
    matter. The sampler ``segments`` (``data.sampler``, the default) takes one frame of each of T equal segments of a clip.

    Args:
        backbone: ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101``, or ``resnet8`` for images of 48 to 64 pixels.
        width: factor on the channels of every layer (1: 64 channels in the stem).
        dropout: dropout probability before the classifier.

    Raises:
        ModaliftError: an unknown backbone, or an option outside its range.

    Source: Wang et al., "Temporal segment networks: Toward good practices for deep action recognition", ECCV 2016, with
    the average as consensus and a ResNet in place of BN-Inception, as in the public code of TSM.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("tsn", backbone="resnet34", classes=10, channels=1).stages["layer4"].channels
        512
    """
    trunk = ResNet(spec.prepared_channels, backbone, scaled_width(64, width), "none")
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
