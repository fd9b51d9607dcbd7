"""Equation 1: labels and the hardest triplet, literally."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.losses import batch_hard_triplet
from modalift.modalities import Batch
from modalift.schemes import Progress, total


def test_labels_and_triplets():
    torch.manual_seed(0)
    net = networks.build("small", classes=3, view="rgb", frames=1, size=32, width=4, dropout=0.0)
    made = schemes.build("identity_encoder", {"student": net}, {"triplet_weight": 0.5, "margin": 0.2}).eval()
    clips = torch.randint(0, 256, (6, 3, 1, 32, 32), dtype=torch.uint8)
    yes = torch.ones(6, dtype=torch.bool)
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    terms = made(Batch({"rgb": clips}, {}, {"rgb": yes}, labels, yes, torch.arange(6)), Progress())
    seen = net.observe(clips, [net.last_stage])
    torch.testing.assert_close(terms["ce/student"][1], F.cross_entropy(seen.logits, labels, label_smoothing=0.1))
    feature = seen.maps[net.last_stage].mean((2, 3, 4))
    torch.testing.assert_close(terms["triplet/student"][1], batch_hard_triplet(feature, labels, 0.2))
    assert terms["triplet/student"][0] == 0.5
    assert [float(x) for x in terms["batch_clips/student"]] == [0.0, 6.0]
    alone = made(Batch({"rgb": clips}, {}, {"rgb": yes}, labels * 0, yes, torch.arange(6)), Progress())
    assert alone["triplet/student"][1] == 0  # one person: no triplet
    total(alone).backward()


def test_bad_settings_are_told():
    net = networks.build("small", classes=3, view="rgb", frames=1, size=32, width=4)
    with pytest.raises(ModaliftError, match=r"label_smoothing = 1\.0: must lie in"):
        schemes.build("identity_encoder", {"student": net}, {"label_smoothing": 1.0})


def test_it_is_noted_that_a_triplet_needs_several_pictures_of_a_person():
    net = networks.build("small", classes=3, view="rgb", frames=1, size=32, width=4)
    (note,) = schemes.build("identity_encoder", {"student": net}).notes
    assert "optim.per_class" in note
