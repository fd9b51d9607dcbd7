"""Clips that turn out to be unreadable when they are read: left out at that moment, reported, never replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modalift.engine.evaluate import evaluate
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.loading.framing import Augment, Framing
from modalift.recipe import load_recipe
from tiny import write_manifest
from told import Told

FRAMES, VIEWS = 9, {"views": {"nir": "nir"}}


def picture(folder: Path, t: int, label: int, i: int) -> None:
    image = np.random.default_rng(100 * i + t).integers(0, 60, (20, 20)).astype(np.uint8)
    x = {0: t, 1: FRAMES - 1 - t, 2: 4}[label]
    image[6:14, x : x + 6] = 220
    cv2.imwrite(str(folder / f"{t:02d}.png"), image)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """24 clips, each a folder of nine images: s4 are tested, s3 are for validation."""
    root, rows = tmp_path / "data", []
    for i in range(24):
        label, subject = i % 3, f"s{1 + i // 3 % 4}"
        folder = root / f"c{i:02d}"
        folder.mkdir(parents=True)
        for t in range(FRAMES):
            picture(folder, t, label, i)
        rows.append({"clip_id": f"c{i:02d}", "label": label, "label_name": f"move{label}", "subject": subject,
                     "split": {"s4": "test", "s3": "val"}.get(subject, "train"), "nir": f"c{i:02d}"})
    write_manifest(root, rows)
    return root


def tear(root: Path, clip: str, frame: int = 4) -> None:
    """The clip's first and last frame are whole, one in the middle is not."""
    (root / clip / f"{frame:02d}.png").write_bytes(b"torn")


@pytest.fixture
def recipe(recipe_file, data):
    def make(*overrides: str, **sections: dict):
        sections = {"optim": {"epochs": 4}, **sections}
        path = recipe_file(networks={"student": {"name": "small", "view": "nir", "width": 4, "motion": "clip"}},
                           data={"root": str(data), "options": VIEWS, "cache": "", "max_corrupt": 0.2}, **sections)
        return path, load_recipe(path, overrides)

    return make


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "models" / "student.modalift")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_clip_that_is_torn_in_the_middle_is_left_out_when_its_turn_comes(recipe, data, tmp_path):
    tear(data, "c01")
    tear(data, "c06")  # of the validation split
    told = Told()
    _, plan = recipe()
    run = train(plan, told)
    left_out = run.compute()["left_out"]
    assert list(left_out) == ["c01", "c06"]
    assert "04.png is not a readable image" in left_out["c01"]
    assert [line for line in told.lines if "left out" in line] == [
        f"left out {c}: {data / c / '04.png'} is not a readable image" for c in ("c01", "c06")]
    val = [json.loads(line)["val"]["student"] for line in run.log_path.read_text().splitlines() if '"val"' in line]
    assert len(val) == 4
    assert run.compute()["coverage"]["scored"] == 11, "of 12 training clips"


def test_the_others_are_read_as_without_it(data):
    from modalift import datasets

    table = datasets.open("csv", data, **VIEWS)
    framings = {"nir": Framing(frames=FRAMES, size=16)}
    whole = {int(b.index[0]): b for b in loader(ClipSet(table, framings, augment=Augment.strong()), batch=1, shuffle=True,
                                                seed=3, epoch=2)}
    tear(data, "c04")
    clips = ClipSet(table, framings, augment=Augment.strong(), tolerant=True)
    for workers in (0, 2):
        clips.unreadable.clear()
        torn = {int(b.index[0]): b for b in loader(clips, batch=1, shuffle=True, seed=3, epoch=2, workers=workers)}
        assert list(torn) == list(whole)
        assert list(clips.unreadable) == ["c04"]
        for index, batch in torn.items():
            if index != 4:
                assert torch.equal(batch.clips["nir"], whole[index].clips["nir"])
                continue
            assert not batch.present["nir"].any()
            assert not batch.labeled.any()
            assert not batch.clips["nir"].any()
            assert "04.png" in batch.unreadable[4]
    with pytest.raises(ModaliftError, match=r"clip 'c04': .*04\.png"):
        list(loader(ClipSet(table, framings), batch=1, shuffle=False, seed=0, epoch=0))


