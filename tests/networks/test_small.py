"""``small`` and its heads: literal readings of their equations, the future unseen, and files of earlier versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.heads import BinnedHead, CausalHead, OrderedHead

#: A network's names and shapes, of 5 classes and one channel: what the files of shipped bundles hold.
SHAPES = {
    "prepare.mean": (1,), "prepare.std": (1,), "backbone.conv1.weight": (16, 1, 3, 3),
    "backbone.layer1.0.conv1.weight": (16, 16, 3, 3), "backbone.layer1.0.conv2.weight": (16, 16, 3, 3),
    "backbone.layer2.0.conv1.weight": (32, 16, 3, 3), "backbone.layer2.0.conv2.weight": (32, 32, 3, 3),
    "backbone.layer2.0.downsample.0.weight": (32, 16, 1, 1),
    "backbone.layer3.0.conv1.weight": (64, 32, 3, 3), "backbone.layer3.0.conv2.weight": (64, 64, 3, 3),
    "backbone.layer3.0.downsample.0.weight": (64, 32, 1, 1),
    "head.conv.weight": (128, 64, 3), "head.fc.weight": (5, 512), "head.fc.bias": (5,),
}


def warmed(head: BinnedHead) -> BinnedHead:
    """In float64, with statistics that are not those of nothing, in evaluation."""
    torch.manual_seed(0)
    head.double()
    with torch.no_grad():
        for value in (head.bn.running_mean, head.bn.running_var, head.bn.weight, head.bn.bias):
            assert value is not None
            value.uniform_(0.5, 1.5)
    return head.eval()


def literal_cells(x: np.ndarray, grid: int) -> np.ndarray:
    """``(C, T, H, W)`` to ``(C * grid**2, T)``: the mean of each cell, whose edges are rounded outwards."""
    channels, frames, height, width = x.shape
    out = np.zeros((channels, grid, grid, frames))
    for i in range(grid):
        for j in range(grid):
            top, bottom = i * height // grid, -(-(i + 1) * height // grid)
            left, right = j * width // grid, -(-(j + 1) * width // grid)
            out[:, i, j] = x[:, :, top:bottom, left:right].mean((2, 3))
    return out.reshape(-1, frames)


def literal_head(head: BinnedHead, x: np.ndarray, behind: int, window: int) -> np.ndarray:
    """z of one clip ``(C, T, H, W)``: the kernel's frames are t - behind .. t - behind + 2; the last ``window`` frames."""
    bn, frames = head.bn, literal_cells(x, head.grid)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    kernel = head.conv.weight.detach().numpy()
    mean, var = bn.running_mean.numpy(), bn.running_var.numpy()
    gain, offset = bn.weight.detach().numpy(), bn.bias.detach().numpy()
    u = np.zeros((head.hidden, max(window, frames.shape[1])))
    first = u.shape[1] - frames.shape[1]  # what was before the clip is zero
    for t in range(frames.shape[1]):
        total = np.zeros(head.hidden)
        for j in range(3):
            if 0 <= t - behind + j < frames.shape[1]:
                total += kernel[:, :, j] @ frames[:, t - behind + j]
        u[:, first + t] = np.maximum((total - mean) / np.sqrt(var + bn.eps) * gain + offset, 0)
    u = u[:, u.shape[1] - window:]
    means = [u[:, i * window // head.bins: -(-(i + 1) * window // head.bins)].mean(1) for i in range(head.bins)]
    z: np.ndarray = head.fc.weight.detach().numpy() @ np.stack(means, 1).reshape(-1) + head.fc.bias.detach().numpy()
    return z


@pytest.mark.parametrize("grid", [1, 2, 3])
@pytest.mark.parametrize("shape", [(16, 6, 6), (5, 4, 7), (1, 1, 2), (3, 5, 3)])
def test_heads_are_their_equations(shape: tuple[int, int, int], grid: int) -> None:
    x = torch.randn(2, 4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for head, behind, window in ((OrderedHead(4, 3, bins=4, hidden=6, grid=grid), 1, shape[0]),
                                 (CausalHead(4, 3, frames=8, bins=3, grid=grid), 2, 8)):
        want = np.stack([literal_head(warmed(head), clip.numpy(), behind, window) for clip in x])
        np.testing.assert_allclose(head(x).detach().numpy(), want, rtol=1e-6, atol=1e-7)  # spans are float32


def test_both_heads_have_the_same_parameters() -> None:
    one, other = OrderedHead(8, 5), CausalHead(8, 5, frames=6)
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_a_grid_knows_where() -> None:
    x = torch.randn(1, 8, 4, 6, 6)
    flat, placed = OrderedHead(8, 3).eval(), OrderedHead(8, 3, grid=3).eval()
    torch.testing.assert_close(flat(x), flat(x.roll(2, 4)))
    assert (placed(x) - placed(x.roll(2, 4))).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"grid": 3}, {"causal": True}, {"causal": True, "grid": 2}])
