"""Small bundles, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_bundles import NAMES, small_net

from modalift.deploy.bundle import save_bundle
from modalift.loading.framing import Framing


@pytest.fixture(scope="session")
def framing() -> Framing:
    return Framing(frames=6, size=24, region="valid")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, framing: Framing) -> Path:
    """A good bundle. Never write to it."""
    return save_bundle(tmp_path_factory.mktemp("bundle") / "good.modalift", small_net(), framing=framing,
                       classes=NAMES, protocol={"time_views": 2, "crops": 1},
                       provenance={"run": "r1", "date": "2020-01-01",
                                   "accuracy": {"top1": 0.8, "interval": [0.7, 0.9]}})
