"""Evaluation uses every clip of a split once: no batch is padded, for any batch size and number of processes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from modalift.engine.build import assemble
from modalift.engine.evaluate import evaluate
from modalift.engine.run import Run
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Protocol
from modalift.models import Predictions
from modalift.models.recognizer import probabilities
from modalift.recipe import load_recipe
from ports import free_port


@pytest.mark.parametrize("batch", [1, 5, 12, 32])
@pytest.mark.parametrize("crops", [1, 3])
def test_one_prediction_per_clip_equal_to_that_of_the_clip_by_itself(recipe_file, batch, crops):
    experiment = assemble(load_recipe(recipe_file()))
    net = experiment.scheme.roles["student"].eval()
    part = experiment.table.split("train")
    protocol = Protocol(temporal_crops=crops)
    clips = ClipSet(part, {"depth": experiment.framings["depth"]}, augment=None, seed=0, protocol=protocol)
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    found = probabilities(lambda part: net(part.clips["depth"]), clips, batch=batch)
    assert len(found) == len(part) == 12
    assert sum(sizes) == 12 * crops, "no crop twice, no padding"
    for i, row in enumerate(part):
        one_clip = ClipSet(part.where(lambda r, row=row: r.id == row.id), {"depth": experiment.framings["depth"]}, augment=None,
                        seed=0, protocol=protocol)
        expected = probabilities(lambda part: net(part.clips["depth"]), one_clip)[0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-6)


def test_predictions_are_of_the_clips_of_the_split_in_their_order(recipe_file):
    experiment = assemble(load_recipe(recipe_file(data={"limit": 5})))
    part = experiment.table.split("val")
    clips = ClipSet(part, {"depth": experiment.framings["depth"]}, augment=None, seed=0)
    found = experiment.models()["student"].predict_clips(clips)
    assert found.ids.tolist() == [r.id for r in part]
    assert len(found) == 5


def test_two_processes_evaluate_the_same_split_as_one(recipe_file, tmp_path):
    """Five clips, two processes with batches of two: a batch of one clip, and no clip twice."""
    recipe = recipe_file(data={"limit": 5}, optim={"epochs": 1, "batch": 2})
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}", "-m",
            "modalift.cli"]
    done = subprocess.run([*both, "train", str(recipe)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    run = Run(tmp_path / "run")
    logged = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()][-1]["val"]["student"]
    evaluate(run, "val")
    found = Predictions.load(run.predictions_path("student", "val"))
    assert len(found) == len(set(found.ids)) == 5
    chosen = torch.tensor(found.probabilities)[torch.arange(5), torch.tensor(found.labels)]
    assert logged["top1"] == pytest.approx(found.correct.mean())
    assert logged["loss"] == pytest.approx(-chosen.log().mean().item(), rel=1e-5)