def test_heads_pass_gradcheck(options: dict[str, Any]) -> None:
    causal, grid = options.get("causal", False), options.get("grid", 1)
    head = warmed(CausalHead(2, 2, frames=4, bins=2, grid=grid) if causal else OrderedHead(2, 2, bins=2, grid=grid))
    x = torch.randn(1, 2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: head(t), x)


def test_names_and_shapes_are_those_of_shipped_files() -> None:
    for options in ({}, {"causal": True}):
        net = networks.build("small", classes=5, view="depth", frames=8, size=48, **options)
        found = {k: tuple(v.shape) for k, v in net.state_dict().items() if ".bn" not in k and "downsample.1" not in k}
        assert found == SHAPES


@pytest.mark.parametrize(("options", "parameters", "macs"), [
    ({}, 115_931, 111_588_864), ({"grid": 3}, 312_539, 114_734_592), ({"width": 32}, 433_563, 441_019_392),
    ({"blocks": 2}, 213_147, 238_990_848),
])
def test_costs_of_a_depth_clip(options: dict[str, Any], parameters: int, macs: int) -> None:
    net = networks.build("small", classes=27, view="depth", frames=16, size=48, motion="clip", **options)
    found = networks.cost(net, 16, 48)
    assert (found.parameters, found.macs) == (parameters, macs)


def stream(net: networks.Recognizer, clip: Tensor) -> list[Tensor]:
    """Logits after every frame."""
    state, said = None, []
    for frame in clip.split(1, dim=2):
        logits, state = net.step(frame, state)
        said.append(logits)
    return said


@pytest.mark.parametrize("grid", [1, 3])
def test_a_stream_forgets_what_left_its_window(grid: int) -> None:
    torch.manual_seed(0)
    net = networks.build("small", classes=4, view="depth", frames=4, size=16, width=8, causal=True, grid=grid).eval()
    clip = torch.rand(1, 1, 20, 16, 16) * 4000
    other = clip.clone()
    other[:, :, :8] = 500
    with torch.no_grad():
        one, two = stream(net, clip), stream(net, other)
    # The head's window of 4 frames, its convolution 2 before, and one more frame for each block's shift.
    gaps = [float((a - b).abs().max()) for a, b in zip(one, two, strict=True)]
    assert gaps[7] > 1e-4
    assert gaps[8 + 7] > 0
    assert max(gaps[8 + 8:]) < 1e-6


def test_a_stream_of_half_precision_is_near() -> None:
    torch.manual_seed(0)
    net = networks.build("small", classes=4, view="depth", frames=4, size=16, width=8, causal=True, motion="running").eval()
    clip = torch.rand(1, 1, 6, 16, 16) * 4000
    with torch.no_grad():
        want = stream(net, clip)[-1]
        with torch.autocast("cpu", torch.bfloat16):
            found = stream(net, clip)[-1]
    assert (found.float() - want).abs().max() < 0.1 * want.abs().max() + 0.05


def test_a_grid_survives_export(tmp_path: Path) -> None:
    net = networks.build("small", classes=4, view="depth", frames=4, size=20, width=8, grid=3).eval()
    clip = torch.rand(2, 1, 4, 20, 20) * 4000  # a map of 3 x 3 after 20 -> 10 -> 5 -> 3
    with torch.no_grad():
        program = torch.export.export(net, (clip,))
        torch.testing.assert_close(program.module()(clip), net(clip), atol=1e-5, rtol=1e-5)


def test_a_grid_of_nothing_is_refused() -> None:
    with pytest.raises(ModaliftError, match="grid = 0: must be 1 or more"):
        networks.build("small", classes=3, view="depth", grid=0)


@pytest.mark.parametrize("options", [{"frame": torch.zeros(1, 1, 16, 16)}, {"frame": torch.zeros(1, 2, 1, 16, 16)}])
def test_a_frame_of_the_wrong_shape_is_told(options: dict[str, Tensor]) -> None:
    net = networks.build("small", classes=3, view="depth", frames=4, size=16, causal=True)
    with pytest.raises(ModaliftError, match=r"takes frames \(B, 1, 1, H, W\)"):
        net.step(options["frame"])
