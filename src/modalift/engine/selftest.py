"""The self-test before a training: whether this processor computes the networks' convolutions correctly.

Math libraries use different code on each processor, and some of it is faulty: wrong gradients, or overwritten memory.
Each configuration of a convolution in a scheme is tested once on small maps: its output and gradients are compared with
those of float64. The results are cached in the user's cache folder for later trainings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modalift.engine.convolutions import ConvConfig
from modalift.engine.processor import describe
from modalift.errors import ModaliftError
from modalift.files import parse_json, write_text
from modalift.networks.skip import SlicedConv2d

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: Arguments to Python for the process that runs the tests.
PROGRAM = ("-m", "modalift.engine.convolutions")
#: Prefixes of environment variables that select code in the math libraries.
_SETTINGS = ("ONEDNN_", "DNNL_", "ATEN_CPU_", "MKL_")


def config_of(layer: nn.Module, dtype: torch.dtype, channels_last: bool) -> ConvConfig:
    """The configuration of a layer's convolution, with the current memory format of its weight.

    Args:
        layer: a convolution layer.
        dtype: of the computation.
        channels_last: whether its input is in channels-last memory.
    """
    assert isinstance(layer, _LAYERS)
    axes = len(layer.kernel_size)
    stride = (1,) * axes if isinstance(layer, SlicedConv2d) else layer.stride
    if layer.padding_mode != "zeros" or layer.padding == "valid":
        padding: tuple[int, ...] = (0,) * axes  # the layer pads before it convolves
    elif layer.padding == "same":
        padding = tuple(d * (k - 1) // 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    else:
        assert not isinstance(layer.padding, str)
        padding = tuple(layer.padding)
    return ConvConfig(layer.in_channels, layer.out_channels, tuple(layer.kernel_size), tuple(stride), padding,
                      tuple(layer.dilation), tuple(layer.output_padding), layer.groups, bool(layer.transposed),
                      str(dtype).removeprefix("torch."), channels_last, channels_last and not layer.weight.is_contiguous())


def configs_of(layer: nn.Module, dtype: torch.dtype) -> list[ConvConfig]:
    """The configurations that a layer may have in training.

    Maps of 2-D layers are channels-last, since PyTorch follows the memory format of the weights; those of 3-D layers occur
    in both formats.
    """
    assert isinstance(layer, _LAYERS)
    formats = {1: (False,), 2: (True,), 3: (False, True)}[len(layer.kernel_size)]
    return [config_of(layer, dtype, channels_last) for channels_last in formats]


def _contiguous_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def avoid_incorrect_convolutions(scheme: nn.Module, device: torch.device,
                                 dtypes: Sequence[torch.dtype] = (torch.float32,)) -> list[str]:
    """Switches layers that this processor computes incorrectly to contiguous memory, where they are correct.

    Args:
        scheme: the networks, on their device.
        device: nothing is done on devices other than the CPU.
        dtypes: those in which convolutions are computed.

    Returns:
        The names of the layers that now run in contiguous memory.

    Raises:
        ModaliftError: a layer that is incorrect in contiguous memory too.
    """
    if device.type != "cpu":
        return []
    layers = {name: m for name, m in scheme.named_modules() if isinstance(m, _LAYERS)}
    uses = [(name, layer, dtype) for name, layer in layers.items() for dtype in dtypes]
    incorrect = incorrect_configs(config for _, layer, dtype in uses for config in configs_of(layer, dtype))
    affected = [(name, layer, dtype) for name, layer, dtype in uses if incorrect & set(configs_of(layer, dtype))]
    contiguous = [(name, config_of(layer, dtype, False)) for name, layer, dtype in affected]
    unusable = incorrect_configs(config for _, config in contiguous)
    for name, config in contiguous:
        if config in unusable:
            raise ModaliftError(f"layer '{name}' ({config}): PyTorch computes it incorrectly on this processor, in every memory"
                                " format - choose another width, or set ONEDNN_MAX_CPU_ISA=SSE41 in the environment")
    names = list(dict.fromkeys(name for name, _, _ in affected))
    for layer in (layers[name] for name in names):
        layer.weight.data = layer.weight.data.contiguous()
        layer.register_forward_pre_hook(_contiguous_input)
    return names


def incorrect_configs(configs: Iterable[ConvConfig]) -> set[ConvConfig]:
    """The configurations that this processor computes incorrectly: from the cache, or by a test in another process."""
    distinct = list(dict.fromkeys(configs))
    if not distinct:
        return set()
    machine = machine_key()
    known = _read_cache().get(machine, {})
    untested = [config for config in distinct if not isinstance(known.get(config.key()), bool)]
    if untested:
        results = {config.key(): correct for config, correct in run_tests(untested).items()}
        known = {**known, **results}
        _add_to_cache(machine, results)
    return {config for config in distinct if not known[config.key()]}


def run_tests(configs: list[ConvConfig]) -> dict[ConvConfig, bool]:
    """Tests configurations in other processes, which may crash: configuration -> whether it is computed correctly."""
    found: dict[ConvConfig, bool] = {}
    waiting = configs
    while waiting:
        results, exited_normally = _test_process(waiting)
        if exited_normally:
            found.update(zip(waiting, results, strict=False))
            waiting = waiting[len(results):]  # it ends after the first failure
        elif len(waiting) == 1:
            return {**found, waiting[0]: False}
        else:  # it is unknown which one damaged the memory: test each in a process of its own
            return {**found, **{config: run_tests([config])[config] for config in waiting}}
    return found


def _test_process(configs: list[ConvConfig]) -> tuple[list[bool], bool]:
    """Tests configurations in one new process: the results that it printed, and whether it exited normally."""
    request = json.dumps({"threads": torch.get_num_threads(), "configs": [json.loads(config.key()) for config in configs]})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run([sys.executable, *PROGRAM], input=request, text=True,
                              capture_output=True, env=environment, check=False)
    except OSError as error:
        raise ModaliftError(f"the self-test of convolutions cannot be started: {error.strerror or error} - it runs before"
                            " every training; check that Python may start other processes here") from None
    results = [line == "true" for line in done.stdout.split() if line in ("true", "false")]
    if done.returncode == 1:  # a Python error; a crash has a negative code, or on Windows a large one
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModaliftError(f"the self-test of convolutions failed: {last} - check that this Python can import modalift and"
                            " torch in another process")
    return results, done.returncode == 0 and bool(results)


def machine_key() -> str:
    """The key of this machine in the cache: library, processor, settings and threads, which select the code."""
    settings = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_SETTINGS)}
    here = describe()
    return json.dumps([torch.__version__, torch.backends.cpu.get_cpu_capability(), here.name, here.features, settings,
                       here.threads])


def cache_path() -> Path:
    """The file of cached results: ``$XDG_CACHE_HOME/modalift``, or ``~/.cache/modalift``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "modalift" / "convolutions.json"


def _read_cache() -> dict[str, dict[str, Any]]:
    """Machine -> key of a configuration -> whether it is correct; empty where the file is missing or damaged."""
    try:
        content = parse_json(cache_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return {k: v for k, v in content.items() if isinstance(v, dict)} if isinstance(content, dict) else {}


def _add_to_cache(machine: str, results: dict[str, bool]) -> None:
    """Adds results to the cache; where it cannot be written, the next training tests again."""
    content = _read_cache()
    content[machine] = {**content.get(machine, {}), **results}
    with suppress(ModaliftError, OSError, RuntimeError):
        write_text(cache_path(), json.dumps(content, indent=1))
