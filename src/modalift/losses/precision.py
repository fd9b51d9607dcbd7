"""Losses are computed in single precision at least, whatever autocast does around them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def full(x: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(loss: F) -> F:
    """Decorator: tensor arguments through :func:`full`, autocast off inside (matrix products would run in half)."""

    @functools.wraps(loss)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        device = next(a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*(full(a) if isinstance(a, Tensor) else a for a in args),
                        **{k: full(a) if isinstance(a, Tensor) else a for k, a in kwargs.items()})

    return wrapped  # type: ignore[return-value]
