"""Where frames come from: training and evaluation read a cache only if it was made from the files that they name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from modalift.engine.evaluate import evaluate
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.recipe import load_recipe


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset that a test may change."""
    return shutil.copytree(tiny, tmp_path / "data")


def rewrite(path: Path, **arrays) -> None:
    np.savez(path, **arrays)


def test_training_and_evaluation_refuse_a_cache_of_other_files(recipe_file, own, tmp_path):
    cache = tmp_path / "cache"
    path = recipe_file(data={"root": str(own), "cache": str(cache)}, optim={"epochs": 1})
    run = train(load_recipe(path))
    found = evaluate(run)["student"]
    copied = shutil.copytree(own, tmp_path / "copy")
    assert evaluate(run, overrides=[f"data.root={copied}"])["student"] == found, "a copy has the same contents"
    test_clip = "c09"
    with np.load(copied / f"{test_clip}_depth.npz") as inside:
        rewrite(copied / f"{test_clip}_depth.npz", frames=inside["frames"] + 1)
    update = f"modalift cache {copied} {cache} --dataset csv"
    with pytest.raises(ModaliftError, match=rf"'depth' of clip '{test_clip}' was changed .* update it with `{update}`"):
        evaluate(run, overrides=[f"data.root={copied}"])
    with pytest.raises(ModaliftError, match=rf"'depth' of clip '{test_clip}' was changed"):
        train(load_recipe(path, [f"data.root={copied}", f"run.dir={tmp_path / 'again'}"]))
    assert evaluate(run)["student"] == found


def test_evaluation_does_not_read_the_recordings_where_the_cache_of_the_training_is_gone(recipe_file, own, tmp_path):
    run = train(load_recipe(recipe_file(data={"root": str(own), "cache": str(tmp_path / "cache")}, optim={"epochs": 1})))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ModaliftError, match=r"data\.cache=.*cache: no such folder - make it with `modalift cache"):
        evaluate(run)
    assert evaluate(run, overrides=["data.cache="])["student"]["n"] == 6


def test_a_mended_clip_is_not_left_out_by_an_older_cache(recipe_file, own, tmp_path):
    good = (own / "c00_depth.npz").read_bytes()
    (own / "c00_depth.npz").write_bytes(b"")
    path = recipe_file(data={"root": str(own), "cache": str(tmp_path / "cache"), "max_corrupt": 0.2}, optim={"epochs": 1})
    assert list(train(load_recipe(path)).compute()["left_out"]) == ["c00"]
    (own / "c00_depth.npz").write_bytes(good)
    with pytest.raises(ModaliftError, match="clip 'c00' could not be read when the cache was made, and was changed since"):
        train(load_recipe(path, [f"run.dir={tmp_path / 'again'}"]))
