"""Diagnosis: networks with a known fault are told so, sound ones are not; and a whole tiny run."""

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
from modalift.engine.diagnose import Probe, chance, classify
from modalift.engine.run import open_run
from modalift.errors import ModaliftError
from modalift.report import diagnosis

T, S, N = 8, 12, 60


def moving(rgb: bool = True) -> tuple[Tensor, np.ndarray]:
    """A spot that moves right (0), left (1), or stands at the left (2), red."""
    clips = torch.zeros(N, 3 if rgb else 1, T, S, S)
    labels = np.arange(N) % 3
    for i, y in enumerate(labels):
        for t in range(T):
            x = {0: 1 + t, 1: S - 2 - t, 2: 1}[int(y)]
            clips[i, 0, t, i % (S - 1), x] = 200.0
    return clips, labels


class Rule(nn.Module):
    """Knows the three classes by rule, from where the spot is at the beginning and at the end."""

    view = "rgb"

    def __init__(self, change: Any = lambda clips: clips, color: bool = False) -> None:
        super().__init__()
        self.change, self.color = change, color

    def forward(self, clips: Tensor) -> Tensor:
        clips = self.change(clips)
        seen = clips[:, :1] if self.color else clips.sum(1, keepdim=True)
        place = (seen.sum(3) * torch.arange(S)).sum(-1) / seen.sum((3, 4)).clamp_min(1e-6)  # (B, 1, T)
        go = place[:, 0, -1] - place[:, 0, 0]
        return torch.stack([go, -go, 0.5 - go.abs()], 1)


def probe(net: nn.Module, mirrored: dict[int, int] | None = None) -> Probe:
    clips, labels = moving()
    answers = classify(net, clips)
    stub: Any = SimpleNamespace
    return Probe(run=stub(folder=Path("run")), role="student", split="val", experiment=stub(),
                   table=stub(mirrored=mirrored or {}), model=stub(network=net, view="rgb", classes=("right", "left", "still")),
                   clips=clips, labels=labels, answers=answers, right=answers == labels)


def test_a_sound_network() -> None:
    sound = probe(Rule(), {0: 1, 1: 0, 2: 2})
    assert sound.right.all()
    for check in (checks.plainly, checks.variety, checks.reversed_time, checks.frozen, checks.mirrored):
        assert check(sound).state == "good", check(sound)
    assert checks.reversed_time(sound).figures["backwards"] == pytest.approx(1 / 3)
    assert checks.frozen(sound).figures["frozen"] == pytest.approx(1 / 3)
    assert checks.mirrored(sound).figures["mirrored labels"] == 1.0


@pytest.mark.parametrize(("fault", "check"), [
    (lambda clips: clips.flip(2), checks.reversed_time),
    (lambda clips: clips.flip(-1), checks.mirrored),
])
def test_a_network_that_saw_the_world_otherwise(fault: Any, check: Any) -> None:
    found = check(probe(Rule(fault)))
    assert found.state == "wrong", found


def test_exchanged_colors() -> None:
    swapped = Rule(lambda clips: clips.flip(1), color=True)
    assert checks.swapped_colors(probe(swapped)).state == "wrong"
    assert checks.swapped_colors(probe(Rule(color=True))).state == "good"


class Still(nn.Module):
    """Looks at the middle frame only: order and motion do not exist for it."""

    view = "rgb"

    def forward(self, clips: Tensor) -> Tensor:
        middle = clips[:, :, T // 2].sum(1)
        x = middle.sum(1).argmax(1)
        return torch.stack([(x == 5).float(), (x == S - 2 - T // 2).float(), (x == 1).float()], 1)


def test_no_use_of_time_is_told() -> None:
    blind = probe(Still())
    assert checks.frozen(blind).state == "look"
    assert checks.reversed_time(blind).state in ("look", "good")


class Constant(nn.Module):
    view = "rgb"

    def forward(self, clips: Tensor) -> Tensor:
        return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(clips), 3)


def test_one_answer_for_all() -> None:
    dull = probe(Constant())
    assert checks.plainly(dull).state == "wrong"
    assert "no more than chance" in checks.plainly(dull).says
    assert checks.variety(dull).state == "wrong"
    assert "'left' is answered for 100%" in checks.variety(dull).says


class First(nn.Module):
    """Goes by the place in the first frame, and expects the places of two frames later."""

    view = "rgb"

    def forward(self, clips: Tensor) -> Tensor:
        x = clips[:, :, 0].sum((1, 2)).argmax(1, keepdim=True)
        return -(x - torch.tensor([[3, S - 4, 1]])).abs().float()


def test_a_clock_that_is_wrong() -> None:
    assert checks.late(probe(Rule())).state == "good"
    early = checks.late(probe(First()))
    assert early.figures["late"] == 1.0
    assert early.state == "wrong"
    assert "offset_ms" in early.says


def test_chance_of_answers() -> None:
    assert chance(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == 0.75
    assert chance(np.array([0, 1]), np.array([0, 1])) == 0.5


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


@pytest.fixture
def run(tmp_path: Path) -> Path:
    from modalift.engine.train import train
    from modalift.recipe import parse_recipe

    recipe = parse_recipe({
        "data": {"dataset": "csv", "root": str(write_data(tmp_path / "data")), "frames": 4, "size": 12},
        "networks": {"student": {"name": "small", "view": "nir", "width": 4}},
        "optim": {"epochs": 1, "batch": 6}, "run": {"dir": str(tmp_path / "run"), "device": "cpu", "precision": "fp32"}})
    return train(recipe).folder


def test_a_whole_run(run: Path) -> None:
    findings = {f.check: f for f in checks.diagnose(open_run(run), full=True)}
    assert set(findings) == {"as it is", "variety of answers", "training clips", "reversed", "frozen", "misaligned",
                             "mirrored", "BGR", "bundle", "eight clips", "shuffled labels"}
    assert findings["bundle"].state == "good", findings["bundle"]
    assert findings["BGR"].state == "unknown"
    assert findings["eight clips"].state == "good", findings["eight clips"]
    assert findings["shuffled labels"].state == "good", findings["shuffled labels"]
    json.dumps(diagnosis.as_json(list(findings.values())), allow_nan=False)
    ledger = [json.loads(x) for x in (run / "test_ledger.jsonl").read_text().splitlines()]
    assert ledger[-1]["by"] == "diagnose"


def test_answers_that_do_not_fit_any_more(run: Path) -> None:
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
    assert "student-test.npz says something else" in found["bundle"].says


def test_no_clip_to_look_at(run: Path) -> None:
    with pytest.raises(ModaliftError, match="split 'val' has no labeled clip"):
        checks.diagnose(open_run(run), split="val")
    with pytest.raises(ModaliftError, match="no network in the role 'teacher'"):
        checks.diagnose(open_run(run), role="teacher")
