"""The anchors: when they move, what they are, and that the student waits for the first."""

from __future__ import annotations

import pytest
import torch

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.schemes import Progress


def net(view: str, classes: int = 4) -> networks.Recognizer:
    torch.manual_seed(len(view))
    if view == "pose":
        return networks.build("tcn", classes=classes, view="pose", channels=9, frames=4, dropout=0.0)
    return networks.build("small", classes=classes, view=view, frames=4, size=32, width=8, dropout=0.0)


def batch(n: int = 4) -> Batch:
    yes = torch.ones(n, dtype=torch.bool)
    clips = {"depth": 2000 + 500 * torch.rand(n, 1, 4, 32, 32), "pose": torch.rand(n, 9, 4, 1, 1)}
    return Batch(clips, {}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes, torch.arange(n))


def test_the_anchor_is_the_teacher_as_it_was_at_equal_steps():
    made = schemes.build("route", {"student": net("depth"), "teacher": net("pose")}, {"anchors": 3}).train()
    moved = []
    for epoch in range(8):
        with torch.no_grad():
            made.teacher.head.fc.bias += 1.0  # what a training would do
        before = made.anchor.head.fc.bias.clone()
        terms = made(batch(), Progress(epoch=epoch, epochs=8))
        if not torch.equal(made.anchor.head.fc.bias, before):
            assert torch.equal(made.anchor.head.fc.bias, made.teacher.head.fc.bias)
            moved.append(epoch)
        weight, raw = terms["kd/anchor>student"]
        assert weight == 8.0
        assert (raw > 0) == bool(moved), "until the first anchor the student has its labels alone"
    assert moved == [2, 4, 6]
    assert int(made.reached) == 3


def test_a_training_of_one_epoch_reaches_its_anchors_by_steps():
    made = schemes.build("route", {"student": net("depth"), "teacher": net("pose")}, {"anchors": 3}).train()
    found = []
    for step in range(8):
        made(batch(), Progress(epoch=0, epochs=1, step=step, steps=8))
        found.append(int(made.reached))
    assert found == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("name", ["distill", "mgcam_dkd", "mtcd", "prokt", "route", "crd"])
def test_a_teacher_of_other_classes_is_told(name):
    with pytest.raises(ModaliftError, match=r"different numbers of classes \(student 4, teacher 5\)"):
        schemes.build(name, {"student": net("depth"), "teacher": net("pose", 5)})
