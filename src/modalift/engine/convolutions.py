"""Whether this processor computes a convolution correctly: output and gradients against float64.

``python -m modalift.engine.convolutions`` tests configurations that it reads from standard input, in a process of its
own, since a faulty math library may also crash. It imports little, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

#: Largest allowed error by dtype, relative to the largest absolute value of a result.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.06, "float16": 0.02}
#: About arguments many multiply-accumulates a test's forward pass has, and the largest and smallest side of its maps in pixels.
_MACS, _MAX_SIDE, _MIN_SIDE = 2**22, 16, 3
#: How often a small convolution is computed: memory overruns of two threads show in some runs only, and with few channels.
_REPEATS = 3
#: Number of weights from which on a convolution is computed once, and on few clips.
_LARGE = 2**17
#: Seconds after which the test of one configuration is stopped.
_TIMEOUT = 60.0
#: Exit code of a process that took longer; Python's own errors exit with 1.
_HUNG = 70


@dataclass(frozen=True)
class ConvConfig:
    """A convolution's configuration: all but the maps' sizes that selects the math library's code for it.

    Attributes:
        in_channels, out_channels: as PyTorch's.
        kernel, stride, padding, dilation, output_padding: one value per axis.
        groups, transposed: as PyTorch's.
        dtype: of maps and weights, e.g. ``float32``.
        channels_last_maps, channels_last_weight: whether maps and weight are in channels-last memory.
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool
    dtype: str
    channels_last_maps: bool
    channels_last_weight: bool

    @classmethod
    def from_list(cls, values: list[Any]) -> ConvConfig:
        """The configuration of a parsed :meth:`key`."""
        fields: list[Any] = [tuple(v) if isinstance(v, list) else v for v in values]
        return cls(*fields)

    def key(self) -> str:
        """All fields as one line of JSON, the key in the cache."""
        return json.dumps(astuple(self))

    def __str__(self) -> str:
        kernel, stride = ("x".join(map(str, v)) for v in (self.kernel, self.stride))
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        memory = "channels-last" if self.channels_last_maps else "contiguous"
        return (f"{'transposed ' if self.transposed else ''}convolution {kernel} of {self.in_channels} to {self.out_channels}"
                f" channels, stride {stride}{groups}, {self.dtype}, {memory} memory")


def _in_format(x: Tensor, channels_last: bool) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    return x.contiguous(memory_format=formats.get(x.dim(), torch.contiguous_format))


def _inputs(config: ConvConfig) -> tuple[Tensor, Tensor]:
    """Random maps and weights in float64, with values that the configuration's dtype represents exactly."""
    source = torch.Generator().manual_seed(0)
    dtype = getattr(torch, config.dtype)
    first, second = config.out_channels, config.in_channels
    if config.transposed:
        first, second = second, first
    weight = torch.randn(first, second // config.groups, *config.kernel, generator=source).to(dtype).double()
    clips = 8 if weight.numel() < _LARGE else 2
    side = int((_MACS / weight.numel() / clips) ** (1 / len(config.kernel)))
    side = min(max(side, _MIN_SIDE), _MAX_SIDE)
    sides = [max(side, d * (k - 1) + 1) for k, d in zip(config.kernel, config.dilation, strict=True)]
    return torch.randn(clips, config.in_channels, *sides, generator=source).to(dtype).double(), weight


def _output_and_gradients(config: ConvConfig, x: Tensor, weight: Tensor, grad: Tensor) -> list[Tensor]:
    """The output, and the gradients of maps and weights for an output gradient. (Autograd's import takes half a second.)"""
    arguments = config.stride, config.padding, config.dilation, config.transposed, config.output_padding, config.groups
    y = torch.convolution(x, weight, None, *arguments)
    found = torch.ops.aten.convolution_backward(grad, x, weight, None, *arguments, (True, True, False))
    return [y, *found[:2]]


def is_correct(config: ConvConfig) -> bool:
    """Whether output and gradients equal those of float64 up to rounding, with all threads and with one.

    Both are tested, since a memory overrun of one thread damages other memory, and that of several each other's results.
    """
    threads = torch.get_num_threads()
    try:
        return _matches_float64(config) and (threads == 1 or _matches_float64_on_one_thread(config))
    finally:
        torch.set_num_threads(threads)


def _matches_float64_on_one_thread(config: ConvConfig) -> bool:
    torch.set_num_threads(1)
    return _matches_float64(config)


def _matches_float64(config: ConvConfig) -> bool:
    x, weight = _inputs(config)
    # The output itself, rounded to the dtype, serves as the output's gradient.
    dtype = getattr(torch, config.dtype)
    grad = torch.convolution(x, weight, None, config.stride, config.padding, config.dilation, config.transposed,
                             config.output_padding, config.groups).to(dtype)
    expected = _output_and_gradients(config, x, weight, grad.double())
    for _ in range(_REPEATS if weight.numel() < _LARGE else 1):
        inputs = [_in_format(t.to(dtype), config.channels_last_maps) for t in (x, grad)]
        found = _output_and_gradients(config, inputs[0], _in_format(weight.to(dtype), config.channels_last_weight), inputs[1])
        for a, b in zip(found, expected, strict=True):
            error = (a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30)
            if not bool(error <= _TOLERANCE[config.dtype]):  # NaN fails too
                return False
    return True


def check_all(configs: list[ConvConfig]) -> Iterator[bool]:
    """:func:`is_correct` of each configuration; ends after the first failure, since memory may be damaged then."""
    for config in configs:
        correct = is_correct(config)
        yield correct
        if not correct:
            return


def main() -> None:
    """Reads ``{"threads": n, "configs": [...]}`` from standard input; prints ``true`` or ``false``, one line each."""
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    timer = _timer()
    for correct in check_all([ConvConfig.from_list(values) for values in request["configs"]]):
        sys.stdout.write(json.dumps(correct) + "\n")
        sys.stdout.flush()  # a crash in the next one must not lose this result
        timer.cancel()
        timer = _timer()
    timer.cancel()


def _timer() -> threading.Timer:
    """Ends this process after a while, even inside the math library, which lets other threads run."""
    timer = threading.Timer(_TIMEOUT, os._exit, [_HUNG])
    timer.daemon = True
    timer.start()
    return timer


if __name__ == "__main__":
    main()
