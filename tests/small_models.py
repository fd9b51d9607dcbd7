"""Networks and models that are made in an instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modalift import networks
from modalift.loading.framing import Framing, Protocol
from modalift.models import model_of
from modalift.networks import Recognizer

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
UTD = SHARED / "data" / "utd_mhad_depth"
NAMES = ("stop", "go", "über [b]alles", "quiet", "rally")


def lively(net: Recognizer, seed: int = 0) -> Recognizer:
    """Random weights whose answers differ from clip to clip, and statistics that are not those of a new network."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_mean"):
                value.copy_(0.1 * torch.randn(value.shape, generator=rng))
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=rng))
            elif value.dim() > 1 and name.startswith("head"):
                value.copy_(0.3 * torch.randn(value.shape, generator=rng))
    return net.eval()


def small_net(**options: object) -> Recognizer:
    settings: dict[str, object] = {"classes": len(NAMES), "view": "depth", "frames": 6, "size": 24, "width": 4,
                                   "motion": "clip", **options}
    return lively(networks.build("small", **settings))  # type: ignore[arg-type]


def save_model(path: str | Path, net: Any, *, framing: Framing, classes: Sequence[str],
               protocol: Protocol | Mapping[str, int] | None = None, provenance: Mapping[str, Any] | None = None) -> Path:
    """The file of a model of one sensor."""
    protocol = protocol if isinstance(protocol, Protocol) else Protocol(**(protocol or {}))
    return model_of(net, {net.view: framing}, classes, protocol, provenance).save(path)
