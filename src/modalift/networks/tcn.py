"""``tcn``: a dilated temporal convolutional network for joints and inertial sensors."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.networks.recognizer import Backbone, Recognizer, Stage
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count, Share


class ResidualBlock(nn.Module):
    """A residual block of two dilated temporal convolutions of kernel 3: ``(B, C, T)`` -> the same."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.relu(self.bn1(self.conv1(x))))
        return self.relu(x + self.bn2(self.conv2(y)))


class TemporalConvolutions(Backbone):
    """The trunk: input features, a pointwise stem, then residual blocks of dilation 1, 2, 4, ...

    With ``center`` the channels are joints, three channels per joint (x, y, z, x, ...): each joint is taken relative to the
    mean of all joints of its sample, and that mean, relative to its mean over the clip, is kept as three more channels.
    The network then ignores where the person stands, but not how the person moves. With ``velocity`` the difference of
    each sample from the one before is appended. Neither has learned weights.

    Args:
        channels: channels of the prepared signal.
        width: channels of the trunk.
        blocks: number of residual blocks; block ``i`` has dilation ``2**i``.
        center, velocity: see above.
        velocity_gain: factor on velocities, which are much smaller than positions.
        dropout: dropout probability inside the blocks.

    Shapes: ``(B, C, T, 1, 1)`` -> ``(B, width, T, 1, 1)``, any T.
    """

    def __init__(self, channels: int, width: int = 128, blocks: int = 3, center: bool = False, velocity: bool = True,
                 velocity_gain: float = 4.0, dropout: float = 0.2) -> None:
        super().__init__()
        self.center, self.velocity, self.velocity_gain = center, velocity, velocity_gain
        inside = (channels + 3 * center) * (2 if velocity else 1)
        self.bn0 = nn.BatchNorm1d(inside)
        self.stem = nn.Conv1d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.relu = nn.ReLU()
        self.blocks = nn.ModuleList(ResidualBlock(width, 2**i, dropout) for i in range(blocks))
        self.stages = {"stem": Stage(width, 1)} | {f"block{i + 1}": Stage(width, 1) for i in range(blocks)}
        self.channels = width
        for m in self.modules():
            if isinstance(m, nn.Conv1d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")

    def input_features(self, x: Tensor) -> Tensor:
        """A signal ``(B, C, T)`` with centering and velocities, ``(B, C', T)``."""
        if self.center:
            joints = x.unflatten(1, (-1, 3))  # (B, J, 3, T)
            middle = joints.mean(1)
            x = torch.cat([(joints - middle.unsqueeze(1)).flatten(1, 2), middle - middle.mean(2, keepdim=True)], 1)
        if self.velocity:
            step = torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:] - x[..., :-1]], 2)
            x = torch.cat([x, self.velocity_gain * step], 1)
        return x

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        if x.shape[3] != 1 or x.shape[4] != 1:
            raise ModaliftError(f"network 'tcn' reads signals (B, C, T, 1, 1), not {tuple(x.shape)} - "
                                "build 'small' or 'tsm' for video")
        maps: dict[str, Tensor] = {}
        y = self.relu(self.bn1(self.stem(self.bn0(self.input_features(x.flatten(2))))))
        for name, block in zip(self.stages, [None, *self.blocks], strict=True):
            y = y if block is None else block(y)
            if name in keep:
                maps[name] = y[..., None, None]
        return y[..., None, None], maps


class MeanAndMax(nn.Module):
    """Logits from the mean and the maximum of each channel over time: ``(B, C, T, 1, 1)`` -> ``(B, K)``."""

    def __init__(self, channels: int, classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return self.fc(self.drop(torch.cat([x.mean(2), x.amax(2)], 1)))


@network("tcn", papers="Modalift's own", view="pose", clip=(60, 32, 1))
def tcn(spec: NetworkSpec, *, width: Count = 128, blocks: Count = 3, center: bool | None = None, velocity: bool = True,
           dropout: Share = 0.4) -> Recognizer:
    """A temporal convolutional network (TCN) for joints and inertial sensors: clips ``(B, C, T, 1, 1)``.

    Args:
        width: channels of the trunk.
        blocks: number of residual blocks; with three, the receptive field is 29 samples.
        center: take joints (three channels per joint) relative to their mean; by default true for ``pose`` with a
            multiple of three channels.
        velocity: append the difference of each sample from the one before.
        dropout: dropout probability before the classifier; half of it inside the blocks.

    Raises:
        ModaliftError: ``center`` with a number of channels that is not a multiple of three.

    Source: the trunk is that of Bai, Kolter, Koltun, "An empirical evaluation of generic convolutional and recurrent
    networks for sequence modeling", 2018, section 3, here not causal.

    Example:
        >>> import modalift.networks as networks
        >>> networks.build("tcn", classes=27, view="pose", channels=60, frames=32).last_stage
        'block3'
    """
    channels = spec.prepared_channels
    if center is None:
        center = spec.modality == "pose" and channels % 3 == 0
    if center and channels % 3:
        raise ModaliftError(f"network 'tcn': center=true needs three channels per joint, not a total of {channels} - "
                            "set center=false")
    trunk = TemporalConvolutions(channels, width, blocks, center, velocity, dropout=dropout / 2)
    return Recognizer(spec, trunk, MeanAndMax(width, spec.classes, dropout))
