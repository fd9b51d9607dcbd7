"""What many tests need: a tiny dataset of two sensors that can be learned, and recipes over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tiny import write_tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the dataset ``csv`` reads: 24 clips, 3 classes, 4 subjects, depth and pose."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


TINY_NETWORKS = {
    "single": {"student": {"name": "small", "view": "depth", "width": 4, "motion": "clip"}},
    "distill": {"student": {"name": "small", "view": "depth", "width": 4, "motion": "clip"},
                "teacher": {"init": "TEACHER"}},
    "mtut": {"depth": {"name": "small", "view": "depth", "width": 4, "motion": "clip"},
             "pose": {"name": "tcn", "view": "pose", "width": 8, "blocks": 1}},
}


@pytest.fixture
def recipe_file(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a recipe over the tiny dataset: ``recipe_file(scheme="single", data={...}, ...)``."""

    def make(scheme: str = "single", name: str = "recipe", networks: dict | None = None, **sections: dict) -> Path:
        tree = {
            "data": {"dataset": "csv", "root": str(tiny), "frames": 5, "size": 16},
            "networks": networks or TINY_NETWORKS[scheme],
            "scheme": {"name": scheme},
            "optim": {"epochs": 2, "batch": 4, "lr": 3e-3},
            "run": {"dir": str(tmp_path / "run"), "device": "cpu", "threads": 1, "precision": "fp32"},
        }
        for key, section in sections.items():
            tree[key] = {**tree.get(key, {}), **section}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return make


@pytest.fixture(scope="session")
def teacher(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a pose network on the tiny dataset."""
    from modalift.engine.train import train
    from modalift.recipe import parse_recipe

    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(parse_recipe({
        "data": {"dataset": "csv", "root": str(tiny), "frames": 5, "size": 16},
        "networks": {"student": {"name": "tcn", "view": "pose", "width": 8, "blocks": 1}},
        "scheme": {"name": "single"}, "optim": {"epochs": 2, "batch": 4, "lr": 3e-3},
        "run": {"dir": str(folder), "device": "cpu", "precision": "fp32"},
    }))
    return folder
