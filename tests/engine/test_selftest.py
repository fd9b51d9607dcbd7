"""The self-test of convolutions: incorrect ones are found and run in contiguous memory, and results are cached."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from modalift.engine import convolutions, selftest
from modalift.engine.convolutions import ConvConfig
from modalift.engine.distributed import to_device
from modalift.errors import ModaliftError
from modalift.networks.skip import SlicedConv2d, skip_convolution

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return selftest.cache_path()


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[ConvConfig]:
    """The configurations that were tested; of these, channels-last maps with a stride of 2 are incorrect."""
    configurations: list[ConvConfig] = []

    def run_tests(configs: list[ConvConfig]) -> dict[ConvConfig, bool]:
        configurations.extend(configs)
        return {k: not (k.channels_last_maps and k.stride[0] == 2) for k in configs}

    monkeypatch.setattr(selftest, "run_tests", run_tests)
    return configurations


def layers() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1))
    to_device(net, CPU)
    return net


def configs() -> list[ConvConfig]:
    many = [nn.Conv1d(2, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 3, 1, padding="same"),
            nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.Conv3d(2, 3, (1, 3, 3), (1, 2, 2))]
    return [k for layer in many for k in selftest.configs_of(layer, torch.float32)]


def test_every_configuration_is_correct_here_and_in_another_process() -> None:
    assert all(convolutions.is_correct(k) for k in configs())
    assert selftest.run_tests(configs()) == dict.fromkeys(configs(), True)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_wrong_result_is_found(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = convolutions._output_and_gradients

    def off(config: ConvConfig, x: torch.Tensor, *rest: torch.Tensor) -> list[torch.Tensor]:
        found = computed(config, x, *rest)
        if x.dtype == torch.float32:
            found[at] = found[at] * 1.01
        return found

    monkeypatch.setattr(convolutions, "_output_and_gradients", off)
    assert list(convolutions.check_all(configs())) == [False]  # and ends there


def test_a_crash_is_attributed_to_the_configuration_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that crashes at four groups, finds transposed convolutions incorrect and ends there, as the real one does.
    def test_process(configs: list[ConvConfig]) -> tuple[list[bool], bool]:
        results = []
        for config in configs:
            if config.groups == 4:
                return results, False
            results.append(not config.transposed)
            if config.transposed:
                break
        return results, True

    monkeypatch.setattr(selftest, "_test_process", test_process)
    found = selftest.run_tests(configs())
    assert found == {k: not (k.groups == 4 or k.transposed) for k in configs()}


def test_a_process_that_crashes_after_its_output_counts_as_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os; print('true', flush=True); os.abort()"
    monkeypatch.setattr(selftest, "PROGRAM", ("-c", program))
    assert selftest.run_tests(configs()[:1]) == {configs()[0]: False}


@pytest.mark.parametrize("program", [
    "import time; c._TIMEOUT = 0.2; c.is_correct = lambda config: time.sleep(60)\nc.main()",
    "import os; os._exit(5)",  # as crashes on Windows, where a code is not negative
])
def test_a_process_that_hangs_or_ends_without_a_python_error_counts_as_a_crash(program: str, monkeypatch) -> None:
    monkeypatch.setattr(selftest, "PROGRAM", ("-c", f"from modalift.engine import convolutions as c; {program}"))
    started = time.perf_counter()
    assert selftest.run_tests(configs()[:1]) == {configs()[0]: False}
    assert time.perf_counter() - started < 50


def test_a_python_error_of_the_test_is_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "PROGRAM", ("-c", "raise ImportError('no torch')"))
    with pytest.raises(ModaliftError, match="self-test of convolutions failed: ImportError: no torch"):
        selftest.run_tests(configs()[:1])


def test_incorrect_layers_run_in_contiguous_memory(tested: list[ConvConfig]) -> None:
    net = layers()
    x = torch.randn(2, 3, 8, 8)
    wanted = net(x)
    assert selftest.avoid_incorrect_convolutions(net, CPU) == ["0"]
    assert net[0].weight.is_contiguous()
    assert not net[1].weight.is_contiguous()
    given = []
    net[0].register_forward_hook(lambda _, inputs, __: given.append(inputs[0].is_contiguous()))
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), wanted)
    assert given == [True]
    assert len(tested) == 3  # two configurations, and the incorrect one again in contiguous memory


def test_a_layer_that_is_incorrect_in_every_format_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "run_tests", lambda configs: {k: k.stride[0] != 2 for k in configs})
    with pytest.raises(ModaliftError, match=r"layer '0' \(convolution 3x3 of 3 to 4 channels.*incorrectly"):
        selftest.avoid_incorrect_convolutions(layers(), CPU)


def test_a_second_training_tests_nothing(tested: list[ConvConfig], cache: Path) -> None:
    selftest.avoid_incorrect_convolutions(layers(), CPU)
    count = len(tested)
    assert selftest.avoid_incorrect_convolutions(layers(), CPU) == ["0"]
    assert len(tested) == count
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # selects other code
    try:
        selftest.avoid_incorrect_convolutions(layers(), CPU)
    finally:
        torch.set_num_threads(threads)
    assert len(tested) == 2 * count
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 1}', "\0\0"])
def test_a_damaged_cache_is_ignored(text: str, tested: list[ConvConfig], cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert selftest.avoid_incorrect_convolutions(layers(), CPU) == ["0"]
    assert tested
    assert json.loads(cache.read_text())


def test_a_cache_that_cannot_be_written_is_ignored(tested: list[ConvConfig], cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    assert selftest.avoid_incorrect_convolutions(layers(), CPU) == ["0"]


def test_settings_of_the_math_library_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = selftest.machine_key()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert selftest.machine_key() != before


def test_the_configuration_of_a_sliced_convolution_is_the_one_it_computes() -> None:
    layer = skip_convolution(4, 8, 2)
    assert isinstance(layer, SlicedConv2d)
    assert selftest.config_of(layer, torch.float32, True).stride == (1, 1)


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


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads the processor's features on Linux only")
def test_the_fault_of_onednn_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limited to AVX2 the strided layer is either correct (a fixed library) or detected."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    net = nn.Sequential(nn.Conv2d(4, 8, 1, 2, bias=False))
    to_device(net, CPU)
    found = selftest.avoid_incorrect_convolutions(net, CPU)
    if torch.__version__.startswith("2.13.") and "avx2" in Path("/proc/cpuinfo").read_text():
        assert found == ["0"]
