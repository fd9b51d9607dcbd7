"""One stream of a two-stream network: images, stacks of flow, and the counts of the public ResNets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"


def test_pictures_are_seen_apart() -> None:
    net = networks.build("two_stream", backbone="resnet18", width=0.125, classes=3, view="rgb").eval()
    clip = torch.rand(2, 3, 4, 40, 40) * 255
    with torch.no_grad():
        apart = torch.stack([net(f) for f in clip.split(1, 2)]).mean(0)
        torch.testing.assert_close(net(clip), apart)


@pytest.mark.parametrize("frames", [1, 10, 13, 20])
def test_stacks_are_the_definition(frames: int) -> None:
    # Equation 1 of the paper, with every channel in its place: x and y of one frame, then of the next.
    torch.manual_seed(0)
    net = networks.build("two_stream", backbone="resnet18", width=0.125, classes=3, view="flow", frames=frames, size=40)
    net = net.double().eval()
    clip = torch.randn(2, 2, frames, 40, 37, dtype=torch.float64)
    logits = []
    for first in range(0, frames, 10):
        image = torch.zeros(2, 20, 1, 40, 37, dtype=torch.float64)
        for j in range(10):
            for c in range(2):
                image[:, 2 * j + c, 0] = net.prepare(clip)[:, c, min(first + j, frames - 1)]
        x = super(type(net.backbone), net.backbone).features(image)[0]
        logits.append(net.head.fc(x.mean((2, 3, 4))))
    with torch.no_grad():
        torch.testing.assert_close(net(clip), torch.stack(logits).mean(0))


def test_the_order_inside_a_stack_matters_and_that_of_stacks_does_not() -> None:
    net = networks.build("two_stream", backbone="resnet18", width=0.125, classes=3, view="flow", stack=4).eval()
    clip = torch.randn(1, 2, 8, 33, 33)
    with torch.no_grad():
        torch.testing.assert_close(net(clip), net(clip.roll(4, 2)))
        assert not torch.allclose(net(clip), net(clip.roll(1, 2)))


@pytest.mark.parametrize(("view", "stack", "channels"), [
    ("flow", None, 20), ("rgb", None, 3), ("depth", None, 1), ("rgb", 10, 30), ("flow", 1, 2),
])
def test_stack_by_default(view: str, stack: int | None, channels: int) -> None:
    net = networks.build("two_stream", backbone="resnet18", classes=3, view=view, **({} if stack is None else {"stack": stack}))
    assert net.backbone.conv1.in_channels == channels
    assert net.stages["layer4"].shape(25, 224, 224)[1] == -(-25 // (channels // net.channels))


def test_counts_of_the_published_trunk() -> None:
    with torch.device("meta"):
        net = networks.build("two_stream", classes=1000, view="rgb")
        flow = networks.build("two_stream", classes=1000, view="flow")
    parameters = [sum(p.numel() for p in n.parameters()) for n in (net, flow)]
    assert parameters == [44_549_160, 44_549_160 + 64 * 49 * 17]


@pytest.mark.parametrize(("backbone", "parameters"), [
    ("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032),
])
def test_counts_of_the_other_trunks(backbone: str, parameters: int) -> None:
    assert cost(networks.build("two_stream", backbone=backbone, classes=1000, view="rgb"), 1, 32).parameters == parameters


@pytest.mark.skipif(not (SHARED / "specs").exists(), reason="../shared with the layouts of public files is absent")
def test_names_and_shapes_are_the_public_ones() -> None:
    layout = json.loads((SHARED / "specs" / "state_dicts" / "keys_torchvision_resnet101.json").read_text())
    with torch.device("meta"):
        own = networks.build("two_stream", classes=1000, view="rgb").state_dict()
    found = {k.removeprefix("backbone.").removeprefix("head."): list(v.shape) for k, v in own.items() if "prepare" not in k}
    assert found == {key: shape for key, (shape, _) in layout["keys"].items()}


@pytest.mark.parametrize(("options", "part"), [
    ({"stack": 0}, "stack = 0"), ({"width": 0.0}, "width = 0"), ({"motion": "clip"}, "motion='clip' with stack=10"),
    ({"backbone": "resnet102"}, "did you mean 'resnet101'"),
])
def test_what_makes_no_sense_is_refused(options: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build("two_stream", classes=3, view="flow", **options)
