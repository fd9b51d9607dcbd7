"""From a sensor's physical units to normalized input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError

#: Motion channels, each pixel's difference from its mean over time: none; from the mean of the whole clip; or from the
#: running mean up to the frame (the only kind that can stream).
Motion = Literal["none", "clip", "running"]


class Prepare(nn.Module):
    r"""Normalizes a clip from its sensor's physical units; its constants are saved with the weights.

    .. math:: x = (u - \mu) / \sigma, \qquad x = 0 \text{ where } u \text{ is invalid}

    With ``motion`` the channels are doubled by :math:`g\,(x_t - \bar x)`, where :math:`\bar x` is the mean over the
    clip (``clip``) or over the frames up to ``t`` (``running``), and ``motion_gain`` is :math:`g`. Motion
    channels speed up learning greatly.

    Args:
        channels: channels of the clip.
        mean, std: constants in the sensor's unit, one per channel or one for all.
        invalid: the value that means *no reading*, or None.
        motion: see above.
        motion_gain: factor on the motion channels.

    Shapes: ``(B, C, T, H, W)`` of any real dtype -> ``(B, C or 2C, T, H, W)`` floating point.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,),
                 invalid: float | None = None, motion: Motion = "none", motion_gain: float = 2.0) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise ModaliftError(f"{name} has {len(values)} values for {channels} channels - give one, or one per channel")
            if not all(math.isfinite(v) and (name == "mean" or v > 0) for v in values):
                raise ModaliftError(f"{name} = {', '.join(f'{v:g}' for v in values)} - each must be a finite number"
                                    f"{' above 0' if name == 'std' else ''}")
            # One-dimensional: a five-dimensional buffer would refuse net.to(memory_format=torch.channels_last).
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).expand(channels).clone())
        self.invalid = invalid
        self.motion = motion
        self.motion_gain = motion_gain

    def normalize(self, clip: Tensor) -> Tensor:
        shape = (1, -1, 1, 1, 1)
        x = (clip.to(self.mean.dtype) - self.mean.reshape(shape)) / self.std.reshape(shape)
        if self.invalid is not None:
            x = x * (clip != self.invalid).to(x.dtype)
        return x

    def forward(self, clip: Tensor) -> Tensor:
        if self.motion == "clip":
            x = self.normalize(clip)
            return torch.cat([x, self.motion_gain * (x - x.mean(2, keepdim=True))], 1)
        return self.stream(clip)[0]

    @property
    def state_size(self) -> int:
        """How many tensors the state of :meth:`stream` has."""
        return 2 if self.motion == "running" else 0

    def stream(self, clip: Tensor, state: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As :meth:`forward`, for frames that follow those of ``state``; also the state for the frames to come.

        The state is ``(number of frames so far (1,), their mean (B, C, 1, H, W))``, or empty without motion; zeros are
        the state before the first frame.
        """
        if self.motion == "clip":
            raise ModaliftError("motion='clip' needs the whole clip - build with motion='running' to stream")
        x = self.normalize(clip)
        if self.motion == "none":
            return x, ()
        count = torch.arange(1, x.shape[2] + 1, device=x.device, dtype=x.dtype)
        total = x.cumsum(2)
        if state is not None:
            count, total = count + state[0], total + state[0] * state[1]
        mean = total / count.reshape(1, 1, -1, 1, 1)
        return torch.cat([x, self.motion_gain * (x - mean)], 1), (count[-1:], mean[:, :, -1:])
