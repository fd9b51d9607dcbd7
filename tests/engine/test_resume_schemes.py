"""Stopped after any checkpoint and resumed, every scheme ends with the same weights, checkpoint and log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from casting import cast_of, is_signal
from safetensors.torch import load_file

from modalift.darkroom import simulate
from modalift.engine import checkpoint as checkpoints
from modalift.engine.checkpoint import read_checkpoint
from modalift.engine.run import Run
from modalift.engine.train import train
from modalift.recipe import parse_recipe
from modalift.schemes import SCHEMES

FRAMES, SIZE = 4, 16


def small(view: str) -> dict[str, Any]:
    return {"name": "small", "view": view, "width": 4}


JOINTS = {"name": "tcn", "view": "pose", "width": 8, "blocks": 1}
TAUGHT = {"student": small("depth"), "teacher": {"init": "TEACHER"}}
MUTUAL = {"depth": small("depth"), "pose": JOINTS}
G, H = ({"name": "translator", "view": a, "target": b, "backbone": "resnet_4", "ngf": 2}
        for a, b in (("depth", "thermal"), ("thermal", "depth")))
ENCODERS = {"source_encoder": {"init": "OF DEPTH"}, "target_encoder": {"init": "OF THERMAL"}}
#: Scheme -> networks and settings, more than one where settings have other state between steps; a scheme that is not
#: here gets what its signature requires.
CHOSEN: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "single": [({"student": small("depth")}, {"label_smoothing": 0.1})],
    "distill": [(TAUGHT, {}), (TAUGHT, {"loss": "channel_correlation"})],
    "crd": [(TAUGHT, {"negatives": 8, "dim": 8})],
    "dmcl": [(MUTUAL, {})],
    "fusion": [(MUTUAL, {"mode": "mid", "modality_dropout": 0.3, "width": 8, "dropout": 0.2})],
    "hallucination": [(TAUGHT, {})],
    "identity_encoder": [({"student": small("depth")}, {})],
    "mgcam_dkd": [(TAUGHT, {})],
    "msd": [({"student": small("thermal")}, {"target_view": "depth"})],
    "mtcd": [(TAUGHT | {"assistant": small("thermal")}, {}),
             ({"student": small("depth") | {"neck": "converter"}, "teacher": {"init": "TEACHER"}}, {})],
    "mtut": [(MUTUAL, {"align_after": 0.5})],
    "prokt": [({"student": small("depth"), "teacher": JOINTS}, {"ce_weight": 0.5})],
    "route": [({"student": small("depth"), "teacher": JOINTS}, {"anchors": 2})],
    "segmentation_lstm": [({"student": {"name": "cnn_lstm", "view": "thermal", "backbone": "resnet8", "width": 0.125}},
                           {"silhouette_threshold": 3000.0, "segmentation_share": 0.3, "frozen_share": 0.3})],
    "translator": [({"generator": G}, {"discriminator_layers": 1, "ndf": 4, "person_weight": 2.0}),
                   ({"generator": G, "back": H} | ENCODERS,
                    {"mode": "unpaired", "discriminator_layers": 1, "ndf": 4, "pool_size": 3})],
}


def by_signature(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The networks that a scheme's constructor requires, frozen ones trained before, with default settings."""
    init_runs, frozen = {"pose": "TEACHER", "depth": "OF DEPTH", "thermal": "OF THERMAL"}, SCHEMES[name].frozen_for({})
    found = {}
    for role, (reads, gives) in cast_of(name, {}, False, "thermal").items():
        new = {"thermal": G, "depth": H}[gives] if gives else JOINTS if is_signal(reads) else small(reads)
        found[role] = {"init": init_runs[reads]} if role in frozen else new
    return found, {}


CASES = {name: CHOSEN.get(name) or [by_signature(name)] for name in SCHEMES}


def recipe(root: Path, folder: Path, scheme: str, networks: dict[str, Any], settings: dict[str, Any], **optim: Any) -> Any:
    return parse_recipe({
        "data": {"dataset": "darkroom", "root": str(root), "frames": FRAMES, "size": SIZE, "labeled": 0.7, "cache": "memory",
                 "augment": {"shift": 0.1}},
        "networks": networks, "scheme": {"name": scheme, **settings},
        "optim": {"epochs": 3, "batch": 5, "lr": 3e-3, "ema": 0.9, "clip_grad_norm": 1.0, "schedule": "cosine", **optim},
        "run": {"dir": str(folder), "device": "cpu", "threads": 1, "precision": "fp32", "checkpoint_every_s": 1e-6},
    })


@pytest.fixture(scope="module")
def dark(tmp_path_factory) -> Path:
    """Simulated clips of two people: ten to train on, ten to validate."""
    return simulate(tmp_path_factory.mktemp("dark") / "clips", clips=20, size=SIZE, frames=FRAMES, train_subjects=2,
                    val_subjects=1, test_share=0.0, modalities=("rgb", "depth", "thermal", "pose"))


@pytest.fixture(scope="module")
def trained(dark, tmp_path_factory) -> dict[str, str]:
    """Run folders of the trained networks that the cases start from."""
    found = {}
    for name, network in (("TEACHER", JOINTS), ("OF DEPTH", small("depth")), ("OF THERMAL", small("thermal"))):
        folder = tmp_path_factory.mktemp("trained") / "run"
        train(recipe(dark, folder, "single", {"student": network}, {}, epochs=1, ema=0.0))
        found[name] = str(folder)
    return found


def checkpoint_content(run: Run) -> dict[str, Any]:
    """The content of a checkpoint without times."""
    content = read_checkpoint(run.last_checkpoint_path)
    content["position"].pop("seconds")
    content.pop("log_sizes")
    return content


def same(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def log(run: Run) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in e.items() if k != "seconds"} for e in entries]


def rows(run: Run) -> list[list[str]]:
    header, *lines = [line.split(",") for line in (run.folder / "metrics.csv").read_text().splitlines()]
    clock = header.index("seconds")
    return [header, *([v for i, v in enumerate(line) if i != clock] for line in lines)]


@pytest.mark.parametrize(("scheme", "number"), [(s, i) for s in CASES for i in range(len(CASES[s]))])
def test_stopped_after_every_checkpoint_it_ends_the_same(scheme, number, dark, trained, tmp_path, monkeypatch):
    networks, settings = CASES[scheme][number]
    networks = {role: section | ({"init": trained[section["init"]]} if "init" in section else {})
                for role, section in networks.items()}
    whole = train(recipe(dark, tmp_path / "whole", scheme, networks, settings))
    save, stops = checkpoints.TrainingState.save, 0

    def stop(self, path):
        save(self, path)
        if path.name == "last.pt":
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.TrainingState, "save", stop)
    parts = Run(tmp_path / "parts")
    while not parts.finished:
        assert stops < 12, "it does not end"
        try:
            train(recipe(dark, parts.folder, scheme, networks, settings))
        except KeyboardInterrupt:
            stops += 1
            if stops == 7:  # six steps and the last checkpoint: only the models remain to be written
                monkeypatch.undo()
    same(checkpoint_content(whole), checkpoint_content(parts))
    assert log(whole) == log(parts)
    assert rows(whole) == rows(parts)
    names = sorted(p.name for p in (whole.folder / "models").iterdir())
    assert names == sorted(p.name for p in (parts.folder / "models").iterdir())
    for name in names:
        same(load_file(whole.folder / "models" / name), load_file(parts.folder / "models" / name), name)
