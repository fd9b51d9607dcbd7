"""Networks that are made in an instant, for the tests of what ships."""

from __future__ import annotations

from pathlib import Path

import torch

from modalift import networks
from modalift.networks import Recognizer

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
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
