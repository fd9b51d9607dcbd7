"""Before a training: are the convolutions of its networks computed correctly on this processor?

Math libraries take other code on every processor, and some of that is wrong: a gradient that is off, or memory that is
overwritten. Each kind of convolution that a scheme's networks use is computed once on small maps, forward and gradients,
and compared with float64; the results are kept in the user's cache folder, so that the next training finds them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modalift.engine.convolutions import Kind
from modalift.engine.processor import describe
from modalift.errors import ModaliftError
from modalift.files import write_text
from modalift.networks.skip import SlicedConv2d

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: What the test's process runs.
PROGRAM = ("-m", "modalift.engine.convolutions")
#: Settings of the environment that choose code in the math libraries.
_SETTINGS = ("ONEDNN_", "DNNL_", "ATEN_CPU_", "MKL_")


def kind_of(layer: nn.Module, dtype: torch.dtype, maps_last: bool) -> Kind:
    """The kind of convolution that a layer computes, its weights as they lie in memory."""
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
    return Kind(layer.in_channels, layer.out_channels, tuple(layer.kernel_size), tuple(stride), padding,
                tuple(layer.dilation), tuple(layer.output_padding), layer.groups, bool(layer.transposed),
                str(dtype).removeprefix("torch."), maps_last, maps_last and not layer.weight.is_contiguous())


def kinds_of(layer: nn.Module, dtype: torch.dtype) -> list[Kind]:
    """The kinds that a layer may be asked for in training.

    Maps of 2-D layers count as channels-last (their weights are, and PyTorch follows them), those of 3-D layers are met
    both ways.
    """
    assert isinstance(layer, _LAYERS)
    ways = {1: (False,), 2: (True,), 3: (False, True)}[len(layer.kernel_size)]
    return [kind_of(layer, dtype, last) for last in ways]


def _contiguous_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def safeguard(scheme: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> list[str]:
    """Takes the safe path for layers whose kind is wrong on this processor: contiguous maps and weights.

    Args:
        scheme: the networks, placed on their device.
        device: other than CPUs nothing is done.
        dtype: what convolutions are computed in.

    Returns:
        The names of the layers that are on the safe path.

    Raises:
        ModaliftError: a layer that is wrong there as well.
    """
    if device.type != "cpu":
        return []
    layers = {name: m for name, m in scheme.named_modules() if isinstance(m, _LAYERS)}
    wrong = wrong_kinds(kind for layer in layers.values() for kind in kinds_of(layer, dtype))
    found = {name: layer for name, layer in layers.items() if wrong & set(kinds_of(layer, dtype))}
    still = wrong_kinds(kind_of(layer, dtype, False) for layer in found.values())
    for name, layer in found.items():
        kind = kind_of(layer, dtype, False)
        if kind in still:
            raise ModaliftError(f"layer '{name}' ({kind}): PyTorch computes it incorrectly on this processor, in every memory"
                                " format - choose another width, or set ONEDNN_MAX_CPU_ISA=SSE41 in the environment")
        layer.weight.data = layer.weight.data.contiguous()
        layer.register_forward_pre_hook(_contiguous_input)
    return list(found)


def wrong_kinds(kinds: Iterable[Kind]) -> set[Kind]:
    """The kinds that are computed incorrectly on this processor: as the cache says, or by a test in another process."""
    wanted = list(dict.fromkeys(kinds))
    if not wanted:
        return set()
    machine = fingerprint()
    known = _cached().get(machine, {})
    missing = [kind for kind in wanted if not isinstance(known.get(kind.written()), bool)]
    if missing:
        found = {kind.written(): good for kind, good in examine(missing).items()}
        known = {**known, **found}
        _keep(machine, found)
    return {kind for kind in wanted if not known[kind.written()]}


def examine(kinds: list[Kind]) -> dict[Kind, bool]:
    """Kind -> whether it is computed correctly, by tests in processes of their own, which may crash."""
    found: dict[Kind, bool] = {}
    waiting = kinds
    while waiting:
        said, ended = _asked(waiting)
        if ended:
            found.update(zip(waiting, said, strict=False))
            waiting = waiting[len(said):]  # it ends early, after a kind that is wrong
        elif len(waiting) == 1:
            return {**found, waiting[0]: False}
        else:  # which one damaged the memory does not show: each by itself
            return {**found, **{kind: examine([kind])[kind] for kind in waiting}}
    return found


def _asked(kinds: list[Kind]) -> tuple[list[bool], bool]:
    """What a fresh process says of the kinds, as far as it comes, and whether it came to an orderly end."""
    question = json.dumps({"threads": torch.get_num_threads(), "kinds": [json.loads(kind.written()) for kind in kinds]})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run([sys.executable, *PROGRAM], input=question, text=True,
                              capture_output=True, env=environment, check=False)
    except OSError as error:
        raise ModaliftError(f"the self-test of convolutions cannot be started: {error.strerror or error} - a training starts"
                            " with it; see that other programs can be started here") from None
    said = [line == "true" for line in done.stdout.split() if line in ("true", "false")]
    if done.returncode > 0:  # an error of Python, not a crash
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModaliftError(f"the self-test of convolutions failed: {last} - see that this Python can import modalift and torch"
                            " in a process of its own")
    return said, done.returncode == 0 and bool(said)


def fingerprint() -> str:
    """What decides which code computes a convolution: library, processor, settings and threads."""
    settings = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_SETTINGS)}
    here = describe()
    return json.dumps([torch.__version__, torch.backends.cpu.get_cpu_capability(), here.name, here.features, settings,
                       here.threads])


def cache_file() -> Path:
    """Where results are kept: ``$XDG_CACHE_HOME/modalift``, or ``~/.cache/modalift``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "modalift" / "convolutions.json"


def _cached() -> dict[str, dict[str, Any]]:
    """All kept results, by machine; none where the file is missing or damaged."""
    try:
        held = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return {k: v for k, v in held.items() if isinstance(v, dict)} if isinstance(held, dict) else {}


def _keep(machine: str, found: dict[str, bool]) -> None:
    """Adds results to the cache; where that cannot be written the next training tests again."""
    held = _cached()
    held[machine] = {**held.get(machine, {}), **found}
    with suppress(ModaliftError, OSError, RuntimeError):
        write_text(cache_file(), json.dumps(held, indent=1))
