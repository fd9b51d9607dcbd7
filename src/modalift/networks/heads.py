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
        dropout: share of the pooled channels that is dropped in training.

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


def spans(frames: int, bins: int, device: torch.device) -> Tensor:
    """Weights ``(T, bins)`` of the mean over each of ``bins`` equal spans of time (overlapping where T is no multiple).

    Example:
        >>> spans(4, 2, torch.device("cpu")).T.tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    t = torch.arange(frames, device=device).unsqueeze(1)
    i = torch.arange(bins, device=device).unsqueeze(0)
    inside = (t >= i * frames // bins) & (t < ((i + 1) * frames + bins - 1) // bins)
    weight = inside.float()
    return weight / weight.sum(0)


def cells(x: Tensor, grid: int) -> Tensor:
    """The means of ``grid`` x ``grid`` cells of every frame: ``(B, C, T, H, W)`` to ``(B, C * grid**2, T)``."""
    if grid == 1:
        return x.mean((3, 4))
    down, across = (spans(n, grid, x.device).to(x.dtype) for n in x.shape[3:])
    means = down.T @ x @ across  # (B, C, T, grid, grid)
    return means.flatten(3).transpose(2, 3).flatten(1, 2)


class SpansHead(nn.Module):
    """What the two order-aware heads share: a convolution over three frames, and a classifier of the means of spans.

    Args:
        channels: channels of the map.
        classes: K.
        bins: spans that are told apart.
        dropout: share of the means that is dropped in training.
        hidden: channels of the convolution; by default twice the map's.
        grid: cells along height and along width whose means are told apart; 1 is the mean of the whole map.
        padding: blank frames on each side that the convolution sees.
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

    def convolved(self, frames: Tensor) -> Tensor:
        """Of pooled frames ``(B, C, T)``: u, ``(B, hidden, T)`` (two frames fewer without padding)."""
        return self.relu(self.bn(self.conv(frames)))

    def classified(self, u: Tensor) -> Tensor:
        """Logits ``(B, K)`` of the means of ``u`` over the spans of all its frames."""
        means = u @ spans(u.shape[2], self.bins, u.device).to(u.dtype)  # (B, hidden, bins)
        return self.fc(self.drop(means.flatten(1)))


class OrderedHead(SpansHead):
    r"""Logits from what happens early, in the middle and late: a temporal convolution, then the mean of each span.

    .. math:: u = \mathrm{ReLU}(\mathrm{BN}(k * \bar x)), \qquad z = W\, [\bar u_1; \ldots; \bar u_n] + b

    where :math:`\bar x` is the map's mean over height and width (with ``grid``, the means of its cells side by side: then
    it also knows where in the picture), ``k`` a kernel of three frames, and :math:`\bar u_i` the mean of ``u`` over the
    i-th of ``n`` equal spans of the clip. Averaging logits over all frames cannot tell a movement from its reverse
    except through the trunk; this can, and learns in far fewer epochs.

    Args:
        channels: channels of the map.
        classes: K.
        bins: n.
        dropout: share of the means that is dropped in training.
        hidden: channels of u; by default twice the map's.
        grid: cells along height and along width.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``, any T.
    """

    def __init__(self, channels: int, classes: int, bins: int = 4, dropout: float = 0.3,
                 hidden: int | None = None, grid: int = 1) -> None:
        super().__init__(channels, classes, bins, dropout, hidden, grid, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classified(self.convolved(cells(x, self.grid)))


class CausalHead(SpansHead):
    r"""The order-aware head of a streaming network: as :class:`OrderedHead`, over a window that slides.

    .. math:: u_t = \mathrm{ReLU}\Big(\mathrm{BN}\Big(\sum_{j=0}^{2} k_j \bar x_{t-j}\Big)\Big), \qquad
              z_t = W\, [\bar u_1; \ldots; \bar u_n] + b

    where :math:`\bar u_i` is the mean of ``u`` over the i-th of ``n`` equal spans of the last ``frames`` frames up to
    ``t``; before the first frame ``u`` is zero. Logits of a clip are those at its last frame: of a clip of ``frames``
    frames they look at all of it, and in an endless stream the past is forgotten after as many. (Means that fade
    exponentially, which need no window, were less accurate by a tenth on UTD-MHAD depth.)

    Args:
        channels: channels of the map.
        classes: K.
        frames: length of the window.
        bins: n.
        dropout: share of the means that is dropped in training.
        hidden: channels of u; by default twice the map's.
        grid: cells along height and along width.

    Shapes: ``(B, C, T, H, W)`` -> ``(B, K)``, any T.
    """

    def __init__(self, channels: int, classes: int, frames: int, bins: int = 4, dropout: float = 0.3,
                 hidden: int | None = None, grid: int = 1) -> None:
        super().__init__(channels, classes, bins, dropout, hidden, grid, padding=0)
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)[0]

    def run(self, x: Tensor, before: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits at the last of these frames, and what the next ones need.

        The memory is ``(pooled frames (B, C * grid**2, 2), u (B, hidden, frames))``; zeros are the start.
        """
        pooled = cells(x, self.grid)
        past = pooled.new_zeros((*pooled.shape[:2], 2)) if before is None else before[0].to(pooled.dtype)
        pooled = torch.cat([past, pooled], 2)
        u = self.convolved(pooled)
        old = u.new_zeros((u.shape[0], self.hidden, self.frames)) if before is None else before[1].to(u.dtype)
        window = torch.cat([old, u], 2)[..., -self.frames:]
        return self.classified(window), (pooled[..., -2:], window)
