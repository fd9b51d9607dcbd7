"""``cnn_lstm``: a ResNet over every frame and a recurrent layer over its features."""

from __future__ import annotations

from torch import Tensor, nn

from modalift.networks.heads import grid_means
from modalift.networks.recognizer import Recognizer, scaled_width
from modalift.networks.registry import network
from modalift.networks.resnet import ResNet
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive, Share


class LastState(nn.Module):
    r"""Logits from a long short-term memory's state after the last frame.

    .. math:: (h_t, c_t) = \mathrm{LSTM}(\bar x_t, h_{t-1}, c_{t-1}), \qquad z = W\, \mathrm{drop}(h_T) + b

    where :math:`\bar x_t` is the mean of the map over height and width (with ``grid`` above 1, the concatenated means
    of its cells, which keep the place in the image).

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``, any T.
    """

    def __init__(self, channels: int, classes: int, hidden: int = 256, dropout: float = 0.5,
                 grid: int = 1) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(channels * grid**2, hidden)
        self.grid = grid
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        frames = grid_means(x, self.grid).transpose(1, 2)  # (B, T, C * grid**2)
        hidden = frames.new_zeros((frames.shape[0], self.cell.hidden_size))
        state = (hidden, hidden)
        for t in range(frames.shape[1]):  # a cell, not a layer: it exports and compiles everywhere
            state = self.cell(frames[:, t], state)
        return self.fc(self.drop(state[0]))


@network("cnn_lstm", papers="MSD (compared, as Segmentation+LSTM)")
def cnn_lstm(spec: NetworkSpec, *, backbone: str = "resnet18", width: Positive = 1.0, hidden: Count = 256,
             dropout: Share = 0.5, grid: Count = 1) -> Recognizer:
    """A recurrent layer over the features of single frames: the network of ``segmentation_lstm``.

    Args:
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, or ``resnet8`` for images of 48 to 64 pixels.
        width: factor on the channels of the trunk.
        hidden: size of the recurrent state.
        dropout: dropout probability before the classifier.
        grid: each frame is pooled to ``grid`` x ``grid`` means; 1 is the mean of the whole map.

    Any number of frames works, also a whole recording.

    Raises:
        ModaliftError: an unknown backbone, or an option outside its range.

    Source: Donahue et al., "Long-term recurrent convolutional networks", CVPR 2015; the trunk of the compared
    method in MSD's Table V is not published; this one is a ResNet.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("cnn_lstm", classes=25, channels=3, size=64, width=0.25).last_stage
        'layer4'
    """
    trunk = ResNet(spec.prepared_channels, backbone, scaled_width(64, width), "none")
    return Recognizer(spec, trunk, LastState(trunk.channels, spec.classes, hidden, dropout, grid))
