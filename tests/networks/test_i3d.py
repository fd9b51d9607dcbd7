"""I3D: published costs to the digit, names as in real files, every layer against its definition, any extents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.cost import cost, legacy_flops
from modalift.networks.i3d import INCEPTIONS, Pool, Unit, WindowedLogits
from modalift.networks.padding import same_padding

SPECS = Path(__file__).resolve().parents[2] / ".." / "shared" / "specs"
LAYOUTS = SPECS / "state_dicts"
real_layouts = pytest.mark.skipif(not LAYOUTS.exists(), reason="../shared with the real layouts of keys is absent")
real_counts = pytest.mark.skipif(not SPECS.exists(), reason="../shared with the reference counts is absent")


def ghost(classes: int = 400, channels: int = 3, frames: int = 64, **options: Any) -> networks.Recognizer:
    with torch.device("meta"):
        return networks.build("i3d", classes=classes, channels=channels, frames=frames, size=224, **options)


@pytest.mark.parametrize(("classes", "channels", "parameters"), [
    (400, 3, 12_697_264), (400, 2, 12_675_312), (400, 1, 12_653_360), (157, 3, 12_448_189), (83, 3, 12_372_339),
    (25, 3, 12_312_889), (249, 3, 12_542_489),
])
def test_parameters_are_the_published_ones(classes: int, channels: int, parameters: int) -> None:
    assert sum(p.numel() for p in ghost(classes, channels).parameters()) == parameters


@pytest.mark.parametrize(("frames", "macs"), [
    (9, 18_120_016_896), (16, 27_787_978_752), (32, 55_576_367_104), (64, 111_153_143_808), (79, 138_941_532_160),
])
def test_multiply_accumulates_are_the_published_ones(frames: int, macs: int) -> None:
    assert cost(ghost(), frames, 224).macs == macs


def test_figure_of_the_early_counter() -> None:
    assert round(legacy_flops(ghost(), 64, 224) / 1e9, 4) == 88.2005


@real_counts
def test_counts_are_those_of_the_acceptance_file() -> None:
    want = json.loads((SPECS / "acceptance.json").read_text())["I3D_InceptionV1_400_64f"]
    found = cost(ghost(), 64, 224)
    assert (found.parameters, found.macs) == (want["params"], want["conv_linear_MACs"])
    assert round(legacy_flops(ghost(), 64, 224) / 1e9, 4) == want["legacy_no_pool_G"]


@real_layouts
@pytest.mark.parametrize(("file", "classes", "channels"), [
    ("pytorch_i3d_rgb_imagenet_400", 400, 3), ("pytorch_i3d_flow_imagenet_400", 400, 2),
    ("pytorch_i3d_rgb_charades_157", 157, 3),
])
def test_names_and_shapes_are_those_of_real_files(file: str, classes: int, channels: int) -> None:
    own = {k: list(v.shape) for k, v in ghost(classes, channels).state_dict().items() if not k.startswith("prepare.")}
    real = json.loads((LAYOUTS / f"keys_{file}.json").read_text())["keys"]
    assert own == {k.replace("logits.conv3d.", "head.fc.") if k.startswith("logits.") else f"backbone.{k}": shape
                   for k, (shape, _) in real.items()}


@real_layouts
def test_the_symmetric_kind_has_the_shapes_of_mmposes_files() -> None:
    own = ghost(25, padding="symmetric").state_dict()
    keys = json.loads((LAYOUTS / "keys_mmpose_mtut_i3d_nvgesture.json").read_text())["keys"]
    theirs = {k.removeprefix("backbone.rgb."): tuple(shape) for k, (shape, _) in keys.items() if k.startswith("backbone.rgb.")}
    table = json.loads((LAYOUTS / "keymap_hassony2_to_piergiaj.json").read_text())["map_hassony2_to_piergiaj"]
    assert {table[k]: shape for k, shape in theirs.items()} == {
        k.removeprefix("backbone."): tuple(v.shape) for k, v in own.items() if k.startswith("backbone.")}
    assert tuple(keys["cls_head.output_conv.rgb.weight"][0]) == tuple(own["head.fc.weight"].shape)


# ---- literal readings of the definitions ----------------------------------------------------------------------------


def literal_pads(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0.0) -> Tensor:
    pads: list[int] = []
    for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        p = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
        pads = [p // 2, p - p // 2, *pads]
    return F.pad(x, pads, value=value)


class Literal:
    """The network as functions of a state dict, padding before every layer, or with mmpose's fixed padding."""

    def __init__(self, state: dict[str, Tensor], symmetric: bool = False, training: bool = False) -> None:
        self.state, self.symmetric, self.training = state, symmetric, training

    def unit(self, x: Tensor, name: str, kernel: int = 1, stride: int = 1) -> Tensor:
        weight = self.state[f"backbone.{name}.conv3d.weight"]
        if self.symmetric:
            y = F.conv3d(x, weight, None, stride, (2, 3, 3) if kernel == 7 else kernel // 2)
        else:
            y = F.conv3d(literal_pads(x, (kernel,) * 3, (stride,) * 3), weight, None, stride)
        w, b, mean, var = (self.state[f"backbone.{name}.bn.{k}"].reshape(1, -1, 1, 1, 1)
                           for k in ("weight", "bias", "running_mean", "running_var"))
        if self.training:
            mean = y.mean((0, 2, 3, 4), keepdim=True)
            var = y.var((0, 2, 3, 4), unbiased=False, keepdim=True)
        return torch.relu((y - mean) / torch.sqrt(var + (1e-5 if self.symmetric else 1e-3)) * w + b)

    def pool(self, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        if self.symmetric:
            return F.max_pool3d(x, kernel, stride, tuple({1: 0, 2: 0, 3: 1}[k] for k in kernel))
        return F.max_pool3d(literal_pads(x, kernel, stride), kernel, stride)  # zeros, as in the original

    def inception(self, x: Tensor, name: str) -> Tensor:
        return torch.cat([
            self.unit(x, f"{name}.b0"), self.unit(self.unit(x, f"{name}.b1a"), f"{name}.b1b", 3),
            self.unit(self.unit(x, f"{name}.b2a"), f"{name}.b2b", 3),
            self.unit(self.pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b")], 1)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        m: dict[str, Tensor] = {}
        m["Conv3d_1a_7x7"] = x = self.unit(x, "Conv3d_1a_7x7", 7, 2)
        m["MaxPool3d_2a_3x3"] = x = self.pool(x, (1, 3, 3), (1, 2, 2))
        m["Conv3d_2b_1x1"] = x = self.unit(x, "Conv3d_2b_1x1")
        m["Conv3d_2c_3x3"] = x = self.unit(x, "Conv3d_2c_3x3", 3)
        m["MaxPool3d_3a_3x3"] = x = self.pool(x, (1, 3, 3), (1, 2, 2))
        for name in INCEPTIONS:
            if name == "Mixed_4b":
                m["MaxPool3d_4a_3x3"] = x = self.pool(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                m["MaxPool3d_5a_2x2"] = x = self.pool(x, (2, 2, 2), (2, 2, 2))
            m[name] = x = self.inception(x, name)
        return m

    def logits(self, last: Tensor, window: tuple[int, int, int]) -> Tensor:
        y = F.avg_pool3d(last, window, 1)
        return F.conv3d(y, self.state["head.fc.weight"], self.state["head.fc.bias"]).mean((2, 3, 4))


def precise(seed: int = 0, **options: Any) -> networks.Recognizer:
    """A narrow network in float64 whose statistics are not those of nothing."""
    torch.manual_seed(seed)
    net = networks.build("i3d", classes=7, channels=3, width=0.125, mean=(0.0,), std=(1.0,), dropout=0.0, **options).double()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.weight, 1.0, 0.2)
            nn.init.normal_(m.bias, 0.0, 0.2)
            nn.init.normal_(m.running_mean, 0.0, 0.2)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return net


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
def test_same_gives_the_quotient_rounded_up(kernel: int, stride: int) -> None:
    for n in range(1, 40):
        front, behind = same_padding(n, kernel, stride)
        assert 0 <= front <= behind <= front + 1
        if kernel >= stride:
            assert (n + front + behind - kernel) // stride + 1 == -(-n // stride)


@pytest.mark.parametrize("extent", [*range(1, 12), 15, 16])
def test_units_pad_as_the_definition(extent: int) -> None:
    torch.manual_seed(0)
    for kernel, stride in ((7, 2), (3, 1), (1, 1)):
        unit = Unit(2, 3, kernel, stride).double().eval()
        x = torch.randn(2, 2, extent, max(1, 12 - extent), extent + 1, dtype=torch.float64)
        y = F.conv3d(literal_pads(x, (kernel,) * 3, (stride,) * 3), unit.conv3d.weight, None, stride)
        with torch.no_grad():
            found = unit(x)
        torch.testing.assert_close(found, torch.relu(y / (1 + 1e-3) ** 0.5), atol=1e-12, rtol=1e-12)
        assert found.shape[2:] == tuple(-(-n // stride) for n in x.shape[2:])


@pytest.mark.parametrize(("kernel", "stride"), [((1, 3), (1, 2)), ((3, 3), (2, 2)), ((2, 2), (2, 2)), ((3, 3), (1, 1))])
def test_pooling_windows_that_are_cut_equal_zeros_around_the_map(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    torch.manual_seed(0)
    pool = Pool(kernel, stride)
    for t in range(1, 8):
        for n in range(1, 10):
            # Half of it zeros, as behind a ReLU; the gradient behind the ReLU has to agree too.
            signed = torch.randn(2, 3, t, n, 10 - n, dtype=torch.float64, requires_grad=True)
            y = pool(torch.relu(signed))
            want = F.max_pool3d(literal_pads(torch.relu(signed), pool.kernel, pool.stride), pool.kernel, pool.stride)
            assert torch.equal(y, want)
            weight = torch.randn_like(y)
            for a, b in zip(torch.autograd.grad(y, signed, weight), torch.autograd.grad(want, signed, weight), strict=True):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("frames", "height", "width"), [
    (1, 32, 32), (2, 45, 33), (3, 1, 5), (8, 112, 112), (9, 64, 96), (12, 50, 37), (17, 47, 64),
])
def test_every_map_is_the_definition(frames: int, height: int, width: int) -> None:
    net = precise(frames=frames, size=height).eval()
    clip = torch.randn(1, 3, frames, height, width, dtype=torch.float64)
    literal = Literal(net.state_dict())
    with torch.no_grad():
        want, seen = literal.maps(clip), net.observe(clip, list(net.stages))
    assert list(net.stages) == list(want)
    for name, stage in net.stages.items():
        torch.testing.assert_close(seen.maps[name], want[name], atol=1e-10, rtol=1e-10, msg=name)
        assert seen.maps[name].shape[1:] == stage.shape(frames, height, width)
    last = want["Mixed_5c"]
    torch.testing.assert_close(seen.logits, literal.logits(last, (min(2, last.shape[2]), *last.shape[3:])))


@pytest.mark.parametrize(("frames", "size", "window"), [
    (16, 112, (1, 2, 2)), (16, 224, None), (7, 33, None), (12, 50, None), (21, 47, None), (1, 5, None), (2, 17, None),
    (3, 16, None),
])
def test_every_map_of_the_symmetric_kind_is_mmposes(frames: int, size: int, window: tuple[int, int, int] | None) -> None:
    net = precise(padding="symmetric", frames=frames, size=size, window=window).eval()
    clip = torch.randn(1, 3, frames, size, size + 3, dtype=torch.float64)
    literal = Literal(net.state_dict(), symmetric=True)
    with torch.no_grad():
        seen = net.observe(clip, list(net.stages))
        for name, stage in net.stages.items():
            assert seen.maps[name].shape[1:] == stage.shape(frames, size, size + 3), name
        if frames < 7 or size < 17:  # mmpose has no map here
            return
        want = literal.maps(clip)
    for name in net.stages:
        torch.testing.assert_close(seen.maps[name], want[name], atol=1e-10, rtol=1e-10, msg=name)
    last = want["Mixed_5c"]
    torch.testing.assert_close(seen.logits, literal.logits(last, window or (1, *last.shape[3:])))


def test_maps_of_the_symmetric_kind_have_mmposes_extents() -> None:
    stages = precise(padding="symmetric").stages
    assert stages["Conv3d_1a_7x7"].shape(16, 112, 112)[1:] == (7, 56, 56)
    assert stages["Mixed_5c"].shape(16, 112, 112)[1:] == (2, 3, 3)
    assert stages["Mixed_5c"].shape(16, 224, 224)[1:] == (2, 7, 7)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_has_the_gradients_of_the_definition(checkpointing: bool, channels_last: bool) -> None:
    net = precise(frames=8, size=64, checkpointing=checkpointing).train()
    if channels_last:
        net = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    state = {k: v.detach().clone().requires_grad_(v.is_floating_point()) for k, v in net.state_dict().items()}
    clip = torch.randn(2, 3, 8, 64, 64, dtype=torch.float64)
    literal = Literal(state, training=True)
    want = literal.logits(literal.maps(clip)["Mixed_5c"], (1, 2, 2))
    found = net(clip)
    torch.testing.assert_close(found, want, atol=1e-9, rtol=1e-9)
    for out in (found, want):
        (out.square().sum() + out.logsumexp(1).sum()).backward()
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, state[key].grad, atol=1e-9, rtol=1e-7, msg=key)


@pytest.mark.parametrize("training", [False, True])
def test_single_precision_is_near_the_definition(training: bool) -> None:
    # Its convolutions are other code than those of float64, and depend on the order of axes in memory.
    net, clip = precise(frames=8, size=96), torch.randn(2, 3, 8, 96, 96, dtype=torch.float64)
    want = Literal(net.state_dict(), training=training).maps(clip)
    seen = net.float().train(training).observe(clip.float(), list(net.stages))
    for name in net.stages:
        torch.testing.assert_close(seen.maps[name].double(), want[name], atol=2e-3, rtol=2e-3, msg=name)


def test_statistics_move_as_published() -> None:
    for padding, eps, momentum in (("same", 1e-3, 0.01), ("symmetric", 1e-5, 0.1)):
        norms = [m for m in precise(padding=padding).modules() if isinstance(m, nn.BatchNorm3d)]
        assert len(norms) == 57
        assert {(m.eps, m.momentum) for m in norms} == {(eps, momentum)}


@pytest.mark.parametrize("frames", [2, 3, 7, 8])
def test_head_is_the_published_one(frames: int) -> None:
    torch.manual_seed(0)
    head, x = WindowedLogits(6, 5).double().eval(), torch.randn(2, 6, frames, 7, 7, dtype=torch.float64)
    weight = head.fc.weight.flatten(1).T
    each = [(x[:, :, t] + x[:, :, t + 1]).mean((2, 3)) / 2 @ weight + head.fc.bias for t in range(frames - 1)]
    torch.testing.assert_close(head(x), torch.stack(each).mean(0))


def test_head_reads_any_map() -> None:
    head = WindowedLogits(6, 5).eval()
    for shape in ((1, 1, 1), (1, 7, 7), (2, 4, 3), (4, 8, 8)):
        assert head(torch.rand(2, 6, *shape)).shape == (2, 5)
    x = torch.rand(2, 6, 1, 3, 4)
    torch.testing.assert_close(head(x), x.mean((2, 3, 4)) @ head.fc.weight.flatten(1).T + head.fc.bias)


def test_dropout_acts_in_training_only() -> None:
    head, x = WindowedLogits(64, 3, dropout=0.9), torch.rand(1, 64, 3, 2, 2)
    assert not torch.equal(head.train()(x), head(x))
    assert torch.equal(head.eval()(x), head(x))


# ---- use ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_shapes_that_break_the_originals_work(padding: str) -> None:
    net = networks.build("i3d", classes=4, channels=3, width=0.125, padding=padding)
    for frames, size in ((8, 112), (1, 32), (2, 33), (3, 7), (1, 1), (5, 100)):
        clip = torch.rand(1, 3, frames, size, size) * 255
        assert net.eval()(clip).shape == (1, 4)
        assert net.train()(torch.cat([clip, 255 - clip])).isfinite().all()


def test_training_keeps_less_than_the_published_code() -> None:
    # A clip of 8 x 112 x 112: the plain implementation keeps 121 MiB of two (measured), and much less is left to win.
    kept = cost(ghost(), 8, 112).activation_bytes
    assert 2 * kept < 0.75 * 121 * 2**20
    assert cost(ghost(checkpointing=True), 8, 112).activation_bytes < 0.25 * kept


def test_recomputing_gives_every_map() -> None:
    plain, saving = (precise(checkpointing=r).train() for r in (False, True))
    clip = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    for keep in (["Conv3d_1a_7x7", "Mixed_4f"], list(plain.stages)):
        a, b = plain.observe(clip, keep), saving.observe(clip, keep)
        for name in keep:
            torch.testing.assert_close(a.maps[name], b.maps[name], msg=name)
        torch.testing.assert_close(a.logits, b.logits)


def test_a_training_step_compiles_without_a_break() -> None:
    torch._dynamo.reset()
    net, clip = precise(frames=4, size=32).train(), torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(clip), net(clip))


def test_a_training_step_in_half_precision_is_near() -> None:
    net = precise(frames=4, size=64).float().train()
    clip = torch.randn(4, 3, 4, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(clip)
    assert (half.float() - net(clip)).abs().max() < 0.1 * net(clip).abs().max() + 0.05
    half.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("options", "part"), [
    ({"width": 0.0}, "width = 0"), ({"padding": "sme"}, "'same' or 'symmetric'"),
    ({"window": (0, 2, 2)}, r"window\[0\] = 0: must be 1 or more"),
])
def test_refuses_what_makes_no_sense(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build("i3d", classes=3, view="rgb", **options)


def test_all_of_it_in_half_precision() -> None:
    net = networks.build("i3d", classes=3, channels=3, width=0.125).bfloat16().eval()
    out = net(torch.randint(0, 255, (1, 3, 8, 33, 40), dtype=torch.uint8))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
