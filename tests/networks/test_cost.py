"""Costs, against counts by hand and against what a real backward pass keeps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks import Backbone, NetworkSpec, Recognizer, Stage
from modalift.networks.cost import LARGEST, cost, legacy_flops, macs
from modalift.networks.heads import MeanLogits


class Odd(Backbone):
    """Every kind of layer that is counted, with groups, strides and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = {"last": Stage(4, 1)}
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2, bias=False)
        self.relu = nn.ReLU()
        self.last = nn.Conv3d(6, 4, (3, 1, 1), padding=(1, 0, 0), bias=False)

    def features(self, x: Tensor, keep: object = ()) -> tuple[Tensor, dict[str, Tensor]]:
        frames = x.shape[2]
        y = self.up(self.relu(self.conv(x.transpose(1, 2).flatten(0, 1))))
        return self.last(y.unflatten(0, (-1, frames)).transpose(1, 2)), {}


def test_counts_by_hand() -> None:
    net = Recognizer(NetworkSpec(2), Odd(), MeanLogits(4, 5))
    found = cost(net, frames=3, size=8)
    conv = 3 * (4 * 4 * 4) * (1 * 9)  # 3 frames, output 4 x 4 x 4, one channel of input a group
    up = 3 * (4 * 4 * 4) * (3 * 16)  # every input number meets 3 channels of output a group and 4 x 4 taps
    last = (4 * 3 * 8 * 8) * (6 * 3)
    assert found.macs == conv + up + last + 3 * 4 * 5
    assert found.parameters == (4 * 9 + 4) + 4 * 3 * 16 + 4 * 6 * 3 + (4 * 5 + 5)


def test_legacy_count_by_hand() -> None:
    net = Recognizer(NetworkSpec(2), Odd(), MeanLogits(4, 5))
    conv = 3 * (2 * 2) * 4 * (9 + 1)  # the output's 4 x 4 is divided by the stride once more; the bias counts
    relu = 3 * 4 * 4 * 4
    last = 3 * 8 * 8 * 4 * 18
    linear = 3 * 5 * (2 * 4 - 1)
    assert legacy_flops(net, frames=3, size=8) == conv + relu + last + linear


def test_memory_is_that_of_a_real_step() -> None:
    for name, options in (("tsm", {"backbone": "resnet18", "width": 0.125}), ("small", {"motion": "clip"})):
        net = networks.build(name, classes=4, view="rgb", size=32, **options).train()
        own = {t.data_ptr() for t in [*net.parameters(), *net.buffers()]}
        kept: dict[int, object] = {}

        def pack(t: Tensor, own: set[int] = own, kept: dict[int, object] = kept) -> Tensor:
            if t.untyped_storage().data_ptr() not in own:
                kept[t.untyped_storage().data_ptr()] = t.untyped_storage()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = net(torch.rand(1, 3, 4, 32, 32))
        real = sum(s.nbytes() for s in kept.values())  # type: ignore[attr-defined]
        # The CPU may keep its own workspaces or masks of other types; within 2 % of what it keeps.
        assert abs(cost(net, frames=4, size=32).activation_bytes - real) < 0.02 * real
        del out


def test_cost_leaves_the_network_alone() -> None:
    net = networks.build("small", classes=4, view="depth", size=32).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.head.requires_grad_(False)
    first = cost(net, frames=4, size=32)
    assert net.training
    assert not net.head.fc.weight.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())
    assert cost(net, frames=4, size=32) == first
    assert cost(net, frames=8, size=32).macs > 1.9 * first.macs


def test_frozen_parameters_count_as_parameters() -> None:
    net = networks.build("tcn", classes=4, view="imu", channels=6)
    before = cost(net, frames=16, size=1).parameters
    assert cost(net.requires_grad_(False), frames=16, size=1).parameters == before


