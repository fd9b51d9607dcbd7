"""Modality hallucination beyond what every scheme promises: its equation by hand, and its settings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.schemes import Progress, total

END = Progress(epoch=9, epochs=10)


def net(view: str, **options) -> networks.Recognizer:
    torch.manual_seed(len(view))
    return networks.build("small", classes=4, view=view, frames=4, size=32, **{"width": 8, **options}, dropout=0.0)


def batch(n: int = 6) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    clips = {v: 20 + 10 * torch.rand(n, c, 4, 32, 32, generator=g) for v, c in (("rgb", 3), ("thermal", 1))}
    return Batch(clips, {}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes, torch.arange(n))


def cast(wide: int = 8, **settings):
    return schemes.build("hallucination", {"student": net("rgb"), "teacher": net("thermal", width=wide)}, settings).train()


def test_the_loss_is_the_published_one_up_to_the_weight_of_labels():
    """(1 - a)[(1 - l) CE + l soft] + a m ||s(F) - s(F)||^2 with the authors' numbers, all of it times four."""
    made, given = cast(), batch()
    loss = total(made(given, END))
    seen = made.student.observe(given.clips["rgb"], ["layer3"])
    with torch.no_grad():
        shown = made.teacher.observe(given.clips["thermal"], ["layer3"])
    hard = F.cross_entropy(seen.logits, given.labels)
    p = F.softmax(shown.logits / 10, 1)
    soft = (p * (p.log() - F.log_softmax(seen.logits / 10, 1))).sum(1).mean()
    far = (torch.sigmoid(seen.maps["layer3"]) - torch.sigmoid(shown.maps["layer3"])).square().sum() / 6
    published = 0.5 * (0.5 * hard + 0.5 * soft) + 0.5 * 0.01 * far
    torch.testing.assert_close(loss, 4 * published, rtol=1e-4, atol=1e-5)


def test_maps_of_other_channels_are_projected_on_the_side_that_learns():
    made = cast(wide=12)
    assert set(made.training_only_modules) == {"project"}
    total(made(batch(), END)).backward()
    assert all(p.grad is not None for p in made.project.parameters())
    assert list(made.students) == ["student"]


def test_the_mean_is_the_sum_over_a_maps_numbers():
    summed, mean = (cast(reduction=r)(batch(), END)["feature/teacher>student"][1] for r in ("sum", "mean"))
    stage = net("rgb").stages["layer3"].shape(4, 32, 32)
    torch.testing.assert_close(summed, mean * torch.Size(stage).numel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("change", "told"), [
    ({"feature_share": 1.0}, "feature_share = 1.0"), ({"kd_share": -0.1}, "kd_share = -0.1"),
    ({"kd_temperature": 0.0}, "kd_temperature = 0.0"), ({"reduction": "max"}, "reduction")])
def test_settings_that_make_no_sense_are_told(change, told):
    with pytest.raises(ModaliftError, match=told):
        cast(**change)
