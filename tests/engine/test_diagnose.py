"""Diagnosis: known faults of networks are found, sound networks pass; and a whole tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modalift.engine import diagnose as checks
from modalift.engine.diagnose import Probe, chance_accuracy, predict
from modalift.engine.run import open_run
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.recipe import parse_recipe
from modalift.report import diagnosis

T, S, N = 8, 12, 60


def moving(rgb: bool = True) -> tuple[Tensor, np.ndarray]:
    """A red spot that moves right (0) or left (1), or stands at the left (2)."""
    clips = torch.zeros(N, 3 if rgb else 1, T, S, S)
    labels = np.arange(N) % 3
    for i, y in enumerate(labels):
        for t in range(T):
            x = {0: 1 + t, 1: S - 2 - t, 2: 1}[int(y)]
            clips[i, 0, t, i % (S - 1), x] = 200.0
    return clips, labels


class Rule(nn.Module):
    """Computes the three classes from the spot's first and last position."""

    view = "rgb"

    def __init__(self, change: Any = lambda clips: clips, color: bool = False) -> None:
        super().__init__()
        self.change, self.color = change, color

    def forward(self, clips: Tensor) -> Tensor:
        clips = self.change(clips)
        spot = clips[:, :1] if self.color else clips.sum(1, keepdim=True)
        position = (spot.sum(3) * torch.arange(S)).sum(-1) / spot.sum((3, 4)).clamp_min(1e-6)  # (B, 1, T)
        go = position[:, 0, -1] - position[:, 0, 0]
        return torch.stack([go, -go, 0.5 - go.abs()], 1)


def probe(net: nn.Module, mirrored: dict[int, int] | None = None) -> Probe:
    clips, labels = moving()
    predictions = predict(net, clips)
    stub: Any = SimpleNamespace
    return Probe(run=stub(folder=Path("run")), role="student", split="val", experiment=stub(),
                   table=stub(mirrored=mirrored or {}), model=stub(network=net, view="rgb", classes=("right", "left", "still")),
                   clips=clips, labels=labels, predictions=predictions, correct=predictions == labels)


def test_a_sound_network() -> None:
    sound = probe(Rule(), {0: 1, 1: 0, 2: 2})
    assert sound.correct.all()
    for check in (checks.check_accuracy, checks.check_prediction_variety, checks.check_time_order, checks.check_motion,
                  checks.check_mirroring):
        assert check(sound).state == "good", check(sound)
    assert checks.check_time_order(sound).figures["backwards"] == pytest.approx(1 / 3)
    assert checks.check_motion(sound).figures["frozen"] == pytest.approx(1 / 3)
    assert checks.check_mirroring(sound).figures["mirrored labels"] == 1.0


@pytest.mark.parametrize(("fault", "check"), [
    (lambda clips: clips.flip(2), checks.check_time_order),
    (lambda clips: clips.flip(-1), checks.check_mirroring),
])
def test_reversed_and_mirrored_training_is_found(fault: Any, check: Any) -> None:
    found = check(probe(Rule(fault)))
    assert found.state == "wrong", found


def test_exchanged_colors() -> None:
    swapped = Rule(lambda clips: clips.flip(1), color=True)
    assert checks.check_color_order(probe(swapped)).state == "wrong"
    assert checks.check_color_order(probe(Rule(color=True))).state == "good"


