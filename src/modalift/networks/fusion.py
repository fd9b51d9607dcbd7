"""Fusion of several sensors: a head over their networks; an upper bound for one taught sensor, never shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.networks.heads import bin_weights
from modalift.networks.recognizer import Observation, Recognizer

Mode = Literal["late", "mid"]


class FusionHead(nn.Module):
    r"""Joint logits from the outputs of several networks for the same clips.

    .. math:: z_{late} = \frac{\sum_m k_m z_m}{\sum_m k_m}, \qquad
              z_{mid} = W_2\, \mathrm{drop}\big(\mathrm{ReLU}(W_1 [k_1 \bar F_1; \ldots; k_M \bar F_M] + b_1)\big) + b_2

    where :math:`z_m` are the networks' logits, :math:`\bar F_m` the concatenated means of their deepest maps over height,
    width and each of ``bins`` time bins, and :math:`k_m` is 1 where sensor m is present and 0 where it is absent.

    Late fusion has no weights. Mid fusion needs its hidden layer: a single linear layer on concatenated features is a sum
    of one linear classifier per sensor, which is late fusion again.

    Args:
        channels: channels of each network's deepest map.
        classes: K.
        mode: ``late`` or ``mid``.
        width: width of the hidden layer.
        bins: number of time bins.
        dropout: dropout probability of the hidden layer.

    Shapes: :meth:`forward` takes logits ``(M, B, K)``, features ``(B, C_m * bins)`` per network, and ``keep``, bool
    ``(M, B)``; returns ``(B, K)``, zeros (late) or a constant (mid) for a clip without any sensor.
    """

    def __init__(self, channels: Mapping[str, int], classes: int, mode: Mode = "late", *, width: int = 256, bins: int = 4,
                 dropout: float = 0.0) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise ModaliftError(f"scheme.mode = {mode} - one of {', '.join(get_args(Mode))}")
        if width < 1 or bins < 1 or not 0 <= dropout < 1:
            raise ModaliftError(f"scheme: width={width}, bins={bins}, dropout={dropout} - width and bins are 1 or more,"
                                " dropout lies in [0, 1)")
        self.mode, self.bins = mode, bins
        self.config: dict[str, Any] = {"mode": mode, "width": width, "bins": bins, "dropout": dropout}
        if mode == "mid":
            self.layers = nn.Sequential(nn.Linear(bins * sum(channels.values()), width), nn.ReLU(), nn.Dropout(dropout),
                                        nn.Linear(width, classes))

    def pooled(self, deepest: Tensor) -> Tensor:
        """The features of a deepest map: ``(B, C, T, H, W)`` -> ``(B, C * bins)``."""
        frames = deepest.mean((3, 4))
        return (frames @ bin_weights(frames.shape[2], self.bins, frames.device).to(frames.dtype)).flatten(1)

    def forward(self, logits: Tensor, features: list[Tensor], keep: Tensor) -> Tensor:
        if self.mode == "late":
            kept = keep.unsqueeze(2)
            return torch.where(kept, logits, torch.zeros_like(logits)).sum(0) / kept.sum(0).clamp_min(1)
        present = [torch.where(k.unsqueeze(1), f, torch.zeros_like(f)) for k, f in zip(keep, features, strict=True)]
        return self.layers(torch.cat(present, 1))


class Fusion(nn.Module):
    """Networks of several sensors and a fusion head: ``fusion(clips) -> logits (B, K)``.

    Args:
        members: role -> network; several may read one view.
        head: see :class:`FusionHead`.

    ``clips`` maps views to ``(B, C, T, H, W)``; every sensor is present.
    """

    kind: ClassVar[str] = "fusion"

    def __init__(self, members: Mapping[str, Recognizer], head: FusionHead) -> None:
        super().__init__()
        self.members, self.head = nn.ModuleDict(members), head

    @property
    def networks(self) -> dict[str, Recognizer]:
        """Role -> network."""
        return {k: m for k, m in self.members.items() if isinstance(m, Recognizer)}

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it reads, each once."""
        return tuple(dict.fromkeys(net.view for net in self.networks.values()))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return next(iter(self.networks.values())).classes

    def forward(self, clips: Mapping[str, Tensor]) -> Tensor:
        observed: list[Observation] = [net.observe(clips[net.view], [net.last_stage]) for net in self.networks.values()]
        features = [self.head.pooled(o.maps[n.last_stage]) for o, n in zip(observed, self.networks.values(), strict=True)]
        logits = torch.stack([o.logits for o in observed])
        return self.head(logits, features, torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device))