def test_a_killed_training_with_torn_clips_resumes_bit_for_bit(recipe, data, tmp_path):
    """Torn in different frames: whether a clip can be read differs from epoch to epoch."""
    for k, clip in enumerate(("c01", "c04", "c13")):
        tear(data, clip, 2 + 2 * k)
    path, whole = recipe("run.checkpoint_every_s=0.001", f"run.dir={tmp_path / 'whole'}")
    train(whole)
    broken = tmp_path / "broken"
    command = [sys.executable, "-m", "modalift", "train", str(path), "run.checkpoint_every_s=0.001", f"run.dir={broken}"]
    for wanted in (3, 7, 11):
        process = subprocess.Popen([*command, "run.workers=1"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.time() + 120
        while process.poll() is None and time.time() < deadline:
            log = broken / "log.jsonl"
            if log.exists() and log.read_text().count("\n") >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert same(tmp_path / "whole", broken)
    read = [json.loads((run / "compute.json").read_text())["left_out"] for run in (tmp_path / "whole", broken)]
    assert read[0] == read[1]
    assert {"c01", "c04", "c13"} & set(read[0])


def test_too_many_unreadable_clips_stop_a_training_that_can_be_resumed(recipe, data, tmp_path):
    told = Told()
    _, plan = recipe("data.max_corrupt=0.05", "run.checkpoint_every_s=0.001")
    kept = shutil.copytree(data, tmp_path / "kept")

    class Unplug(Told):
        """Half of the training clips vanish after the first epoch."""

        def progress(self, task, total, done=0):
            return Unplugging(data, total)

    with pytest.raises(ModaliftError) as caught:
        train(plan, Unplug())
    message = str(caught.value)
    assert "more than data.max_corrupt = 5%), the first: c" in message
    assert "does not exist - restore these files and run the same command again, or raise data.max_corrupt; both" in message
    assert "remove the clip" not in message
    shutil.rmtree(data)
    shutil.copytree(kept, data)
    run = train(plan, told)
    assert run.finished
    _, raised = recipe("data.max_corrupt=0.9", "run.checkpoint_every_s=0.001", f"run.dir={tmp_path / 'run'}")
    assert train(raised).finished, "the same experiment"


class Unplugging:
    def __init__(self, data: Path, total: int) -> None:
        self.data, self.total = data, total

    def __enter__(self):
        def update(done: int, note: str = "") -> None:
            if done == 4:
                for i in range(0, 24, 2):
                    shutil.rmtree(self.data / f"c{i:02d}", ignore_errors=True)
        return update

    def __exit__(self, *_):
        return None


def test_what_was_left_out_at_the_start_stays_left_out(recipe, data, tmp_path):
    """Mended or removed meanwhile: the resumed run is the one that was begun."""
    (data / "c02" / "00.png").write_bytes(b"")
    path, whole = recipe("run.checkpoint_every_s=0.001", f"run.dir={tmp_path / 'whole'}")
    train(whole)
    broken = tmp_path / "broken"

    class Stop(Told):
        def progress(self, task, total, done=0):
            return Stopping(5)

    plan = load_recipe(path, ["run.checkpoint_every_s=0.001", f"run.dir={broken}"])
    with pytest.raises(HaltError):
        train(plan, Stop())
    picture(data / "c02", 0, 2, 2)  # mended
    told = Told()
    train(plan, told)
    assert any(line.startswith("left out, as when this run was begun: c02: ") for line in told.lines)
    assert same(tmp_path / "whole", broken)
    assert json.loads((broken / "compute.json").read_text())["left_out"].keys() == {"c02"}


class HaltError(Exception):
    """Ends a training where a kill would."""


class Stopping:
    def __init__(self, at: int) -> None:
        self.at = at

    def __enter__(self):
        def update(done: int, note: str = "") -> None:
            if done >= self.at:
                raise HaltError
        return update

    def __exit__(self, *_):
        return None


def test_a_clip_whose_files_are_removed_before_a_resume_keeps_its_place(recipe, data, tmp_path):
    _, plan = recipe("run.checkpoint_every_s=0.001")

    class Stop(Told):
        def progress(self, task, total, done=0):
            return Stopping(5)

    with pytest.raises(HaltError):
        train(plan, Stop())
    shutil.rmtree(data / "c03")
    told = Told()
    run = train(plan, told)
    assert run.compute()["left_out"].keys() == {"c03"}
    assert run.compute()["clips"] == 12
    assert any("c03" in line and "does not exist" in line for line in told.lines)


def test_an_evaluation_leaves_out_a_torn_clip_with_its_reason(recipe, data):
    _, plan = recipe()
    run = train(plan)
    whole = evaluate(run)["student"]
    tear(data, "c09")
    for overrides in ([], ["run.workers=1"], ["protocol.temporal_crops=3"]):
        found = evaluate(run, overrides=overrides)["student"]
        assert found["n"] == whole["n"] - 1 == 5
        assert "04.png" in found["left_out"]["c09"]
    for clip in ("c10", "c11", "c21", "c22", "c23"):
        tear(data, clip)
    with pytest.raises(ModaliftError, match="no readable clip is left"):
        evaluate(run)


def test_a_training_that_needs_a_validation_stops_where_no_clip_of_it_can_be_read(recipe, data):
    for clip in ("c06", "c07", "c08", "c18", "c19", "c20"):
        tear(data, clip)
    _, plan = recipe("data.max_corrupt=1", "protocol.select=best")
    with pytest.raises(ModaliftError, match=r"no validation clip can be read any more \(c06: .*04\.png.*resumes"):
        train(plan)
    _, plan = recipe("data.max_corrupt=1", f"run.dir={data.parent / 'last'}")
    run = train(plan)
    assert [json.loads(line)["val"] for line in run.log_path.read_text().splitlines() if '"val"' in line] == [{}] * 4
