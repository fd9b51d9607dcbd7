"""Gradients of every registered network, as a training places it, against the same network in float64.

Run as a program by ``test_processors.py``, in a process of its own since a math library that is wrong may crash:
``python gradients.py THREADS CASE...``, where a case is a position in :data:`CASES`. Prints one JSON line before each case
and one with its worst relative error.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import torch
from torch import Tensor, nn

import modalift.networks as networks
from modalift.engine.distributed import to_device
from modalift.networks import Network

#: The smallest trunk of families that have several; a family that is not named here is built with its default.
TRUNKS: dict[str, dict[str, Any]] = {
    "cnn_lstm": {"backbone": "resnet8", "hidden": 4}, "tsm": {"backbone": "resnet8"}, "tsn": {"backbone": "resnet8"},
    "two_stream": {"backbone": "resnet8"}, "tea": {"backbone": "res2net11"}, "action_net": {"backbone": "resnet8"},
    "r3d": {"backbone": "resnet18"}, "resnext101_3d": {"groups": 2}, "translator": {"backbone": "resnet_4"},
}
#: Channels of the first layer, where a family says how many it has.
NARROW = (2, 4)
#: Float32 is this near to float64 but at a ReLU's kink; a wrong gradient is off by 0.1 and more.
TOLERANCE = 1e-2
DRAWS = 5


def narrow(name: str, channels: int) -> dict[str, Any]:
    """The options that give a family so many channels in its first layer, about."""
    own = networks.options_of(name)
    options = dict(TRUNKS.get(name, {}))
    if "ngf" in own:
        return {**options, "ngf": channels}
    if "width" in own:
        default = own["width"].default
        return {**options, "width": channels if isinstance(default, int) else channels / 64}
    return options


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Every family at its narrowest widths."""
    found = []
    for name in networks.NETWORKS:
        for options in (narrow(name, n) for n in NARROW):
            if (name, options) not in found:
                found.append((name, options))
    return found


CASES = cases()


def built(name: str, options: dict[str, Any], seed: int = 0) -> tuple[Network, Tensor]:
    """A network in training mode, and clips for it.

    Without dropout; and with an epsilon in BatchNorm that keeps a hundred layers from magnifying what float32 rounds.
    """
    torch.manual_seed(seed)
    signal = networks.FAMILIES[name].view == "pose"
    net = networks.build(name, classes=3, view="pose" if signal else "rgb", channels=3, frames=4, size=32, **options).train()
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 0.1
    side = 1 if signal else 32
    return net, torch.randint(0, 256, (4, 3, 4, side, side), generator=torch.Generator().manual_seed(seed)).float()


def gradients(net: Network, clip: Tensor) -> dict[str, Tensor]:
    """The output and the gradient of every parameter, of a fixed random weighting of the output."""
    out = net(clip)
    weighting = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (out * weighting.to(out.dtype)).sum().backward()
    return {"output": out.detach()} | {k: p.grad for k, p in net.named_parameters() if p.grad is not None}


def worst(name: str, options: dict[str, Any], seed: int) -> tuple[float, str]:
    """The largest relative error of output and gradients, and where it is. Of three steps, since a race may spare one."""
    net, clip = built(name, options, seed)
    exact = gradients(copy.deepcopy(net).double(), clip.double())
    scale = max(float(g.norm()) for k, g in exact.items() if k != "output")
    to_device(net, torch.device("cpu"))
    errors = []
    for _ in range(3):
        net.zero_grad()
        state = copy.deepcopy(net.state_dict())
        found = gradients(net, clip)
        net.load_state_dict(state)  # running statistics
        assert found.keys() == exact.keys()
        for key, wanted in exact.items():
            floor = 1e-30 if key == "output" else 1e-3 * scale
            error = float((found[key].double() - wanted).norm() / wanted.norm().clamp(min=floor))
            errors.append((error if error == error else float("inf"), key))
    return max(errors)


def least(name: str, options: dict[str, Any]) -> tuple[float, str]:
    """The least error of some random networks, as few as are needed: float32 may round an activation over the ReLU's kink,
    which changes the gradients of one network, where a wrong convolution is wrong in each."""
    found = []
    for seed in range(DRAWS):
        found.append(worst(name, options, seed))
        if found[-1][0] < TOLERANCE:
            break
    return min(found)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    for position in map(int, sys.argv[2:]):
        print(json.dumps({"begins": position}), flush=True)
        error, where = least(*CASES[position])
        print(json.dumps({"case": position, "error": error, "where": where}), flush=True)
