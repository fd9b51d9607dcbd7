"""What every registered recognizer keeps: maps as declared, any number of channels, frames and clips, and so on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.modalities import modality
from modalift.networks import Recognizer

#: Small variants of every family; a family that is not named here is built with its defaults.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "cnn_lstm": [{"backbone": "resnet8", "width": 0.25, "hidden": 16},
                 {"backbone": "resnet8", "width": 0.25, "hidden": 16, "grid": 2}],
    "small": [{}, {"motion": "clip"}, {"causal": True}, {"causal": True, "motion": "running"},
              {"blocks": 2, "bins": 1, "grid": 2}, {"causal": True, "grid": 3}],
    "c3d": [{"width": 0.0625}, {"variant": "gesrec", "width": 0.0625}],
    "tea": [{"backbone": "res2net11", "width": 0.5}],
    "tsm": [{"backbone": "resnet8", "width": 0.25}, {"backbone": "resnet50", "width": 0.125, "placement": "block"}],
    "tsn": [{"backbone": "resnet18", "width": 0.125}],
    "two_stream": [{"backbone": "resnet18", "width": 0.125}, {"backbone": "resnet8", "width": 0.25, "stack": 3}],
    "vgg16": [{"width": 0.0625}],
    "conv_lstm": [{"width": 0.125}, {"width": 0.125, "cell": "attention_input"}, {"width": 0.125, "cell": "standard"}],
    "r3d": [{"backbone": "resnet18", "width": 0.125}, {"backbone": "resnet50", "width": 0.125},
            {"backbone": "res3d18", "width": 0.125}],
    "resnext101_3d": [{"width": 0.125, "groups": 4}],
    "i3d": [{"width": 0.125}, {"width": 0.125, "padding": "symmetric"}],
    "i3d_resnet50": [{"width": 0.125}, {"width": 0.125, "strides": "mmaction2"}, {"width": 0.125, "pattern": "heavy"},
                     {"width": 0.125, "pattern": "slowonly"}],
    "action_net": [{"backbone": "resnet8", "width": 0.5}, {"backbone": "resnet18", "width": 0.5}],
    "tcn": [{}, {"velocity": False, "blocks": 2}, {"motion": "clip"}],
}
#: Families whose logits do not depend on the order of the frames.
TIMELESS = {"tsn", "two_stream", "vgg16"}
#: Families that read signals (B, C, T, 1, 1) and not video.
SIGNALS = {name for name in networks.FAMILIES if modality(networks.FAMILIES[name].view).kind == "signal"}
CASES = [(name, options) for name in networks.NETWORKS if networks.has_classes(name) for options in VARIANTS.get(name, [{}])]
every = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])


def is_signal(name: str) -> bool:
    return name in SIGNALS


def made(name: str, options: dict[str, Any], channels: int = 3, frames: int = 4, size: int = 32) -> Recognizer:
    torch.manual_seed(0)
    view = "pose" if is_signal(name) else "rgb"
    return networks.build(name, classes=5, view=view, channels=channels, frames=frames, size=size, **options)


def clips(net: Recognizer, count: int = 2, frames: int | None = None, size: int | None = None) -> torch.Tensor:
    torch.manual_seed(1)
    side = net.size if size is None else size
    x = torch.randn(count, net.channels, frames or net.frames, side, side)
    return x if is_signal(net.config["name"]) else (x * 50 + 120).clamp(0, 255).to(torch.uint8)


@every
def test_maps_are_as_declared(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).eval()
    sizes = (1,) if is_signal(name) else (32, 45)
    for size in sizes:
        clip = clips(net, size=size)
        with torch.no_grad():
            seen = net.observe(clip, list(net.stages))
        assert set(seen.maps) == set(net.stages)
        assert seen.logits.shape == (2, 5)
        for stage, declared in net.stages.items():
            assert seen.maps[stage].shape == (2, *declared.shape(net.frames, size, size)), stage
        assert list(net.stages)[-1] == net.last_stage
        assert torch.equal(seen.logits, net(clip))  # looking at maps changes nothing


@every
def test_any_number_of_channels(name: str, options: dict[str, Any]) -> None:
    for channels in (1, 3, 6) if is_signal(name) else (1, 2, 3, 5):
        net = made(name, options, channels=channels).eval()
        assert net.channels == channels
        assert net(clips(net)).isfinite().all()


@every
def test_few_frames_and_a_batch_of_one(name: str, options: dict[str, Any]) -> None:
    net = made(name, options, frames=1)
    net.train()
    for frames in (1, 2, 3):
        out = net(clips(net, count=2, frames=frames))
        assert out.shape == (2, 5)
    net.eval()
    out = net(clips(net, count=1, frames=1))
    assert out.shape == (1, 5)
    assert out.isfinite().all()


@every
def test_evaluation_is_deterministic_and_clips_do_not_mix(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).eval()
    clip = clips(net, count=3)
    with torch.no_grad():
        together = net(clip)
        assert torch.equal(together, net(clip))
        alone = torch.cat([net(c[None]) for c in clip])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@every
def test_time_and_content_matter(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).train()
    with torch.no_grad():
        net(clips(net, count=8))  # statistics that are not those of nothing
    net.eval()
    clip = clips(net, count=1)
    with torch.no_grad():
        assert not torch.allclose(net(clip), net(clip.roll(1, dims=1) if is_signal(name) else 255 - clip))
        if name not in TIMELESS:
            assert not torch.allclose(net(clip), net(clip.flip(2)), atol=1e-7)


@every
def test_gradient_reaches_every_parameter(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).train()
    net(clips(net, count=4)).logsumexp(1).sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@every
def test_channels_last_gives_the_same(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).eval()
    clip = clips(net)
    with torch.no_grad():
        plain = net(clip)
        for p in net.parameters():  # net.to(memory_format=...) refuses networks of several dimensions
            if p.dim() in (4, 5):
                p.data = p.data.contiguous(memory_format=torch.channels_last if p.dim() == 4 else torch.channels_last_3d)
        torch.testing.assert_close(net(clip), plain, atol=1e-4, rtol=1e-4)


@every
def test_half_precision_is_near(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).eval()
    clip = clips(net)
    with torch.no_grad():
        plain = net(clip)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(clip)
    assert (half.float() - plain).abs().max() < 0.1 * plain.abs().max() + 0.05


@every
def test_compiles_without_a_break(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).eval()
    clip = clips(net)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="eager")(clip)
        torch.testing.assert_close(compiled, net(clip), atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()
    torch.compile(net.train(), fullgraph=True, backend="eager")(clip).sum().backward()  # a training step as well
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@every
def test_export_gives_the_same(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).eval()
    clip = clips(net)
    with torch.no_grad():
        program = torch.export.export(net, (clip,))
        torch.testing.assert_close(program.module()(clip), net(clip), atol=1e-5, rtol=1e-5)


@every
def test_streaming_equals_the_clip(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).train()
    with torch.no_grad():
        net(clips(net, count=8))
    net.eval()
    if not net.streams:
        with pytest.raises(ModaliftError, match="cannot stream"):
            net.step(clips(net, frames=1))
        return
    for frames in (1, 2, 5, 12):
        clip = clips(net, frames=frames)
        with torch.no_grad():
            state = None
            for frame in clip.split(1, dim=2):
                logits, state = net.step(frame, state)
            torch.testing.assert_close(logits, net(clip), atol=1e-5, rtol=1e-5)
            blank = tuple(torch.zeros_like(t) for t in state)  # zeros are the state before the first frame
            torch.testing.assert_close(net.step(clip[:, :, :1], blank)[0], net(clip[:, :, :1]), atol=1e-5, rtol=1e-5)
            if frames > 1:  # in two pieces of unequal length
                pieces, state = net.step(clip[:, :, : frames // 3 + 1])
                pieces, state = net.step(clip[:, :, frames // 3 + 1 :], state)
                torch.testing.assert_close(pieces, net(clip), atol=1e-5, rtol=1e-5)


@every
def test_config_rebuilds_it(name: str, options: dict[str, Any]) -> None:
    net = made(name, options)
    again = networks.build(**net.config)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in again.state_dict().items()}
    assert again.config == net.config


@every
def test_wrong_input_is_told(name: str, options: dict[str, Any]) -> None:
    net = made(name, options)
    with pytest.raises(ModaliftError, match="no stage"):
        net.observe(clips(net), ["layer99"])
    with pytest.raises(ModaliftError, match="reads clips"):
        net(torch.zeros(1, net.channels + 1, 2, net.size, net.size))
    with pytest.raises(ModaliftError, match=r"unknown key 'network\.widht'.*did you mean 'width'"):
        networks.build(name, classes=5, view="rgb", widht=3)


@every
def test_too_small_a_clip_is_told_with_the_smallest_size(name: str, options: dict[str, Any]) -> None:
    net = made(name, options).eval()
    frames, pixels = net.backbone.smallest
    smallest = torch.zeros(1, net.channels, frames, pixels, pixels)
    assert net(smallest).isfinite().all()
    if frames > 1:
        with pytest.raises(ModaliftError, match=f"at least {frames} of"):
            net(smallest[:, :, 1:])
    if pixels > 1:
        with pytest.raises(ModaliftError, match=f"at least {frames} of {pixels} x {pixels}"):
            net(smallest[..., 1:])


@every
def test_recomputing_changes_memory_and_nothing_else(name: str, options: dict[str, Any]) -> None:
    if "checkpointing" not in networks.options_of(name):
        pytest.skip(f"{name} has no switch for it")
    plain, saving = made(name, options).train(), made(name, options | {"checkpointing": True}).train()
    assert networks.cost(saving, 4, 32).activation_bytes < 0.8 * networks.cost(plain, 4, 32).activation_bytes
    clip = clips(plain)
    for net in (plain, saving):
        torch.manual_seed(2)
        net(clip).logsumexp(1).sum().backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), key
    for (key, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), key
