"""What a translator keeps: published counts, any length and extent, clips that do not mix, the same answer after shipping."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modalift import networks
from modalift.deploy.export import export_onnx
from modalift.deploy.predict import predict_many
from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.models import load
from modalift.networks import Translator
from modalift.networks.translator import PatchDiscriminator
from small_models import save_model

FRAMING = Framing(frames=2, size=32)


def made(**options) -> Translator:
    torch.manual_seed(0)
    given = {"view": "rgb", "target": "thermal", "backbone": "resnet_4", "ngf": 4, "frames": 2, "size": 32}
    return networks.build("translator", **(given | options))


def clips(count: int = 2, channels: int = 3, frames: int = 2, height: int = 32, width: int = 32) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, frames, height, width), dtype=torch.uint8, generator=g)


def test_counts_are_the_published_ones():
    net = networks.build("translator", view="rgb", target="rgb")
    published = 11_378_179  # with biases before normalization: 64 + 128 + 256 + 18 x 256 + 128 + 64 that do nothing
    assert sum(p.numel() for p in net.parameters()) == published - 5248
    assert sum(p.numel() for p in PatchDiscriminator(3).parameters()) == 2_764_737 - (128 + 256 + 512)
    assert networks.cost(net, 1, 256).macs == networks.cost(net, 2, 256).macs // 2


def test_the_discriminators_patches_have_70_pixels():
    discriminator = PatchDiscriminator(1, 4)
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    # Normalization looks at the whole image; the patch is what the convolutions see.
    layers = torch.nn.Sequential(*(m for m in discriminator.layers if not isinstance(m, torch.nn.InstanceNorm2d)))
    layers(image + torch.rand(1, 1, 128, 128))[0, 0, 7, 7].backward()
    seen = (image.grad[0, 0] != 0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]
    with pytest.raises(ModaliftError, match="needs at least 24 pixels"):
        discriminator(torch.zeros(1, 1, 20, 64))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (33, 47), (45, 30)])
@pytest.mark.parametrize("frames", [1, 3])
def test_any_extent_and_length(height, width, frames):
    net = made().train()
    out = net(clips(1, frames=frames, height=height, width=width))
    assert out.shape == (1, 1, frames, height, width)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 255


@pytest.mark.parametrize(("view", "target", "channels"), [("depth", "thermal", 1), ("rgb", "nir", 3), ("thermal", "rgb", 1)])
def test_any_pair_of_sensors(view, target, channels):
    net = made(view=view, target=target)
    assert (net.channels, net.target, net.classes) == (channels, target, 0)
    assert net(clips(channels=channels)).shape[1] == net.output_modality.channels
    far = made(view="rgb", target="depth", low=500, high=4500, output="linear")
    assert (float(far.middle), float(far.reach)) == (2500, 2000)
    assert torch.equal(far.standard(torch.tensor([500.0, 4500.0])), torch.tensor([-1.0, 1.0]))


def test_frames_and_clips_do_not_mix():
    net = made().eval()
    clip = clips(3, frames=4)
    with torch.no_grad():
        whole = net(clip)
        alone = torch.cat([torch.cat([net(c[None, :, t:t + 1]) for t in range(4)], 2) for c in clip])
        assert torch.equal(whole, net(clip))
    torch.testing.assert_close(whole, alone, atol=1e-3, rtol=1e-5)


def test_dropout_is_the_same_in_all_frames():
    net = made(dropout=0.5).train()
    still = clips(2, frames=1).expand(-1, -1, 3, -1, -1)
    drawn = net(still)
    torch.testing.assert_close(drawn[:, :, 0], drawn[:, :, 2])
    assert not torch.allclose(drawn, net(still))


def test_gradient_reaches_every_parameter():
    for net, given in ((made(), clips()), (PatchDiscriminator(3, 4, 2), torch.rand(2, 3, 32, 32))):
        net(given).square().mean().backward()
        for key, p in net.named_parameters():
            assert p.grad is not None, key
            assert p.grad.abs().sum() > 0, key


def test_the_target_as_if_its_own_sensor_had_seen_it():
    net = made()
    torch.testing.assert_close(net.recast(torch.full((1, 1, 1, 8, 8), 51.0)), torch.full((1, 3, 1, 8, 8), 51.0))
    depth = made(view="depth", target="rgb")
    assert depth.recast(torch.full((1, 3, 1, 8, 8), 255.0)).unique().tolist() == [10000.0]


def test_export_and_config_give_the_same():
    net, clip = made().eval(), clips(height=30, width=34)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(net, (clip,)).module()(clip), net(clip))
        again = networks.build(**net.config).eval()
        again.load_state_dict(net.state_dict())
        assert torch.equal(again(clip), net(clip))


def test_the_same_images_from_its_file(tmp_path: Path):
    net, clip = made(low=10, high=200).eval(), clips()
    with torch.no_grad():
        drawn = net(clip)
        model = load(save_model(tmp_path / "g.modalift", net, framing=FRAMING, classes=("a", "b")))
        assert model.classes == ()
        assert (model.kind, model.deployable) == ("translator", True)
        assert isinstance(model.network, Translator)
        assert torch.equal(model.network(clip), drawn)
    with pytest.raises(ModaliftError, match="holds a translator, not a recognizer"):
        predict_many(model, [tmp_path])


@pytest.mark.parametrize("options", [{}, {"view": "depth", "target": "gray", "output": "linear"}, {"target": "rgb"}])
def test_an_export_draws_frames_as_the_network_does(tmp_path: Path, options: dict):
    """Whatever number of frames at once, in the target's unit; what it draws stands in the file."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = made(low=10, high=200, **options).eval()
    home = load(save_model(tmp_path / "g.modalift", net, framing=Framing(frames=2, size=30), classes=[]))
    report = export_onnx(home, tmp_path / "g.onnx")
    assert report.input == ("clip", ("batch", net.channels, 1, 30, 30))
    assert report.output == ("image", ("batch", net.output_modality.channels, 1, 30, 30))
    assert report.difference < 1e-4
    metadata = {p.key: p.value for p in onnx.load(report.path).metadata_props}
    assert json.loads(metadata["target"])["name"] == net.target
    session = ort.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    clip = clips(1, channels=net.channels, frames=5, height=30, width=30).float()  # a clip, as five of one frame
    drawn = session.run(["image"], {"clip": clip.transpose(0, 2).numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(drawn, net(clip).transpose(0, 2).numpy(), rtol=0, atol=0.02)
    with pytest.raises(ModaliftError, match="of the largest reading, more than"):
        export_onnx(home, tmp_path / "h.onnx", tolerance=0.0)
    assert not (tmp_path / "h.onnx").exists()


def test_bad_options_are_told():
    with pytest.raises(ModaliftError, match="reads clips"):
        made()(clips(channels=1))
    with pytest.raises(ModaliftError, match="at least 1 of 8 x 8"):
        made()(clips(height=7))
    with pytest.raises(ModaliftError, match="choose a video modality"):
        made(target="imu")
    with pytest.raises(ModaliftError, match="low must be below high"):
        made(low=300)
    with pytest.raises(ModaliftError, match="takes neither motion nor a neck"):
        made(motion="clip")
    with pytest.raises(ModaliftError, match=r"unknown key 'network\.ngv'"):
        made(ngv=3)
    with pytest.raises(ModaliftError, match=r"dropout = 1\.0: must lie in \[0, 1\)"):
        made(dropout=1.0)
    with pytest.raises(ModaliftError, match="classes = 0"):
        networks.build("small", view="rgb")
