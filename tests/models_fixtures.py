"""Fixtures of small models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalift.loading.framing import Framing
from small_models import NAMES, save_model, small_net


@pytest.fixture(scope="session")
def framing() -> Framing:
    return Framing(frames=6, size=24, region="valid")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, framing: Framing) -> Path:
    """A good bundle. Never write to it."""
    return save_model(tmp_path_factory.mktemp("bundle") / "good.modalift", small_net(), framing=framing,
                       classes=NAMES, protocol={"temporal_crops": 2, "spatial_crops": 1},
                       provenance={"run": "r1", "date": "2020-01-01",
                                   "accuracy": {"top1": 0.8, "interval": [0.7, 0.9]}})
