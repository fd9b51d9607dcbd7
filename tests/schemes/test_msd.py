"""MSD's decoders: sizes and costs of the paper, their targets, and that they are training only."""

from __future__ import annotations

import pytest
import torch

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.schemes import Progress

END = Progress(epoch=9, epochs=10)


def net(size: int = 32, **options) -> networks.Recognizer:
    torch.manual_seed(0)
    given = {"name": "small", "width": 8, "dropout": 0.0} | options
    return networks.build(given.pop("name"), classes=4, view="rgb", frames=4, size=size, **given)


def batch(n: int = 3, size: int = 32, frames: int = 4) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    depth = 1000 + 2000 * torch.rand(n, 1, frames, size, size, generator=g)
    clips = {"rgb": 255 * torch.rand(n, 3, frames, size, size, generator=g), "depth": depth}
    return Batch(clips, {"depth": depth > 0}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes, torch.arange(n))


def test_the_paper_s_decoders_have_its_parameters_and_multiply_accumulates():
    with torch.device("meta"):
        made = schemes.build("msd", {"student": networks.build("tsm", backbone="resnet50", classes=83, channels=3)})
    assert sum(p.numel() for m in made.training_only_modules.values() for p in m.parameters()) == 8_553_794
    macs = 0

    def count(module, inputs, out):
        nonlocal macs
        macs += inputs[0].numel() * module.weight[0].numel()

    for m in made.training_only_modules.values():
        for layer in m.modules():
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.register_forward_hook(count)
    with torch.device("meta"):
        assert made.local_decoder(torch.empty(1, 64, 8, 56, 56)).shape == (1, 1, 8, 224, 224)
        assert made.global_decoder(torch.empty(1, 2048, 8, 7, 7)).shape == (1, 1, 8, 56, 56)
    assert macs == 4_370_530_304


@pytest.mark.parametrize("name", ["tsn", "tsm", "tea", "action_net"])
def test_they_plug_into_the_networks_of_the_paper(name):
    if name not in networks.NETWORKS:
        pytest.skip(f"{name} is not registered")
    made = schemes.build("msd", {"student": net(64, name=name, backbone="resnet50", width=0.125)}
                         if name in ("tsn", "tsm", "action_net") else {"student": net(64, name=name, width=0.25)}).train()
    terms = made(batch(2, 64), END)
    assert set(terms) == {"ce/student", "local_reconstruction/depth>student", "global_reconstruction/depth>student"}
    assert all(torch.isfinite(raw) for _, raw in terms.values())
    assert terms["global_reconstruction/depth>student"][0] == 0.01


def test_holes_and_readings_outside_do_not_matter():
    made, one, other = schemes.build("msd", {"student": net()}).eval(), batch(), batch()
    other.clips["depth"][:, :, :, :5] = 0
    other.valid["depth"] = other.clips["depth"] > 0
    wild = Batch(dict(other.clips), other.valid, other.present, other.labels, other.labeled, other.index)
    wild.clips["depth"] = torch.where(wild.valid["depth"], wild.clips["depth"], torch.full_like(wild.clips["depth"], 9e9))
    for key, (_, raw) in made(other, END).items():
        torch.testing.assert_close(raw, made(wild, END)[key][1])
    assert made(one, END)["local_reconstruction/depth>student"][1] != made(other, END)["local_reconstruction/depth>student"][1]


@pytest.mark.parametrize("threshold", [0.0, 2000.0])
def test_a_clip_without_readings_dilutes_no_mean(threshold):
    made, given = schemes.build("msd", {"student": net()}, {"silhouette_threshold": threshold}).eval(), batch()
    given.clips["depth"][1] = 0
    given.valid["depth"] = given.clips["depth"] > 0
    rest = given.take(torch.tensor([0, 2]))
    for key in ("local_reconstruction/depth>student", "global_reconstruction/depth>student"):
        torch.testing.assert_close(made(given, END)[key][1], made(rest, END)[key][1])
    given.clips["depth"][:], given.valid["depth"][:] = 0, False
    assert made(given, END)["local_reconstruction/depth>student"][1] == 0


def test_the_ablations_change_scale_weight_and_target():
    given = batch()
    quarter = schemes.build("msd", {"student": net()}, {"local_scale": "quarter", "global_scale": "full"})
    student = quarter.student
    seen = student.observe(given.clips["rgb"], list(student.stages))
    assert quarter.local_decoder(seen.maps["stem"]).shape[3:] == seen.maps["stem"].shape[3:]
    assert quarter.global_decoder(seen.maps["layer3"]).shape[3] == 32 * seen.maps["layer3"].shape[3]
    shadow = schemes.build("msd", {"student": net()}, {"silhouette_threshold": 2000.0}).eval()
    plain = schemes.build("msd", {"student": net()}).eval()
    plain.load_state_dict(shadow.state_dict())
    key = "local_reconstruction/depth>student"
    assert shadow(given, END)[key][1] != plain(given, END)[key][1]


def test_a_network_that_thins_out_time_draws_the_frames_it_kept():
    if "i3d" not in networks.NETWORKS:
        pytest.skip("i3d is not registered")
    made = schemes.build("msd", {"student": net(name="i3d", width=0.125)})
    assert torch.isfinite(made(batch(), END)["global_reconstruction/depth>student"][1])


def test_a_target_of_other_frames_shows_other_moments_and_is_told():
    made, given = schemes.build("msd", {"student": net()}), batch()
    given.clips["depth"], given.valid["depth"] = given.clips["depth"][:, :, :2], given.valid["depth"][:, :, :2]
    with pytest.raises(ModaliftError, match=r"\.target_view = depth: its clips have 2 frames, the student's 4 - .*per_view"):
        made(given, END)


def test_what_cannot_be_drawn_is_told():
    with pytest.raises(ModaliftError, match="is what the student reads"):
        schemes.build("msd", {"student": net()}, {"target_view": "rgb"})
    with pytest.raises(ModaliftError, match="far"):
        schemes.build("msd", {"student": net()}, {"near": 4500.0})
    made, given = schemes.build("msd", {"student": net()}, {"target_view": "pose"}), batch()
    given.clips["pose"], given.present["pose"] = torch.rand(3, 9, 4, 1, 1), given.present["rgb"]
    with pytest.raises(ModaliftError, match="a signal is not an image"):
        made(given, END)
