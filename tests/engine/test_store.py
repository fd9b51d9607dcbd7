"""Where frames come from: training and evaluation read a cache only if it was made from the files that they name."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from modalift import cli
from modalift.engine import store
from modalift.engine.evaluate import evaluate
from modalift.engine.tables import open_table
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.loading import budget, reading
from modalift.loading.cache import open_cache
from modalift.loading.framing import Framing
from modalift.loading.stores import MemoryStore
from modalift.recipe import load_recipe
from tiny import write_tiny
from told import Told


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


# ---- data.cache=auto ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """The tiny dataset with images of 81 pixels: five times what clips of 16 pixels show."""
    return write_tiny(tmp_path_factory.mktemp("large"), size=81)


def weights(run) -> list[bytes]:
    return [run.model_path("student").read_bytes()]


@pytest.fixture
def recipe(recipe_file, large, tmp_path):
    def make(name: str, *overrides: str):
        path = recipe_file(data={"root": str(large), "augment": {"scale": [0.7, 1.1], "crop": "random"}})
        return load_recipe(path, [f"run.dir={tmp_path / name / 'seed0'}", *overrides])

    return make


def test_the_place_of_frames_changes_no_bit(recipe, tmp_path, monkeypatch):
    told = Told()
    memory = train(recipe("memory"), told)
    assert not any("memory" in line for line in told.lines)
    monkeypatch.setattr(store, "memory_budget", lambda workers: 1000)
    disk = train(recipe("disk"), told)
    folder = next((tmp_path / "disk").glob("frames-*"))
    assert [line for line in told.lines if "memory" in line] == [
        f"the frames do not fit into memory; they are kept in {folder} (about 0.0 GB) - set data.cache to memory, a folder, or"
        " nothing to change this"]
    assert open_cache(folder).read(open_table(recipe("disk"))[0], "depth").shape[1:3] == (32, 32)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: type("", (), {"free": 500_000}))
    told.lines.clear()
    files = train(recipe("files"), told)
    assert [line for line in told.lines if "memory" in line] == [
        "the frames do not fit into memory, and were not cached (they take about 0.0 GB, and half of the free disk space is"
        " 0.0 GB); they are decoded at every read - set data.cache to memory, a folder, or nothing to change this"]
    assert not list((tmp_path / "files").glob("frames-*"))
    again = train(recipe("again", "data.cache="))
    assert weights(memory) == weights(disk) == weights(files) == weights(again)
    figures = [evaluate(run)["student"] for run in (memory, disk, files, again)]
    assert all(f["nll"] == figures[0]["nll"] for f in figures)
    assert disk.folder.parent.resolve() == folder.parent.resolve()
    assert {p.name for p in (tmp_path / "disk").iterdir()} == {folder.name, "seed0"}


def test_seeds_share_the_cache_beside_them_and_a_changed_clip_is_decoded_again(recipe_file, own, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "memory_budget", lambda workers: 1000)
    path = recipe_file(data={"root": str(own)}, optim={"epochs": 1})
    train(load_recipe(path, [f"run.dir={tmp_path / 'runs' / 'seed0'}"]))
    folder = next((tmp_path / "runs").glob("frames-*"))
    decoded: list[str] = []
    collect = reading.collect

    def counted(track, modality, frames, each):
        if frames is None:
            decoded.append(track.path.name)
        return collect(track, modality, frames, each)

    monkeypatch.setattr(reading, "collect", counted)
    with np.load(own / "c00_depth.npz") as inside:
        np.savez(own / "c00_depth.npz", frames=inside["frames"] + 1)
    train(load_recipe(path, [f"run.dir={tmp_path / 'runs' / 'seed1'}", "run.seed=1"]))
    assert decoded == ["c00_depth.npz"]
    train(load_recipe(path, [f"run.dir={tmp_path / 'runs' / 'other'}", "data.size=20"]))
    assert len(list((tmp_path / "runs").glob("frames-*"))) == 2
    assert folder.is_dir()


def test_memory_that_does_not_suffice_is_refused_before_the_clips_are_decoded(recipe, monkeypatch):
    monkeypatch.setattr(store, "memory_budget", lambda workers: 100_000)
    monkeypatch.setattr(MemoryStore, "of", None)
    # 18 clips of 9 frames of 32 x 32 16-bit readings
    with pytest.raises(ModaliftError, match=r"data\.cache=memory: the frames take about 0\.0 GB, .* set data\.cache=auto"):
        train(recipe("refused", "data.cache=memory"))
    table = open_table(recipe("x")).where(lambda r: r.split != "test")
    needed = store.estimate_bytes(table, {"depth": Framing(frames=5, size=16)})
    assert needed == pytest.approx(18 * 9 * 32 * 32 * 2, rel=0.01)


def test_memory_that_others_take_meanwhile_leads_to_the_disk(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "memory_budget", lambda workers: 10**9)
    monkeypatch.setattr(store, "free_memory", lambda: 10**8)
    train(recipe("run", "optim.epochs=1"))
    assert list((tmp_path / "run").glob("frames-*"))
    with pytest.raises(ModaliftError, match=r"data\.cache=memory: .* 1 of 18 clips take 0\.0 GB of memory"):
        train(recipe("again", "data.cache=memory"))


def run_cli(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["modalift", *map(str, words)])
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main()


def test_training_decodes_no_test_clip_and_other_verbs_decode_no_table(recipe, tmp_path, monkeypatch):
    read: list[tuple[str, bool]] = []
    collect = reading.collect

    def counted(track, modality, frames, each):
        read.append((track.path.name, frames is None))
        return collect(track, modality, frames, each)

    monkeypatch.setattr(reading, "collect", counted)
    run = train(recipe("run", "optim.epochs=1"))
    splits = {row.tracks["depth"].path.name: row.split for row in open_table(recipe("run"))}
    assert {splits[name] for name, whole in read if whole} == {"train", "val"}
    for verb in (["explain", run.folder], ["look", run.folder, "--out", tmp_path / "look.png"],
                 ["diagnose", run.folder]):
        read.clear()
        run_cli(monkeypatch, *verb)
        assert not any(whole for _, whole in read), verb
        assert len({name for name, _ in read}) <= {"look": 4, "diagnose": 24}.get(verb[0], 0), verb


def test_look_takes_the_next_clip_for_one_that_cannot_be_read(recipe_file, own, tmp_path, monkeypatch, capsys):
    (own / "c00_depth.npz").write_bytes(b"")
    path = recipe_file(data={"root": str(own)})
    run_cli(monkeypatch, "look", path, "--out", tmp_path / "l.png", "--json")
    told = json.loads(capsys.readouterr().out)
    assert list(told["left_out"]) == ["c00"]
    assert (tmp_path / "l.png").is_file()


# ---- free memory -------------------------------------------------------------------------------------------------------


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_limits_of_control_groups_count(tmp_path):
    own, root = tmp_path / "cgroup", tmp_path / "sys"
    own.write_text("0::/batch/job\n")
    group(root / "batch" / "job", memory__max="max", memory__current=5, memory__stat="inactive_file 2")
    group(root / "batch", memory__max=1000, memory__current=700, memory__stat="anon 1\ninactive_file 50")
    assert list(budget._free_in_cgroups(root, own)) == [350], "the outer group limits; file pages can be dropped"
    own.write_text("5:cpu,memory:/docker/x\n0::/\n")
    group(root / "memory", memory__limit_in_bytes=900, memory__usage_in_bytes=1000, memory__stat="total_inactive_file 30")
    assert list(budget._free_in_cgroups(root, own)) == [0], "in a container its own group is the root"
    assert list(budget._free_in_cgroups(root, tmp_path / "none")) == []


def test_processes_of_one_host_share_the_memory(monkeypatch):
    monkeypatch.setattr(budget, "free_memory", lambda: 8000)
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert budget.memory_budget() == 4000
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert budget.memory_budget() == 500
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert budget.memory_budget(workers=3) == 2000 if sys.platform == "linux" else 500
