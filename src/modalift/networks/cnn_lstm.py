"""``cnn_lstm``: a ResNet over every frame and a recurrent layer over its features."""

from __future__ import annotations

from torch import Tensor, nn

from modalift.networks.heads import cells
from modalift.networks.recognizer import Recognizer, wide
from modalift.networks.registry import network
from modalift.networks.resnet import ResNet
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Positive


class LastState(nn.Module):
    r"""Logits from a long short-term memory's state after the last frame.

    .. math:: (h_t, c_t) = \mathrm{LSTM}(\bar x_t, h_{t-1}, c_{t-1}), \qquad z = W\, \mathrm{drop}(h_T) + b

    where :math:`\bar x_t` is the mean of the map over height and width (with ``grid``, the means of its cells side by side:
    then the state knows where in the picture).

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
        frames = cells(x, self.grid).transpose(1, 2)  # (B, T, C * grid**2)
        hidden = frames.new_zeros((frames.shape[0], self.cell.hidden_size))
        state = (hidden, hidden)
        for t in range(frames.shape[1]):  # a cell and not a layer: it exports and compiles everywhere
            state = self.cell(frames[:, t], state)
        return self.fc(self.drop(state[0]))


@network("cnn_lstm", papers="MSD (compared, as Segmentation+LSTM)")
def cnn_lstm(spec: NetworkSpec, *, backbone: str = "resnet18", width: Positive = 1.0, hidden: Count = 256,
             dropout: float = 0.5, grid: Count = 1) -> Recognizer:
    """A recurrent layer over the features of single frames: the network of ``segmentation_lstm``.

    Args:
        backbone: ``resnet18``, ``resnet34``, ``resnet50``, or ``resnet8`` for pictures of 48 to 64 pixels.
        width: factor on the channels of the trunk.
        hidden: numbers of the recurrent state.
        dropout: before the classifier.
        grid: cells along height and along width whose means are told apart; 1 is the mean of the whole map.

    Any number of frames works, also all of a recording.

    Raises:
        ModaliftError: an unknown backbone, or a width that leaves no channel.

    Source: Donahue et al., "Long-term recurrent convolutional networks", CVPR 2015; the trunk that the rival in MSD's
    Table V used is not published, so a ResNet stands here.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("cnn_lstm", classes=25, channels=3, size=64, width=0.25).last_stage
        'layer4'
    """
    trunk = ResNet(spec.prepared_channels, backbone, wide(64, width), "none")
    return Recognizer(spec, trunk, LastState(trunk.channels, spec.classes, hidden, dropout, grid))
