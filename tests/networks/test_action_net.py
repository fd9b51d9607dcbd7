"""ACTION-Net: its equations read literally, its published counts and names, its factor of 4.5, its memory.

Names are those of the public code's files but for where the module stands: there it wraps a block's first convolution,
here it stands beside it, so that ImageNet's weights keep their names. From the published name to ours:

    module.base_model.                  ->  backbone.
    .conv1.net.weight                   ->  .conv1.weight
    .conv1.action_<layer>               ->  .action.action_<layer>
    module.new_fc.                      ->  head.fc.
"""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.action_net import Action, ActionResNet
from modalift.networks.cost import cost, legacy_flops
from modalift.networks.shift import shift

LAYOUTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs" / "state_dicts"


def literal(m: Action, x: Tensor, frames: int, training: bool) -> Tensor:
    """The paper's equations frame by frame: three excited copies, added."""
    weight = dict(m.named_parameters())
    clip = x.unflatten(0, (-1, frames))  # (B, T, C, H, W)
    zero = torch.zeros_like(clip[:, 0])
    k = weight["action_shift.weight"][:, 0, :, None, None]
    moved = torch.stack([k[:, 0] * (clip[:, t - 1] if t else zero) + k[:, 1] * clip[:, t]
                         + k[:, 2] * (clip[:, t + 1] if t + 1 < frames else zero) for t in range(frames)], 1)

    where = F.conv3d(moved.mean(2).unsqueeze(1), weight["action_p1_conv1.weight"], padding=1)[:, 0, :, None].sigmoid()

    pooled = moved.mean((3, 4)) @ weight["action_p2_squeeze.weight"].flatten(1).T  # (B, T, C/16)
    pooled = F.conv1d(pooled.transpose(1, 2), weight["action_p2_conv1.weight"], padding=1).relu().transpose(1, 2)
    channel = (pooled @ weight["action_p2_expand.weight"].flatten(1).T).sigmoid()[..., None, None]

    z = torch.einsum("btchw,kc->btkhw", moved, weight["action_p3_squeeze.weight"].flatten(1))
    bn = m.action_p3_bn1
    mean, var = (z.mean((0, 1, 3, 4)), z.var((0, 1, 3, 4), correction=0)) if training else (bn.running_mean, bn.running_var)
    affine = ((a[:, None, None]) for a in (mean, var, bn.weight, bn.bias))
    z = (lambda mu, v, g, b: (z - mu) / (v + bn.eps).sqrt() * g + b)(*affine)
    ahead = F.conv2d(z.flatten(0, 1), weight["action_p3_conv1.weight"], padding=1, groups=z.shape[2]).unflatten(0, (-1, frames))
    d = torch.zeros_like(z)
    d[:, :-1] = ahead[:, 1:] - z[:, :-1]
    motion = (d.mean((3, 4)) @ weight["action_p3_expand.weight"].flatten(1).T).sigmoid()[..., None, None]

    return sum((moved + moved * mask for mask in (where, channel, motion)), torch.zeros_like(moved)).flatten(0, 1)


