"""Convolutional LSTMs: the published counts, and the steps of their papers written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks.conv_lstm import (
    AttentionConvLSTM,
    ConvLSTM,
    GatedConvLSTM,
    Res3DConvLSTM,
    hard_sigmoid,
)
from modalift.networks.cost import cost
from modalift.networks.padding import pad_same


@pytest.mark.parametrize(("cell", "classes", "parameters", "macs"), [
    ("gated", 249, 12_514_873, 154_188_678_144), ("gated", 83, 12_344_723, 154_188_508_160),
    ("attention_input", 249, 12_653_113, 155_919_549_440), ("attention_input", 83, 12_482_963, 155_919_379_456),
    ("standard", 249, 20_894_265, 269_152_191_488), ("standard", 83, 20_724_115, 269_152_021_504),
    ("standard", 25, 20_664_665, 269_151_962_112),
])
def test_costs(cell: str, classes: int, parameters: int, macs: int) -> None:
    with torch.device("meta"):
        net = networks.build("conv_lstm", classes=classes, frames=32, size=112, cell=cell)
    found = cost(net, 32, 112)
    assert (found.parameters, found.macs) == (parameters, macs)


@pytest.mark.parametrize(("cell", "classes", "millions"), [
    ("gated", 249, 12.515), ("gated", 83, 12.345), ("attention_input", 249, 12.653), ("attention_input", 83, 12.483),
    ("standard", 249, 20.894), ("standard", 83, 20.724), ("standard", 25, 20.665),
])
def test_parameters_to_the_digits_that_were_measured(cell: str, classes: int, millions: float) -> None:
    with torch.device("meta"):
        net = networks.build("conv_lstm", classes=classes, cell=cell)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 3) == millions


def test_operations_to_the_digits_that_were_measured() -> None:
    with torch.device("meta"):
        attention = networks.build("conv_lstm", classes=249, cell="attention_input")
        standard = networks.build("conv_lstm", classes=249, cell="standard")
    assert round(cost(attention, 32, 112).macs / 1e9, 1) == 155.9
    assert round(cost(attention, 16, 112).macs / 1e9, 2) == 77.96
    assert round(cost(standard, 32, 112).macs / 1e9, 1) == 269.2


def test_maps_of_the_paper() -> None:
    stages = networks.build("conv_lstm", classes=2).stages
    assert stages["res4"].shape(32, 112, 112) == stages["lstm2"].shape(32, 112, 112) == (256, 16, 28, 28)
    assert stages["mobile"].shape(32, 112, 112) == (1024, 16, 4, 4)


def test_padding_is_that_of_the_reference() -> None:
    for n in range(1, 9):
        for k in (1, 3, 7):
            for s in (1, 2):
                if k < s:
                    continue
                x = torch.arange(1.0, n + 1)
                y = pad_same(x, [k], [s])
                assert len(y.unfold(0, k, s)) == -(-n // s)  # ceil(n / s) outputs, and no pixel too many
                left = next(i for i, v in enumerate(y) if v != 0)
                assert len(y) - n - left - left in (0, 1)  # the odd one stands at the end
    assert pad_same(torch.ones(1, 1, 2, 112, 112), (3, 7, 7), (1, 2, 2)).shape == (1, 1, 4, 117, 117)
    assert pad_same(torch.ones(112), [7], [2])[:2].tolist() == [0, 0]


def sigmoid(x: Tensor) -> Tensor:
    return torch.where(x < -2.5, 0.0, torch.where(x > 2.5, 1.0, 0.2 * x + 0.5))


def separable(layer: Any, x: Tensor) -> Tensor:
    """Every channel with its own kernel, then every pixel with one matrix."""
    kernel, matrix = layer.depthwise.weight, layer.pointwise.weight[:, :, 0, 0]
    padded = functional.pad(x, (1, 1, 1, 1))
    y = torch.zeros_like(x)
    for i in range(3):
        for j in range(3):
            y += kernel[None, :, 0, i, j, None, None] * padded[:, :, i: i + x.shape[2], j: j + x.shape[3]]
    z = torch.einsum("oc,bchw->bohw", matrix, y)
    return z if layer.pointwise.bias is None else z + layer.pointwise.bias[None, :, None, None]


def literal_gated(m: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    mean_x, mean_h = x.mean((2, 3)), h.mean((2, 3))
    size, gates = m.hidden, []
    for g in range(3):  # i, f, o
        rows = slice(g * size, (g + 1) * size)
        z = mean_x @ m.input_gates.weight[rows].T + mean_h @ m.recurrent_gates.weight[rows].T + m.input_gates.bias[rows]
        gates.append(sigmoid(z)[:, :, None, None])
    candidate = torch.tanh(separable(m.input, x) + separable(m.recurrent, h))
    c = gates[1] * c + gates[0] * candidate
    return gates[2] * torch.tanh(c), c


def literal_attention(m: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    u = torch.tanh(separable(m.input_attention, x) + separable(m.recurrent_attention, h))
    score = functional.conv2d(u, m.attention.weight, padding=1)
    weight = torch.exp(score) / torch.exp(score).sum((2, 3), keepdim=True)
    return literal_gated(m, weight * x, h, c)


def literal_standard(m: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    size, z = m.hidden, []
    for g in range(4):  # i, f, candidate, o
        rows = slice(g * size, (g + 1) * size)
        z.append(functional.conv2d(x, m.input.weight[rows], m.input.bias[rows], padding=1)
                 + functional.conv2d(h, m.recurrent.weight[rows], padding=1))
    c = sigmoid(z[1]) * c + sigmoid(z[0]) * torch.tanh(z[2])
    return sigmoid(z[3]) * torch.tanh(c), c


@pytest.mark.parametrize(("cell", "literal"), [
    (GatedConvLSTM, literal_gated), (AttentionConvLSTM, literal_attention), (ConvLSTM, literal_standard)])
@pytest.mark.parametrize("frames", [1, 4])
def test_steps_are_those_of_the_papers(cell: Any, literal: Any, frames: int) -> None:
    torch.manual_seed(0)
    layer = cell(6, 5).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()  # gates all over their range, closed and open ones too
        x = torch.randn(2, 6, frames, 5, 7, dtype=torch.float64)
        h = c = torch.zeros(2, 5, 5, 7, dtype=torch.float64)
        out = layer(x)
        assert out.shape == (2, 5, frames, 5, 7)
        for t in range(frames):
            h, c = literal(layer, x[:, :, t], h, c)
            torch.testing.assert_close(out[:, :, t], h)


def test_the_gates_sigmoid() -> None:
    assert hard_sigmoid(torch.tensor([-9.0, -2.5, 0.0, 1.0, 2.5, 9.0])).tolist() == pytest.approx([0, 0, 0.5, 0.7, 1, 1])


def test_frames_see_only_the_past_behind_the_convolutions() -> None:
    torch.manual_seed(0)
    cells: list[Any] = [GatedConvLSTM, AttentionConvLSTM, ConvLSTM]
    for cell in cells:
        layer = cell(4, 4)
        x = torch.randn(1, 4, 5, 3, 3)
        y = x.clone()
        y[:, :, 3:] = 0
        with torch.no_grad():
            torch.testing.assert_close(layer(x)[:, :, :3], layer(y)[:, :, :3])
            assert not torch.allclose(layer(x)[:, :, 4], layer(y)[:, :, 4])


def test_starts() -> None:
    gated: Any = Res3DConvLSTM(3, "attention_input", width=1 / 32)
    for layer in (gated.lstm1, gated.lstm2):
        assert (layer.input_gates.weight == 1 / 8).all()
        assert (layer.recurrent_gates.weight == 1 / 8).all()
        assert (layer.input_gates.bias == 0).all()
    standard: Any = Res3DConvLSTM(3, "standard", width=1 / 32)
    assert standard.lstm1.input.bias.view(4, -1)[:, 0].tolist() == [0, 1, 0, 0]  # the forget gate is open


def test_bad_options() -> None:
    with pytest.raises(ModaliftError, match="'gated', 'attention_input' or 'standard'"):
        networks.build("conv_lstm", classes=5, cell="gatd")
    with pytest.raises(ModaliftError, match="did you mean 'gated'"):
        Res3DConvLSTM(3, "gatd")
    with pytest.raises(ModaliftError, match="width = 0: must be above 0"):
        networks.build("conv_lstm", classes=5, width=0)
