"""``two_stream``: one stream of a two-stream network, of single pictures or of stacks of optical flow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, wide
from modalift.networks.registry import network
from modalift.networks.resnet import ResNet
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive


class StackedResNet(ResNet):
    r"""A ResNet whose pictures are stacks of consecutive frames: their channels side by side, frame after frame.

    .. math:: y_{k,\,jC + c} = x_{kL + j,\,c}, \qquad 0 \le j < L

    with C channels a frame and L frames a stack. Where T is no multiple of L, the last frame is repeated.

    Args:
        channels: C.
        layout, width: as :class:`~modalift.networks.resnet.ResNet` takes them.
        stack: L.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, C', ceil(T / L), H', W')``.
    """

    def __init__(self, channels: int, layout: str, width: int, stack: int) -> None:
        super().__init__(channels * stack, layout, width, "none")
        self.stack = stack
        self.stages = {name: replace(stage, time_stride=stack) for name, stage in self.stages.items()}

    def stacked(self, x: Tensor) -> Tensor:
        """Stacks ``(B, L * C, ceil(T / L), H, W)`` of a clip."""
        if missing := -x.shape[2] % self.stack:
            x = torch.cat([x, x[:, :, -1:].expand(-1, -1, missing, -1, -1)], 2)
        return x.unflatten(2, (-1, self.stack)).permute(0, 3, 1, 2, 4, 5).flatten(1, 2)

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        return super().features(self.stacked(x) if self.stack > 1 else x, keep)


@network("two_stream", papers="MTUT (compared)", clip=(3, 25, 224))
def two_stream(spec: NetworkSpec, *, backbone: str = "resnet101", width: Positive = 1.0, dropout: float = 0.5,
               stack: Count | None = None) -> Recognizer:
    r"""One stream of a two-stream network: the spatial one on pictures, the temporal one on stacks of optical flow.

    .. math:: z = \frac1N \sum_k \left( W\, \mathrm{drop}(\overline{f(y_k)}) + b \right)

    where :math:`y_k` are the N pictures or stacks of a clip, :math:`f` is a ResNet and the bar the mean over height and
    width. A recognizer reads one sensor, so that the two streams are two networks: train one on ``rgb`` and one on ``flow``
    (ten frames of horizontal and vertical displacement are one input of 20 channels). They are fused where both are
    evaluated, by the mean of their probabilities; nothing is fused here.

    Args:
        backbone: ``resnet101`` as in public PyTorch code, ``resnet18``, ``resnet34`` or ``resnet50``, or ``resnet8`` for
            pictures of 48 to 64 pixels.
        width: factor on the channels of every layer (64 in the stem at 1).
        dropout: before the classifier.
        stack: consecutive frames of one input; by default 10 for ``flow`` and 1 for other sensors. Clips are best of a
            multiple of it (of a shorter last stack the last frame is repeated) and of consecutive frames (sampler
            ``dense``).

    Raises:
        ModaliftError: an unknown backbone, a width that leaves no channel, a stack below 1, or motion channels beside
            stacked frames, which hold the motion already.

    Source: Simonyan, Zisserman, "Two-stream convolutional networks for action recognition in videos", NIPS 2014, sections
    2 and 3.1 (equation 1). There the network is CNN-M-2048 and scores of 25 frames are averaged after the softmax: here
    a ResNet, and logits. Parameters are those of torchvision's ResNets.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("two_stream", backbone="resnet18", classes=25, view="flow", frames=20)
        >>> net.backbone.conv1.in_channels, net.stages["layer4"].shape(20, 224, 224)
        (20, (512, 2, 7, 7))
    """
    if stack is None:
        stack = 10 if spec.modality == "flow" else 1
    if stack > 1 and spec.motion != "none":
        raise ModaliftError(f"network 'two_stream': motion='{spec.motion}' with stack={stack} - frames of a stack show "
                            "motion already; set motion='none' or stack=1")
    trunk = StackedResNet(spec.prepared_channels, backbone, wide(64, width), stack)
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
