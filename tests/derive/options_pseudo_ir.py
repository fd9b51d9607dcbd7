"""What the derived view ``pseudo_ir`` needs: a translator that was shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modalift import networks
from modalift.loading.framing import Framing
from small_models import save_model


def options(folder: Path) -> dict[str, Any]:
    """Writes what is needed into a folder; the options of the derived view."""
    torch.manual_seed(0)
    net = networks.build("translator", view="rgb", target="thermal", backbone="resnet_4", ngf=4, frames=1, size=32)
    return {"bundle": str(save_model(folder / "translator.modalift", net, framing=Framing(frames=1, size=32), classes=[]))}
