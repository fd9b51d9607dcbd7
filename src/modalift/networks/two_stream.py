"""``two_stream``: one stream of a two-stream network, over single images or stacks of optical flow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from modalift.errors import ModaliftError
from modalift.networks.heads import MeanLogits
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.resnet import ResNet
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive, Share


class StackedResNet(ResNet):
    r"""A ResNet over stacks of consecutive frames: the channels of L frames are concatenated.

    .. math:: y_{k,\,jC + c} = x_{kL + j,\,c}, \qquad 0 \le j < L

    with C channels per frame and L frames per stack. If T is no multiple of L, the last frame is repeated.

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
        """A clip as stacks ``(B, L * C, ceil(T / L), H, W)``."""
        if missing := -x.shape[2] % self.stack:
            x = torch.cat([x, x[:, :, -1:].expand(-1, -1, missing, -1, -1)], 2)
        return x.unflatten(2, (-1, self.stack)).permute(0, 3, 1, 2, 4, 5).flatten(1, 2)

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        return super().features(self.stacked(x) if self.stack > 1 else x, keep)


@network("two_stream", papers="MTUT (compared)", clip=(3, 25, 224))
def two_stream(spec: NetworkSpec, *, backbone: str = "resnet101", width: Positive = 1.0, dropout: Share = 0.5,
               stack: Count | None = None) -> Recognizer:
    r"""One stream of a two-stream network: the spatial one over images, the temporal one over stacks of optical flow.

    .. math:: z = \frac1N \sum_k \left( W\, \mathrm{drop}(\overline{f(y_k)}) + b \right)

    where :math:`y_k` are the N images or stacks of a clip, :math:`f` is a ResNet and the bar the mean over height and
    width. A recognizer reads one sensor, so the two streams are two networks: train one on ``rgb`` and one on ``flow`` (ten
    frames of horizontal and vertical displacement are one input of 20 channels), then ``modalift fuse`` averages their
    probabilities.

    Args:
        backbone: ``resnet101`` as in public PyTorch code, ``resnet18``, ``resnet34`` or ``resnet50``, or ``resnet8`` for
            images of 48 to 64 pixels.
        width: factor on the channels of every layer (1: 64 channels in the stem).
        dropout: dropout probability before the classifier.
        stack: consecutive frames per input; by default 10 for ``flow`` and 1 for other sensors. Use clips whose length is a
            multiple of it (otherwise the last frame is repeated) and of consecutive frames (sampler ``dense``).

    Raises:
        ModaliftError: an unknown backbone, an option outside its range, or motion channels together with stacked frames,
            which contain the motion already.

    Source: Simonyan, Zisserman, "Two-stream convolutional networks for action recognition in videos", NIPS 2014, sections
    2 and 3.1 (equation 1). There the network is CNN-M-2048 and scores of 25 frames are averaged after the softmax; here
    it is a ResNet, and logits are averaged. Parameters are those of torchvision's ResNets.

    Example:
        >>> import modalift.networks as networks
        >>> net = networks.build("two_stream", backbone="resnet18", classes=25, view="flow", frames=20)
        >>> net.backbone.conv1.in_channels, net.stages["layer4"].shape(20, 224, 224)
        (20, (512, 2, 7, 7))
    """
    if stack is None:
        stack = 10 if spec.modality == "flow" else 1
    if stack > 1 and spec.motion != "none":
        raise ModaliftError(f"network 'two_stream': motion='{spec.motion}' with stack={stack} - a stack of frames contains "
                            "the motion already; set motion='none' or stack=1")
    trunk = StackedResNet(spec.prepared_channels, backbone, scaled_width(64, width), stack)
    return Recognizer(spec, trunk, MeanLogits(trunk.channels, spec.classes, dropout))
