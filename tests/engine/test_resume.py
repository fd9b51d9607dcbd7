"""Killed at any moment, the same command ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modalift.engine import checkpoint as checkpoints
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.recipe import load_recipe

#: All settings that could make a difference: augmentation, dropout, averages, accumulation, clipping, a schedule.
HARD = {
    "data": {"augment": {"rotate": 10, "shift": 0.1, "speed": [0.8, 1.0], "depth_offset": 50}},
    "optim": {"epochs": 6, "batch": 2, "accumulate": 2, "ema": 0.9, "clip_grad_norm": 1.0, "schedule": "onecycle", "lr": 3e-3},
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {f"{p.stem}.{k}": v for p in sorted((run / "models").glob("*")) for k, v in load_file(p).items()}


def same(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert a
    for key in a:
        assert torch.equal(a[key], b[key]), key


def start(recipe: Path, folder: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "modalift.cli", "train", str(recipe), f"run.dir={folder}",
                             "run.checkpoint_every_s=0.001", *more], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_killed_run_resumes_to_the_same_weights(recipe_file, tmp_path, workers):
    recipe = recipe_file(**HARD)
    whole = tmp_path / "whole"
    train(load_recipe(recipe, [f"run.dir={whole}"]))
    broken, wanted = tmp_path / "broken", 3
    for kill in range(3):
        process = start(recipe, broken, f"run.workers={workers}")
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline:
            log = broken / "log.jsonl"
            if log.exists() and log.read_text().count("\n") >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()
        process.stderr.close()
        wanted += 4
        if kill == 0:
            assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    assert start(recipe, broken).wait() == 0
    same(whole, broken)
    assert _positions(whole) == _positions(broken)


def _positions(run: Path) -> list[tuple]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(e["kind"], e["epoch"], e["step"], e.get("loss")) for e in lines]


def test_a_run_folder_of_another_recipe_is_refused(recipe_file, tmp_path):
    train(load_recipe(recipe_file()))
    with pytest.raises(ModaliftError, match="finished run of another recipe"):
        train(load_recipe(recipe_file(), ["optim.lr=0.5"]))


def test_a_file_that_is_not_a_checkpoint_is_refused_without_running_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "owned").touch, ())

    torch.save({"fingerprint": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 something")
    for name in ("evil.pt", "cut.pt"):
        with pytest.raises(ModaliftError, match="remove it to start again"):
            checkpoints.read_checkpoint(tmp_path / name)
    assert not (tmp_path / "owned").exists()
