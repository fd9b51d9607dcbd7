"""Activation checkpointing: less memory for more time; BatchNorm's running statistics are updated once."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class _StatisticsKept:
    """Context in which running statistics do not change: the forward pass has updated them already.

    It can be entered again, once for every backward pass over a retained graph.
    """

    def __init__(self, part: nn.Module) -> None:
        self.norms = [m for m in part.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]

    def __enter__(self) -> None:
        self.saved = [{k: b.clone() for k, b in m.named_buffers()} for m in self.norms]

    def __exit__(self, *_: object) -> None:
        for m, old in zip(self.norms, self.saved, strict=True):
            for name, value in old.items():
                getattr(m, name).copy_(value)


def checkpointed(part: nn.Module, *inputs: Any) -> Tensor:
    """``part(*inputs)``, of which only the inputs are kept; the rest is computed again in the backward pass.

    Outputs, gradients, random numbers and BatchNorm's running statistics are those of ``part(*inputs)``. In a compiled
    network nothing is checkpointed: the compiler decides itself what to compute again.

    Source: Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016.

    Example:
        >>> layer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> checkpointed(layer, torch.ones(1, 2)).shape
        torch.Size([1, 2])
    """
    if torch.compiler.is_compiling():
        return part(*inputs)
    out: Tensor = checkpoint(part, *inputs, use_reentrant=False,
                             context_fn=lambda: (nullcontext(), _StatisticsKept(part)))
    return out