class Steps(nn.Module):
    """A layer over the frames of a clip, each reduced to its channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, clip: Tensor) -> Tensor:
        x = clip.mean((3, 4)).transpose(1, 2)  # (B, T, C)
        if isinstance(self.layer, nn.RNNCellBase):
            return sum((self.layer(frame)[0].sum() for frame in x.unbind(1)), torch.zeros(()))
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.layer(x[:, :2], key=x, value=x)[0]
        out = self.layer(x)
        return out if isinstance(out, Tensor) else out[0]


@pytest.mark.parametrize(("layer", "want"), [
    (nn.LSTM(6, 5, batch_first=True), 7 * 4 * 5 * (6 + 5)),
    (nn.LSTM(6, 5, proj_size=2, batch_first=True), 7 * (4 * 5 * (6 + 2) + 5 * 2)),
    (nn.GRU(6, 5, num_layers=2, bidirectional=True, batch_first=True), 7 * 2 * 3 * 5 * ((6 + 5) + (10 + 5))),
    (nn.RNN(6, 5, batch_first=True), 7 * 5 * (6 + 5)),
    (nn.LSTMCell(6, 5), 7 * 4 * 5 * (6 + 5)),
    (nn.GRUCell(6, 5), 7 * 3 * 5 * (6 + 5)),
    (nn.MultiheadAttention(6, 2, batch_first=True), (2 + 7 + 7 + 2) * 6 * 6),  # two queries, seven keys and values
    (nn.TransformerEncoderLayer(6, 2, 10, batch_first=True), 7 * (4 * 6 * 6 + 2 * 6 * 10)),
], ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "")
def test_recurrent_layers_and_attention_are_counted(layer: nn.Module, want: int) -> None:
    net = Steps(layer)
    assert cost(net, frames=7, size=3, channels=6).macs == want
    assert net.training


def test_height_and_width_may_differ() -> None:
    net = networks.build("small", classes=4, view="rgb", size=48)
    assert macs(net, 4, (32, 32)) == macs(net, 4, 32)
    assert cost(net, 4, (32, 48)) == cost(net, 4, (48, 32))
    assert macs(net, 4, 32) < macs(net, 4, (32, 48)) < macs(net, 4, 48)


def test_a_network_without_storage_costs_the_same() -> None:
    given = {"classes": 4, "view": "rgb", "size": 32, "width": 0.125, "backbone": "resnet18"}
    with torch.device("meta"):
        ghost = networks.build("tsm", **given)
    assert next(ghost.parameters()).is_meta
    assert cost(ghost, 4, 32) == cost(networks.build("tsm", **given), 4, 32)


def test_one_position_of_one_clip_can_be_trained_on_by_nobody_but_is_counted() -> None:
    net = networks.build("tcn", classes=4, view="imu", channels=6)
    assert 0 < cost(net, frames=1, size=1).activation_bytes < cost(net, frames=16, size=1).activation_bytes


@pytest.mark.parametrize(("net", "arguments", "part"), [
    (nn.Conv3d(2, 3, 1), {}, "Conv3d does not say how many channels it reads"),
    (nn.Conv3d(2, 3, 9), {"channels": 2}, "cannot read a clip of 2 x 8 x 224 x 224"),
    (nn.Conv3d(2, 3, 1), {"channels": 2, "frames": 0}, "2 x 0 x 224 x 224"),
    (nn.Conv3d(2, 3, 1), {"channels": 2, "size": LARGEST}, "their product at most"),
])
def test_clips_that_cannot_be_are_told(net: nn.Module, arguments: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        cost(net, **arguments)


class Decoder(nn.Module):
    """Transposed 4 x 4 convolutions of stride 2 over the frames of a map."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(channels)))

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps.transpose(1, 2).flatten(0, 1))


def test_the_decoders_of_the_msd_paper_are_counted_truly() -> None:
    near = cost(Decoder(64, 32, 1), frames=8, size=56, channels=64)
    far = cost(Decoder(2048, 256, 32, 1), frames=8, size=7, channels=2048)
    assert near.macs + far.macs == 4_370_530_304  # the paper's +4.37 G
    assert near.parameters + far.parameters == 8_553_472  # the paper's +8.5M
