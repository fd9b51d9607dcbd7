"""Whether this processor computes a kind of convolution correctly: forward and gradients against float64.

``python -m modalift.engine.convolutions`` does it for kinds that it reads from standard input, in a process of its own,
since a math library that is wrong may also crash. It imports little, so that it starts quickly.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

#: Largest error that is allowed, relative to the largest value of a result, by dtype.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.06, "float16": 0.02}
#: Multiply-accumulates of one forward pass of a test, about, and the pixels of a side that they allow at most and at least.
_WORK, _MOST, _LEAST = 2**22, 16, 3
#: Times that a kind of few weights is computed: overruns of two threads show in some runs only, and concern few channels.
_REPEATS = 3
#: Weights from which on a kind is computed once, on few clips.
_LARGE = 2**17
#: Seconds after which a kind counts as one that never ends.
_PATIENCE = 60


@dataclass(frozen=True)
class Kind:
    """All that decides which code of the math library computes a convolution, but for the extents of its maps.

    Attributes:
        inside, outside: channels in and out.
        kernel, stride, padding, dilation, output_padding: one number per axis.
        groups, transposed: as PyTorch's.
        dtype: of maps and weights, e.g. ``float32``.
        maps_last, weights_last: whether maps and weights are in channels-last memory.
    """

    inside: int
    outside: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool
    dtype: str
    maps_last: bool
    weights_last: bool

    @classmethod
    def read(cls, values: list[Any]) -> Kind:
        """A kind from what :meth:`written` gave."""
        found: list[Any] = [tuple(v) if isinstance(v, list) else v for v in values]
        return cls(*found)

    def written(self) -> str:
        """All of it in one line of JSON: a key."""
        return json.dumps(astuple(self))

    def __str__(self) -> str:
        kernel, stride = ("x".join(map(str, v)) for v in (self.kernel, self.stride))
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return (f"{'transposed ' if self.transposed else ''}convolution {kernel} of {self.inside} to {self.outside} channels, "
                f"stride {stride}{groups}, {self.dtype}, {'channels-last' if self.maps_last else 'contiguous'} memory")


def _placed(x: Tensor, last: bool) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats.get(x.dim(), torch.contiguous_format) if last else torch.contiguous_format)


def _inputs(kind: Kind) -> tuple[Tensor, Tensor]:
    """Random maps and weights, in float64, whose values the dtype holds exactly."""
    source = torch.Generator().manual_seed(0)
    dtype = getattr(torch, kind.dtype)
    first, second = (kind.inside, kind.outside) if kind.transposed else (kind.outside, kind.inside)
    weight = torch.randn(first, second // kind.groups, *kind.kernel, generator=source).to(dtype).double()
    clips = 8 if weight.numel() < _LARGE else 2
    side = int((_WORK / weight.numel() / clips) ** (1 / len(kind.kernel)))
    side = min(max(side, _LEAST), _MOST)
    sides = [max(side, d * (k - 1) + 1) for k, d in zip(kind.kernel, kind.dilation, strict=True)]
    return torch.randn(clips, kind.inside, *sides, generator=source).to(dtype).double(), weight


def _computed(kind: Kind, x: Tensor, weight: Tensor, grad: Tensor | None) -> list[Tensor]:
    """The output and, of its gradient, those of maps and weights. (Not by autograd, which imports for half a second.)"""
    how = kind.stride, kind.padding, kind.dilation, kind.transposed, kind.output_padding, kind.groups
    y = torch.convolution(x, weight, None, *how)
    grad = y if grad is None else grad
    found = torch.ops.aten.convolution_backward(grad, x, weight, None, *how, (True, True, False))
    return [y, *found[:2]]


def is_right(kind: Kind) -> bool:
    """Whether output and gradients are those of float64, to rounding, with all threads and with one.

    Where memory is overrun, one thread meets foreign memory, and several meet each other's, if they run at the same time.
    """
    threads = torch.get_num_threads()
    try:
        return _is_right(kind) and (threads == 1 or _alone(kind))
    finally:
        torch.set_num_threads(threads)


def _alone(kind: Kind) -> bool:
    torch.set_num_threads(1)
    return _is_right(kind)


def _is_right(kind: Kind) -> bool:
    x, weight = _inputs(kind)
    # The output itself, rounded to the dtype, serves as its gradient.
    dtype = getattr(torch, kind.dtype)
    grad = torch.convolution(x, weight, None, kind.stride, kind.padding, kind.dilation, kind.transposed,
                             kind.output_padding, kind.groups).to(dtype)
    wanted = _computed(kind, x, weight, grad.double())
    for _ in range(_REPEATS if weight.numel() < _LARGE else 1):
        given = [_placed(t.to(dtype), kind.maps_last) for t in (x, grad)]
        found = _computed(kind, given[0], _placed(weight.to(dtype), kind.weights_last), given[1])
        for a, b in zip(found, wanted, strict=True):
            error = (a.double() - b).abs().max() / b.abs().max().clamp(min=1e-30)
            if not bool(error <= _TOLERANCE[kind.dtype]):  # NaN is wrong too
                return False
    return True


def answers(kinds: list[Kind]) -> Iterator[bool]:
    """What :func:`is_right` says of each; ends after the first that is not, since memory may be damaged by then."""
    for kind in kinds:
        good = is_right(kind)
        yield good
        if not good:
            return


def main() -> None:
    """Standard input: ``{"threads": n, "kinds": [...]}``; standard output: ``true`` or ``false``, one line per kind."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    timed = hasattr(signal, "alarm")
    if timed:
        signal.alarm(_PATIENCE)  # ends the process, inside the math library too
    for good in answers([Kind.read(values) for values in asked["kinds"]]):
        sys.stdout.write(json.dumps(good) + "\n")
        sys.stdout.flush()  # a crash of the next one must not take this answer with it
        if timed:
            signal.alarm(_PATIENCE)


if __name__ == "__main__":
    main()
