"""VGG-16: the published counts and names, and the layers of its paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"


def test_costs() -> None:
    with torch.device("meta"):
        net = networks.build("vgg16", classes=83)
        whole = networks.build("vgg16", classes=1000)
    found = cost(net, 1, 224)
    assert (found.parameters, found.macs) == (134_600_595, 15_466_508_288)
    assert cost(net, 8, 224).macs == 8 * found.macs
    assert sum(p.numel() for p in whole.parameters()) == 138_357_544


@pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")
def test_names_and_shapes_are_those_of_the_real_file() -> None:
    keys = json.loads((LAYOUTS / "keys_torchvision_vgg16.json").read_text())["keys"]
    with torch.device("meta"):
        net = networks.build("vgg16", classes=1000)
    own = {k: list(v.shape) for k, v in net.state_dict().items() if not k.startswith("prepare.")}
    assert own == {k.replace("features.", "backbone.layers.").replace("classifier.6.", "head.fc.")
                   .replace("classifier.", "head.classifier."): shape for k, (shape, _) in keys.items()}


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 224, 224), (2, 45, 70), (3, 32, 32)])
def test_equals_the_layers_of_the_paper(frames: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    net = networks.build("vgg16", classes=5, width=1 / 32).double().eval()
    clip = torch.rand(2, 3, frames, height, width, dtype=torch.float64) * 255
    state = net.state_dict()
    logits = []
    with torch.no_grad():
        for x in net.prepare(clip).unbind(2):
            number = 0
            for count in (2, 2, 3, 3, 3):
                for _ in range(count):
                    name = f"backbone.layers.{number}"
                    x = functional.relu(functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
                    number += 2
                x = functional.max_pool2d(x, 2)
                number += 1
            y = functional.adaptive_avg_pool2d(x, 7).flatten(1)
            for name in ("classifier.0", "classifier.3", "fc"):
                y = functional.linear(y, state[f"head.{name}.weight"], state[f"head.{name}.bias"])
                y = y if name == "fc" else functional.relu(y)
            logits.append(y)
        torch.testing.assert_close(net(clip), torch.stack(logits).mean(0))
        last = net.observe(clip, ["block5"]).maps["block5"]
    torch.testing.assert_close(last[:, :, -1], x)


def test_order_of_frames_does_not_matter_and_small_clips_are_refused() -> None:
    torch.manual_seed(0)
    net = networks.build("vgg16", classes=5, width=1 / 32, size=32).eval()
    clip = torch.rand(1, 3, 4, 32, 32) * 255
    with torch.no_grad():
        torch.testing.assert_close(net(clip), net(clip.flip(2)))
    with pytest.raises(ModaliftError, match="at least 1 of 32 x 32"):
        net(clip[..., :31])
    with pytest.raises(ModaliftError, match="must be above 0"):
        networks.build("vgg16", classes=5, width=-1.0)
