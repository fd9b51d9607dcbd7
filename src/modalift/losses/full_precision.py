"""Losses are computed in float32 (or float64), also inside a region of autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(loss: F) -> F:
    """Decorator of a loss: casts tensor arguments by :func:`at_least_float32` and switches autocast off inside.

    Autocast would compute matrix products in half precision.
    """

    @functools.wraps(loss)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        device = next(a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*(at_least_float32(a) if isinstance(a, Tensor) else a for a in args),
                        **{k: at_least_float32(a) if isinstance(a, Tensor) else a for k, a in kwargs.items()})

    return wrapped  # type: ignore[return-value]
