"""Several sensors in, one answer: an upper bound for what one of them can be taught, never the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError
from modalift.networks.heads import spans
from modalift.networks.recognizer import Observation, Recognizer

Mode = Literal["late", "mid"]


class FusionHead(nn.Module):
    r"""One answer from what several networks made of the same clips.

    .. math:: z_{late} = \frac{\sum_m k_m z_m}{\sum_m k_m}, \qquad
              z_{mid} = W_2\, \mathrm{drop}\big(\mathrm{ReLU}(W_1 [k_1 \bar F_1; \ldots; k_M \bar F_M] + b_1)\big) + b_2

    where :math:`z_m` are the networks' logits, :math:`\bar F_m` the means of their deepest maps over the picture and over
    each of ``bins`` spans of time, side by side, and :math:`k_m` is 1 where sensor m is there and 0 where it is not.

    Late fusion has no weights. The hidden layer of mid fusion is its point: a single linear layer on the features side by
    side is a sum of one linear classifier a sensor, which is late fusion again.

    Args:
        channels: channels of each network's deepest map.
        classes: K.
        mode: ``late`` or ``mid``.
        width: width of the hidden layer.
        bins: spans of time that are told apart.
        dropout: share of the hidden layer that is dropped in training.

    Shapes: :meth:`forward` takes logits ``(M, B, K)``, one ``(B, C_m * bins)`` of features a network, and ``keep`` bool
    ``(M, B)``; returns ``(B, K)``, zeros (late) or a constant (mid) for a clip that no sensor saw.
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
        """The features of a deepest map: ``(B, C, T, H, W)`` to ``(B, C * bins)``."""
        frames = deepest.mean((3, 4))
        return (frames @ spans(frames.shape[2], self.bins, frames.device).to(frames.dtype)).flatten(1)

    def forward(self, logits: Tensor, features: list[Tensor], keep: Tensor) -> Tensor:
        if self.mode == "late":
            kept = keep.unsqueeze(2)
            return torch.where(kept, logits, torch.zeros_like(logits)).sum(0) / kept.sum(0).clamp_min(1)
        shown = [torch.where(k.unsqueeze(1), f, torch.zeros_like(f)) for k, f in zip(keep, features, strict=True)]
        return self.layers(torch.cat(shown, 1))


class Fusion(nn.Module):
    """Networks of several sensors and the head that joins them: ``fusion(clips) -> logits (B, K)``.

    Args:
        members: role -> network; several may read one view.
        head: see :class:`FusionHead`.

    ``clips`` maps views to ``(B, C, T, H, W)``; every sensor is there.
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
        """How many classes it tells apart."""
        return next(iter(self.networks.values())).classes

    def forward(self, clips: Mapping[str, Tensor]) -> Tensor:
        seen: list[Observation] = [net.observe(clips[net.view], [net.last_stage]) for net in self.networks.values()]
        features = [self.head.pooled(o.maps[n.last_stage]) for o, n in zip(seen, self.networks.values(), strict=True)]
        logits = torch.stack([o.logits for o in seen])
        return self.head(logits, features, torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device))