def scrambled(channels: int) -> Action:
    torch.manual_seed(0)
    m = Action(channels).double()
    for w in m.parameters():
        nn.init.normal_(w, 0.3, 0.5)
    nn.init.uniform_(m.action_p3_bn1.running_var, 0.5, 2)
    nn.init.normal_(m.action_p3_bn1.running_mean)
    return m


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("frames", "conv"), [
    (1, nn.Conv2d(32, 8, 1, bias=False)), (2, nn.Conv2d(32, 8, 3, 2, 1, bias=False)), (5, nn.Conv2d(32, 8, 1, bias=False)),
])
def test_module_and_gradients_are_the_equations(frames: int, conv: nn.Conv2d, order: torch.memory_format) -> None:
    m, conv = scrambled(32), copy.deepcopy(conv).double()
    x = torch.randn(2 * frames, 32, 5, 4, dtype=torch.float64).to(memory_format=order).requires_grad_()
    torch.testing.assert_close(m.eval()(x, frames), literal(m, x, frames, training=False))
    torch.testing.assert_close(m.eval().convolve(conv, x, frames), conv(literal(m, x, frames, training=False)))
    m.train()
    y, want = m.convolve(conv, x, frames), conv(literal(m, x, frames, training=True))
    torch.testing.assert_close(y, want)
    learn = [x, conv.weight, *m.parameters()]
    grad = torch.randn_like(y)
    for _ in range(2):  # a graph that is kept serves twice
        found = torch.autograd.grad(y, learn, grad, retain_graph=True)
        for name, a, b in zip(["x", "conv", *dict(m.named_parameters())],
                              found, torch.autograd.grad(want, learn, grad, retain_graph=True), strict=True):
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("size", [4, 20])  # small frames are convolved in another way
def test_gradients_are_the_equations_in_single_precision(size: int) -> None:
    m, conv = scrambled(64).train(), nn.Conv2d(64, 16, 1, bias=False).double()
    x = torch.randn(8, 64, size, size, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    want = torch.autograd.grad(conv(literal(m, x, 4, training=True)).square().mean(), [x, conv.weight, *m.parameters()])
    m, conv, x = m.float(), conv.float(), x.detach().float().requires_grad_()
    found = torch.autograd.grad(m.convolve(conv, x, 4).square().mean(), [x, conv.weight, *m.parameters()])
    for name, a, b in zip(["x", "conv", *dict(m.named_parameters())], found, want, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm(), name


def test_hooks_on_the_convolution_are_called() -> None:
    m, conv, seen = Action(16).train(), nn.Conv2d(16, 4, 1, bias=False), []
    conv.register_forward_hook(lambda *_: seen.append(1))
    m.convolve(conv, torch.randn(4, 16, 3, 3), 2).sum().backward()
    assert seen


def test_gradients_pass_gradcheck() -> None:
    m, conv = scrambled(16).train(), nn.Conv2d(16, 2, 1, bias=False).double()
    m.action_p3_bn1.track_running_stats = False
    x = torch.randn(3, 16, 2, 3, dtype=torch.float64, requires_grad=True)
    learn = (x, conv.weight, *m.parameters())
    assert torch.autograd.gradcheck(lambda *_: m.convolve(conv, x, 3), learn)


def test_what_is_frozen_gets_no_gradient_and_the_rest_its_own() -> None:
    m, conv = scrambled(16).train(), nn.Conv2d(16, 4, 1, bias=False).double()
    x = torch.randn(4, 16, 3, 3, dtype=torch.float64)
    for frozen in (m.action_shift, m.action_p2_squeeze, m.action_p3_bn1, m.action_p3_squeeze, conv):
        frozen.requires_grad_(False)
        learn = [w for w in (*m.parameters(), *conv.parameters()) if w.requires_grad]
        found = torch.autograd.grad(m.convolve(conv, x, 2).square().sum(), learn)
        want = torch.autograd.grad(conv(literal(m, x, 2, training=True)).square().sum(), learn)
        torch.testing.assert_close(found, want)
        m.zero_grad()
        conv.zero_grad()
        m.convolve(conv, x, 2).sum().backward()
        assert all(w.grad is None for w in frozen.parameters())
        frozen.requires_grad_(True)


def test_training_is_near_in_half_precision() -> None:
    torch.manual_seed(1)
    m, conv = Action(32).train(), nn.Conv2d(32, 8, 1, bias=False)
    x = torch.randn(8, 32, 6, 6).to(memory_format=torch.channels_last)
    plain, half = x.clone().requires_grad_(), x.clone().requires_grad_()
    m.convolve(conv, plain, 4).square().mean().backward()
    wanted = {k: w.grad.clone() for k, w in m.named_parameters()}  # type: ignore[union-attr]
    m.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y = m.convolve(conv, half, 4)
        assert y.dtype is torch.bfloat16
        y.square().mean().backward()
    for key, want, found in [("x", plain.grad, half.grad), *((k, wanted[k], w.grad) for k, w in m.named_parameters())]:
        assert found is not None
        assert want is not None
        assert (found - want).norm() < 0.1 * want.norm() + 1e-3, key


def test_it_multiplies_its_input_by_four_and_a_half_at_the_start() -> None:
    torch.manual_seed(0)
    trunk = ActionResNet(3, "resnet50")
    for block in (trunk.layer1[1], trunk.layer4[1]):  # type: ignore[index]
        x = torch.randn(16, block.conv1.in_channels, 14, 14)
        with torch.no_grad():
            gain = block.action(x, 8) / shift(x, 8)
        assert abs(gain.nanmedian() - 4.5) < 0.02
        assert (gain.nanquantile(torch.tensor([0.001, 0.999])) - 4.5).abs().max() < 0.4


def test_a_step_moves_statistics_once_and_a_compiled_one_is_the_same() -> None:
    torch.manual_seed(0)
    net = networks.build("action_net", backbone="resnet8", width=0.5, classes=3, channels=3, dropout=0.0).train()
    clip = torch.rand(2, 3, 4, 40, 40) * 255
    other = copy.deepcopy(net)
    net(clip).logsumexp(1).sum().backward()
    torch._dynamo.reset()
    torch.compile(other, fullgraph=True, backend="eager")(clip).logsumexp(1).sum().backward()
    for (key, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")
    for (key, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, key=key: f"{key}: {text}")


def test_frozen_statistics_are_warned_of_once() -> None:
    clip = torch.rand(1, 3, 2, 32, 32)

    def built() -> networks.Recognizer:
        return networks.build("action_net", backbone="resnet8", width=0.25, classes=3, channels=3).train()

    def told(net: networks.Recognizer) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            net(clip)
        assert all("frozen BatchNorm" in str(w.message) and "4.5" in str(w.message) for w in caught)
        return len(caught)

    assert told(built()) == 0
    assert told(built().requires_grad_(False)) == 0  # nothing learns, but the statistics still follow
    assert told(built().eval()) == 0
    still, fixed = built(), built()
    for m in still.backbone.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    for m in fixed.backbone.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.requires_grad_(False)
    for net in (still, fixed):
        assert told(net) == 1
        assert told(net) == 0


@pytest.mark.parametrize(("options", "part"), [
    ({"backbone": "resnet81"}, "did you mean 'resnet8'"), ({"width": 0.0}, "width = 0"), ({"shift_div": 1}, "shift_div = 1"),
])
def test_it_refuses_what_makes_no_sense(options: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build("action_net", classes=3, view="rgb", **options)


def test_counts_are_the_published_ones() -> None:
    net = networks.build("action_net", classes=83, channels=3)
    found = cost(net, frames=8, size=224)
    assert (found.parameters, found.macs) == (27_895_919, 34_435_490_416)
    assert round(legacy_flops(net, frames=8, size=224) / 1e9, 4) == 29.8063  # 29.8 in the paper of MSD
    assert found.parameters - 23_678_099 == 4_217_820  # what the modules add to TSM


@pytest.mark.parametrize(("classes", "millions", "giga"), [
    (25, 27.7771, 34.4345), (27, 27.7812, 34.4346), (174, 28.0824, 34.4370), (249, 28.2361, 34.4382),
])
def test_counts_of_other_numbers_of_classes(classes: int, millions: float, giga: float) -> None:
    found = cost(networks.build("action_net", classes=classes, channels=3), frames=8, size=224)
    assert (round(found.parameters / 1e6, 4), round(found.macs / 1e9, 4)) == (millions, giga)


def test_a_step_keeps_at_most_six_tenths_of_what_the_public_code_keeps() -> None:
    # 606.6 MiB at two clips of 8 x 112 x 112, re-measured with a plain network of the same operations.
    net = networks.build("action_net", classes=83, channels=3)
    assert 2 * cost(net, frames=8, size=112).activation_bytes < 0.6 * 606.6 * 2**20


@pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")
@pytest.mark.parametrize(("layout", "classes"), [("egogesture83", 83), ("jester27", 27)])
def test_names_and_shapes_are_those_of_published_files(layout: str, classes: int) -> None:
    keys = json.loads((LAYOUTS / f"keys_actionnet_r50_{layout}_8f.json").read_text())["keys"]
    renamed = {}
    for key, (shape, _) in keys.items():
        key = key.removeprefix("module.").replace("base_model.", "backbone.").replace("new_fc.", "head.fc.")
        renamed[key.replace(".conv1.net.", ".conv1.").replace(".conv1.action_", ".action.action_")] = tuple(shape)
    own = networks.build("action_net", classes=classes, channels=3).state_dict()
    assert {k: tuple(v.shape) for k, v in own.items() if not k.startswith("prepare.")} == renamed
