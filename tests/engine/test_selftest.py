"""The self-test of convolutions: a wrong kind is found, the safe path is taken, results are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from modalift.engine import convolutions, selftest
from modalift.engine.convolutions import Kind
from modalift.engine.distributed import to_device
from modalift.errors import ModaliftError
from modalift.networks.skip import SlicedConv2d, skip_convolution

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return selftest.cache_file()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Kind]:
    """Kinds that were examined, in this process; those of channels-last maps and a stride of 2 are wrong."""
    seen: list[Kind] = []

    def examine(kinds: list[Kind]) -> dict[Kind, bool]:
        seen.extend(kinds)
        return {k: not (k.maps_last and k.stride[0] == 2) for k in kinds}

    monkeypatch.setattr(selftest, "examine", examine)
    return seen


def layers() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1))
    to_device(net, CPU)
    return net


def kinds() -> list[Kind]:
    many = [nn.Conv1d(2, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 3, 1, padding="same"),
            nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.Conv3d(2, 3, (1, 3, 3), (1, 2, 2))]
    return [k for layer in many for k in selftest.kinds_of(layer, torch.float32)]


def test_every_kind_is_right_here_and_in_a_process_of_its_own() -> None:
    assert all(convolutions.is_right(k) for k in kinds())
    assert selftest.examine(kinds()) == dict.fromkeys(kinds(), True)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_wrong_result_is_found(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = convolutions._computed

    def off(kind: Kind, x: torch.Tensor, *rest: torch.Tensor) -> list[torch.Tensor]:
        found = computed(kind, x, *rest)
        if x.dtype == torch.float32:
            found[at] = found[at] * 1.01
        return found

    monkeypatch.setattr(convolutions, "_computed", off)
    assert list(convolutions.answers(kinds())) == [False]  # and ends there


def test_a_crash_is_put_on_the_kind_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that dies of four groups, says "wrong" of transposed kinds and ends there, as the true one does.
    def asked(kinds: list[Kind]) -> tuple[list[bool], bool]:
        said = []
        for kind in kinds:
            if kind.groups == 4:
                return said, False
            said.append(not kind.transposed)
            if kind.transposed:
                break
        return said, True

    monkeypatch.setattr(selftest, "_asked", asked)
    found = selftest.examine(kinds())
    assert found == {k: not (k.groups == 4 or k.transposed) for k in kinds()}


def test_a_process_that_dies_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os; print('true', flush=True); os.abort()"
    monkeypatch.setattr(selftest, "PROGRAM", ("-c", program))
    assert selftest.examine(kinds()[:1]) == {kinds()[0]: False}


def test_wrong_layers_take_the_safe_path(asked: list[Kind]) -> None:
    net = layers()
    x = torch.randn(2, 3, 8, 8)
    wanted = net(x)
    assert selftest.safeguard(net, CPU) == ["0"]
    assert net[0].weight.is_contiguous()
    assert not net[1].weight.is_contiguous()
    given = []
    net[0].register_forward_hook(lambda _, inputs, __: given.append(inputs[0].is_contiguous()))
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), wanted)
    assert given == [True]
    assert len(asked) == 3  # two kinds, and the one that is wrong once more in contiguous memory


def test_a_layer_without_a_safe_path_stops_the_training(asked: list[Kind], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "examine", lambda kinds: {k: k.stride[0] != 2 for k in kinds})
    with pytest.raises(ModaliftError, match=r"layer '0' \(convolution 3x3 of 3 to 4 channels.*incorrectly"):
        selftest.safeguard(layers(), CPU)


def test_a_second_training_asks_nothing(asked: list[Kind], cache: Path) -> None:
    selftest.safeguard(layers(), CPU)
    count = len(asked)
    assert selftest.safeguard(layers(), CPU) == ["0"]
    assert len(asked) == count
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # another way to compute
    try:
        selftest.safeguard(layers(), CPU)
    finally:
        torch.set_num_threads(threads)
    assert len(asked) == 2 * count
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 1}', "\0\0"])
def test_a_damaged_cache_is_ignored(text: str, asked: list[Kind], cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert selftest.safeguard(layers(), CPU) == ["0"]
    assert asked
    assert json.loads(cache.read_text())


def test_a_cache_that_cannot_be_written_is_no_obstacle(asked: list[Kind], cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    assert selftest.safeguard(layers(), CPU) == ["0"]


def test_settings_of_the_math_library_are_part_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = selftest.fingerprint()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert selftest.fingerprint() != before


def test_a_sliced_convolution_counts_as_what_it_computes() -> None:
    layer = skip_convolution(4, 8, 2)
    assert isinstance(layer, SlicedConv2d)
    assert selftest.kind_of(layer, torch.float32, True).stride == (1, 1)


def test_sliced_gradients_are_those_of_the_strided_convolution() -> None:
    torch.manual_seed(0)
    layer = skip_convolution(4, 8, 2)
    plain = nn.Conv2d(4, 8, 1, 2, bias=False)
    plain.load_state_dict(layer.state_dict())
    for size in (7, 8):
        x = torch.randn(2, 4, size, size, requires_grad=True)
        ours = torch.autograd.grad(layer(x).square().sum(), [x, layer.weight])
        theirs = torch.autograd.grad(plain(x).square().sum(), [x, plain.weight])
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="tells processors apart on Linux only")
def test_the_fault_of_onednn_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With instructions limited to AVX2 the strided layer is either right (a mended library) or found out: never missed."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    net = nn.Sequential(nn.Conv2d(4, 8, 1, 2, bias=False))
    to_device(net, CPU)
    found = selftest.safeguard(net, CPU)
    if torch.__version__.startswith("2.13.") and "avx2" in Path("/proc/cpuinfo").read_text():
        assert found == ["0"]
