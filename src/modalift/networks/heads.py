"""From the last feature map of a clip to logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MeanLogits(nn.Module):
    r"""Logits of every frame, averaged over the frames before the softmax: the head of TSN and TSM.

    .. math:: z = \frac1T \sum_t \left( W\, \mathrm{drop}(\bar x_t) + b \right)

    where :math:`\bar x_t` is the mean of the map over height and width.

    Args:
        channels: channels of the map.
        classes: K.
        dropout: dropout probability of the pooled channels.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``.

    Source: Wang et al., "Temporal segment networks", ECCV 2016, equation 1 with the average as consensus.
    """

    def __init__(self, channels: int, classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes)
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.mean((3, 4)).transpose(1, 2)  # (B, T, C)
        return self.fc(self.drop(frames)).mean(1)


def bin_weights(frames: int, bins: int, device: torch.device) -> Tensor:
    """Weights ``(T, bins)`` that average over each of ``bins`` equal parts of an axis; parts overlap if T is no multiple.

    Example:
        >>> bin_weights(4, 2, torch.device("cpu")).T.tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    t = torch.arange(frames, device=device).unsqueeze(1)
    i = torch.arange(bins, device=device).unsqueeze(0)
    inside = (t >= i * frames // bins) & (t < ((i + 1) * frames + bins - 1) // bins)
    weight = inside.float()
    return weight / weight.sum(0)


def grid_means(x: Tensor, grid: int) -> Tensor:
    """The means of ``grid`` x ``grid`` cells of every frame: ``(B, C, T, H, W)`` -> ``(B, C * grid**2, T)``."""
    if grid == 1:
        return x.mean((3, 4))
    down, across = (bin_weights(n, grid, x.device).to(x.dtype) for n in x.shape[3:])
    means = down.T @ x @ across  # (B, C, T, grid, grid)
    return means.flatten(3).transpose(2, 3).flatten(1, 2)


class BinnedHead(nn.Module):
    """Base of the two order-aware heads: a convolution over three frames, and a linear layer on the means of time bins.

    Args:
        channels: channels of the map.
        classes: K.
        bins: number of time bins.
        dropout: dropout probability of the means.
        hidden: channels of the convolution; by default twice the map's.
        grid: each frame is pooled to ``grid`` x ``grid`` means; 1 is the mean of the whole map.
        padding: zero frames on each side for the convolution.
    """

    def __init__(self, channels: int, classes: int, bins: int, dropout: float, hidden: int | None, grid: int,
                 padding: int) -> None:
        super().__init__()
        self.bins, self.hidden, self.grid = bins, hidden or 2 * channels, grid
        self.conv = nn.Conv1d(channels * grid**2, self.hidden, 3, padding=padding, bias=False)
        self.bn = nn.BatchNorm1d(self.hidden)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(self.hidden * bins, classes)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def convolve(self, frames: Tensor) -> Tensor:
        """Pooled frames ``(B, C, T)`` to u, ``(B, hidden, T)`` (two frames fewer without padding)."""
        return self.relu(self.bn(self.conv(frames)))

    def classify(self, u: Tensor) -> Tensor:
        """Logits ``(B, K)`` of u, from its means over the time bins."""
        means = u @ bin_weights(u.shape[2], self.bins, u.device).to(u.dtype)  # (B, hidden, bins)
        return self.fc(self.drop(means.flatten(1)))


class OrderedHead(BinnedHead):
    r"""Order-aware logits: a temporal convolution, then the mean of each time bin, then a linear layer on all of them.

    .. math:: u = \mathrm{ReLU}(\mathrm{BN}(k * \bar x)), \qquad z = W\, [\bar u_1; \ldots; \bar u_n] + b

    where :math:`\bar x` is the map's mean over height and width (with ``grid`` above 1, the concatenated means of its
    cells, which keep the place in the image), ``k`` a kernel of three frames, and :math:`\bar u_i` the mean of ``u`` over
    the i-th of ``n`` equal time bins of the clip. Logits averaged over all frames cannot distinguish a movement from its
    reverse, except through the trunk; this head can, and learns in far fewer epochs.

    Args:
        channels: channels of the map.
        classes: K.
        bins: n.
        dropout: dropout probability of the means.
        hidden: channels of u; by default twice the map's.
        grid: each frame is pooled to ``grid`` x ``grid`` means.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``, any T.
    """

    def __init__(self, channels: int, classes: int, bins: int = 4, dropout: float = 0.3,
                 hidden: int | None = None, grid: int = 1) -> None:
        super().__init__(channels, classes, bins, dropout, hidden, grid, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.convolve(grid_means(x, self.grid)))


class CausalHead(BinnedHead):
    r"""The order-aware head of a streaming network: as :class:`OrderedHead`, over a sliding window.

    .. math:: u_t = \mathrm{ReLU}\Big(\mathrm{BN}\Big(\sum_{j=0}^{2} k_j \bar x_{t-j}\Big)\Big), \qquad
              z_t = W\, [\bar u_1; \ldots; \bar u_n] + b

    where :math:`\bar u_i` is the mean of ``u`` over the i-th of ``n`` equal time bins of the last ``frames`` frames up
    to ``t``; before the first frame ``u`` is zero. A clip's logits are those at its last frame: they use all of a clip of
    ``frames`` frames; in an endless stream, older frames have no influence. (Exponentially decaying means, which need no
    window, were a tenth less accurate on UTD-MHAD depth.)

    Args:
        channels: channels of the map.
        classes: K.
        frames: length of the window.
        bins: n.
        dropout: dropout probability of the means.
        hidden: channels of u; by default twice the map's.
        grid: each frame is pooled to ``grid`` x ``grid`` means.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``, any T.
    """

    def __init__(self, channels: int, classes: int, frames: int, bins: int = 4, dropout: float = 0.3,
                 hidden: int | None = None, grid: int = 1) -> None:
        super().__init__(channels, classes, bins, dropout, hidden, grid, padding=0)
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return self.stream(x)[0]

    def stream(self, x: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits at the last of these frames, and the state for the frames to come.

        The state is ``(pooled frames (B, C * grid**2, 2), u (B, hidden, frames))``; zeros are the state before the first
        frame.
        """
        pooled = grid_means(x, self.grid)
        past = pooled.new_zeros((*pooled.shape[:2], 2)) if state is None else state[0].to(pooled.dtype)
        pooled = torch.cat([past, pooled], 2)
        u = self.convolve(pooled)
        old = u.new_zeros((u.shape[0], self.hidden, self.frames)) if state is None else state[1].to(u.dtype)
        window = torch.cat([old, u], 2)[..., -self.frames:]
        return self.classify(window), (pooled[..., -2:], window)