class MiddleFrame(nn.Module):
    """Uses the middle frame only, so neither order nor motion."""

    view = "rgb"

    def forward(self, clips: Tensor) -> Tensor:
        middle = clips[:, :, T // 2].sum(1)
        x = middle.sum(1).argmax(1)
        return torch.stack([(x == 5).float(), (x == S - 2 - T // 2).float(), (x == 1).float()], 1)


def test_no_use_of_time_is_found() -> None:
    motionless = probe(MiddleFrame())
    assert checks.check_motion(motionless).state == "warning"
    assert checks.check_time_order(motionless).state in ("warning", "good")


class Constant(nn.Module):
    view = "rgb"

    def forward(self, clips: Tensor) -> Tensor:
        return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(clips), 3)


def test_one_prediction_for_all() -> None:
    collapsed = probe(Constant())
    assert checks.check_accuracy(collapsed).state == "wrong"
    assert "Nothing shows that the network is better than chance" in checks.check_accuracy(collapsed).message
    assert "33.3% (95 % interval over clips: 22.7% to 45.9%)" in checks.check_accuracy(collapsed).message
    assert checks.check_prediction_variety(collapsed).state == "wrong"
    assert "'left' is predicted for 100%" in checks.check_prediction_variety(collapsed).message


class First(nn.Module):
    """Uses the position in the first frame, and expects that of two frames later."""

    view = "rgb"

    def forward(self, clips: Tensor) -> Tensor:
        x = clips[:, :, 0].sum((1, 2)).argmax(1, keepdim=True)
        return -(x - torch.tensor([[3, S - 4, 1]])).abs().float()


def test_a_wrong_clock_offset_is_found() -> None:
    assert checks.check_time_shift(probe(Rule())).state == "good"
    early = checks.check_time_shift(probe(First()))
    assert early.figures["late"] == 1.0
    assert early.state == "wrong"
    assert "offset_ms" in early.message


def test_chance_accuracy() -> None:
    assert chance_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == 0.75
    assert chance_accuracy(np.array([0, 1]), np.array([0, 1])) == 0.5


# ---- a whole run ----------------------------------------------------------------------------------------------------


def write_data(folder: Path) -> Path:
    """Eighteen clips of the moving spot by three subjects, as arrays with a manifest."""
    folder.mkdir()
    clips, labels = moving(rgb=False)
    lines = ["clip_id,label,label_name,subject,split,nir"]
    for i in range(18):
        np.save(folder / f"c{i}.npy", clips[i, 0].numpy().astype(np.uint8)[..., None])
        name, split = ("right", "left", "still")[labels[i]], "test" if i >= 12 else "train"
        lines.append(f"c{i},{labels[i]},{name},s{i // 6},{split},c{i}.npy")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_run(tmp_path: Path, data: Path, **protocol: Any) -> Path:
    recipe = parse_recipe({
        "data": {"dataset": "csv", "root": str(data), "frames": 4, "size": 12, "max_corrupt": 0.2},
        "networks": {"student": {"name": "small", "view": "nir", "width": 4}}, "protocol": protocol,
        "optim": {"epochs": 1, "batch": 6}, "run": {"dir": str(tmp_path / "run"), "device": "cpu", "precision": "fp32"}})
    return train(recipe).folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path, write_data(tmp_path / "data"))


def test_a_whole_run(run: Path) -> None:
    findings = {f.check: f for f in checks.diagnose(open_run(run), full=True)}
    assert set(findings) == {"accuracy", "prediction variety", "overfitting", "time order", "motion", "time shift",
                             "mirroring", "color order", "bundle", "memorization", "shuffled labels"}
    assert findings["bundle"].state == "good", findings["bundle"]
    assert findings["color order"].state == "unknown"
    assert findings["memorization"].state == "good", findings["memorization"]
    assert findings["shuffled labels"].state == "good", findings["shuffled labels"]
    json.dumps(diagnosis.as_json(list(findings.values())), allow_nan=False)
    ledger = [json.loads(x) for x in (run / "test_ledger.jsonl").read_text().splitlines()]
    assert ledger[-1]["by"] == "diagnose"


def test_checks_use_the_centered_crop_whatever_the_protocol(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for i in range(18):
        np.save(data / f"c{i}.npy", np.repeat(np.arange(30, dtype=np.uint8), 144).reshape(30, 12, 12, 1))
    crops = [checks.prepare(open_run(make_run(tmp_path / str(n), data, temporal_crops=n))).clips for n in (1, 3)]
    assert torch.equal(*crops)


def test_clips_left_out_of_training_are_left_out_of_the_checks(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for clip in ("c3", "c13"):
        (data / f"{clip}.npy").write_bytes(b"")
    found = {f.check: f for f in checks.diagnose(open_run(make_run(tmp_path, data)))}
    assert found["accuracy"].figures["clips"] == 5
    assert found["bundle"].state == "good"


def test_clips_that_were_damaged_after_the_training_are_counted(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    run = open_run(make_run(tmp_path, data))
    (data / "c13.npy").write_bytes(b"")
    found = {f.check: f for f in checks.diagnose(run)}
    assert "The accuracy on 5 of 6 test clips (left out: 1 unreadable) is" in found["accuracy"].message
    assert json.loads(run.ledger_path.read_text().splitlines()[-1])["left_out"] == 1


def test_few_clips_show_nothing() -> None:
    """Four correct clips: reversed frames make three of them wrong, and still nothing is shown (McNemar p .125 at best)."""
    few = probe(Rule())
    few.clips, few.labels, few.predictions, few.correct = few.clips[:4], few.labels[:4], few.predictions[:4], few.correct[:4]
    for check in (checks.check_time_order, checks.check_motion):
        assert check(few).state == "unknown", check(few)
        assert "too few to tell" in check(few).message
    few.clips, few.labels, few.predictions, few.correct = few.clips[:3], few.labels[:3], few.predictions[:3], few.correct[:3]
    found = checks.check_accuracy(few)
    assert found.state == "unknown", "three of three are correct by chance in one of 27 cases"
    assert "43.9% to 100.0%" in found.message
    collapsed = probe(Constant())
    collapsed.predictions, collapsed.labels = np.array([1, 1]), np.array([1, 0])
    assert checks.check_prediction_variety(collapsed).state == "good", "two clips do not show that a network has collapsed"


@pytest.mark.parametrize(("held_out", "larger"), [((4, 6), False), ((16, 24), True)])
def test_overfitting_is_found_where_it_is_shown(held_out: tuple[int, int], larger: bool) -> None:
    """All of 12 training clips against two thirds of 6 or of 24: only the latter excludes that both are equal."""
    hits, n = held_out
    assert checks._is_larger(np.ones(12, bool), np.arange(n) < hits) is larger


def test_stored_predictions_that_differ(run: Path) -> None:
    from modalift.engine.evaluate import evaluate
    from modalift.models import Predictions

    evaluate(open_run(run))
    path = run / "predictions" / "student-test.npz"
    known = Predictions.load(path)
    found = {f.check: f for f in checks.diagnose(open_run(run))}
    assert found["bundle"].state == "good"
    Predictions(known.ids, known.labels, known.subjects, known.probabilities[:, ::-1]).save(path)
    found = {f.check: f for f in checks.diagnose(open_run(run))}
    assert found["bundle"].state == "wrong"
    assert "student-test.npz differs" in found["bundle"].message


def test_a_split_without_clips_is_refused(run: Path) -> None:
    with pytest.raises(ModaliftError, match="split 'val' has no labeled clip"):
        checks.diagnose(open_run(run), split="val")
    with pytest.raises(ModaliftError, match="no network in the role 'teacher'"):
        checks.diagnose(open_run(run), role="teacher")
