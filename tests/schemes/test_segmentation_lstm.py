"""Its three phases: segmentation, frozen encoder, all together."""

from __future__ import annotations

import copy

import pytest
import torch

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.schemes import Progress, total


def made(**settings):
    torch.manual_seed(0)
    net = networks.build("cnn_lstm", classes=4, view="rgb", frames=4, size=32, backbone="resnet8", width=0.25, hidden=8)
    given = {"silhouette_threshold": 2000.0, "segmentation_share": 0.4, "frozen_share": 0.3} | settings
    return schemes.build("segmentation_lstm", {"student": net}, given).train()


def batch(n: int = 4, frames: int = 4) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    depth = 1000 + 2000 * torch.rand(n, 1, frames, 32, 32, generator=g)
    clips = {"rgb": 255 * torch.rand(n, 3, frames, 32, 32, generator=g), "depth": depth}
    return Batch(clips, {"depth": depth > 0}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes, torch.arange(n))


def moved(scheme, epoch: int) -> set[str]:
    """Which of encoder, head and decoder a step with decay and momentum moves in an epoch of ten."""
    parts = {"encoder": scheme.student.backbone, "head": scheme.student.head, "decoder": scheme.decoder}
    scheme.zero_grad(set_to_none=True)
    before = {k: copy.deepcopy(m.state_dict()) for k, m in parts.items()}
    optimizer = torch.optim.SGD(scheme.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for p in scheme.parameters():  # without a gradient, momentum must not move a parameter
        optimizer.state[p]["momentum_buffer"] = torch.ones_like(p)
    total(scheme(batch(), Progress(epoch=epoch, epochs=10))).backward()
    optimizer.step()
    return {k for k, m in parts.items() if any(not torch.equal(p, before[k][n]) for n, p in m.named_parameters())}


def test_each_phase_trains_its_own_modules():
    scheme = made()
    assert moved(scheme, 0) == {"encoder", "decoder"}
    assert moved(scheme, 4) == {"head"}
    assert moved(scheme, 9) == {"encoder", "head"}


def test_statistics_of_the_encoder_are_frozen_in_the_second_phase():
    scheme = made()
    before = copy.deepcopy(scheme.student.backbone.state_dict())
    scheme(batch(), Progress(epoch=5, epochs=10))
    assert all(torch.equal(v, before[k]) for k, v in scheme.student.backbone.state_dict().items())
    assert scheme.student.backbone.training
    scheme(batch(), Progress(epoch=9, epochs=10))
    assert not torch.equal(scheme.student.backbone.bn1.running_mean, before["bn1.running_mean"])


@pytest.mark.parametrize(("shares", "epochs", "wanted"), [
    ((0.4, 0.3), 1, "L"), ((0.4, 0.3), 2, "SL"), ((0.4, 0.3), 3, "SHL"), ((0.4, 0.3), 10, "SSSSHHHLLL"),
    ((0.1, 0.2), 10, "SHHLLLLLLL"), ((0.9, 0.0), 3, "SSL"), ((0.0, 0.9), 3, "HHL"), ((0.0, 0.0), 3, "LLL")])
def test_however_short_a_training_its_last_epoch_learns_labels(shares, epochs, wanted):
    scheme, found = made(segmentation_share=shares[0], frozen_share=shares[1]), ""
    for epoch in range(epochs):
        before = copy.deepcopy(scheme.student.backbone.state_dict())
        terms = scheme(batch(), Progress(epoch=epoch, epochs=epochs))
        stood = all(torch.equal(v, before[k]) for k, v in scheme.student.backbone.state_dict().items())
        found += "S" if terms["segmentation/depth>student"][0] else "H" if stood else "L"
        assert terms["ce/student"][1].requires_grad == (found[-1] != "S")
    assert found == wanted


def test_a_target_of_other_frames_is_told():
    given = batch()
    given.clips["depth"], given.valid["depth"] = given.clips["depth"][:, :, :2], given.valid["depth"][:, :, :2]
    with pytest.raises(ModaliftError, match="its clips have 2 frames, the student's 4"):
        made()(given, Progress(epoch=0, epochs=10))


@pytest.mark.parametrize("frames", [8, 16, 24, 37])
def test_any_number_of_frames(frames):
    assert all(torch.isfinite(raw) for _, raw in made()(batch(2, frames), Progress(epoch=9, epochs=10)).values())


def test_wrong_shares_are_told():
    with pytest.raises(ModaliftError, match=r"scheme\.segmentation_share = 0\.8"):
        made(segmentation_share=0.8)
    with pytest.raises(ModaliftError, match=r"scheme\.silhouette_threshold = 0"):
        made(silhouette_threshold=0.0)


def test_where_near_is_bright_the_silhouette_is_the_other_part():
    given = batch()
    given.clips["depth"] = torch.tensor([1500.0, 2500.0, 2500.0, 2500.0]).view(4, 1, 1, 1, 1).expand(4, 1, 4, 32, 32).clone()
    shares = []
    for bright in (False, True):
        scheme = made(larger_is_nearer=bright)
        for p in scheme.decoder.parameters():
            torch.nn.init.zeros_(p)  # predicts zero, so the error is the silhouette's share
        shares.append(scheme(given, Progress(epoch=0, epochs=10))["segmentation/depth>student"][1].item())
    assert shares == [0.25, 0.75]
