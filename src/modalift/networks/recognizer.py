"""The Recognizer: preprocessing + backbone (+ neck) + head. One sensor in, logits out: the product."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks.recompute import recomputed

#: Whether the network also sees each pixel's departure from its mean over time: not at all, from the mean of the
#: whole clip, or from the running mean up to the frame (the only one that can stream).
Motion = Literal["none", "clip", "running"]


@dataclass(frozen=True)
class Stage:
    """What one named feature map looks like: its channels, and how much coarser it is than the clip.

    Attributes:
        channels: channels of the map.
        stride: input pixels a map pixel, in height and width.
        time_stride: input frames a map frame.
        space, time: pixels -> map pixels and frames -> map frames, where that is not the quotient by the stride
            rounded up.

    Example:
        >>> Stage(256, 16, 2).shape(9, 112, 120)
        (256, 5, 7, 8)
    """

    channels: int
    stride: int
    time_stride: int = 1
    space: Callable[[int], int] | None = None
    time: Callable[[int], int] | None = None

    def shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """``(C, T, H, W)`` of the map of a clip of these extents."""
        space = self.space or (lambda pixels: -(-pixels // self.stride))
        time = self.time or (lambda count: -(-count // self.time_stride))
        return self.channels, time(frames), space(height), space(width)


@dataclass
class Observation:
    """What a network made of some clips.

    Attributes:
        logits: ``(B, K)``.
        maps: stage name -> ``(B, C, T, H, W)``.
        rows: which clips of a batch these are, ``(B,)`` indices; None for all of them, in order.
    """

    logits: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    def take(self, keep: Tensor) -> Observation:
        """The observation of some of its clips, by position or mask."""
        rows = torch.arange(len(self), device=self.logits.device) if self.rows is None else self.rows
        return Observation(self.logits[keep], {k: v[keep] for k, v in self.maps.items()}, rows[keep])


class Prepare(nn.Module):
    r"""From a sensor's physical units to what a backbone likes; saved with the weights.

    .. math:: x = (u - \mu) / \sigma, \qquad x = 0 \text{ where } u \text{ is no reading}

    With ``motion`` the channels are doubled by :math:`g\,(x_t - \bar x)`, where :math:`\bar x` is the mean over the
    clip (``clip``) or over the frames up to ``t`` (``running``), and ``motion_gain`` is :math:`g`. Normalizing the two
    apart speeds learning greatly.

    Args:
        channels: channels of the clip.
        mean, std: constants in the sensor's unit, one a channel or one for all.
        invalid: the reading that means *no reading*, or None.
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
                raise ModaliftError(f"{name} has {len(values)} values for {channels} channels - give one, or one each")
            if not all(math.isfinite(v) and (name == "mean" or v > 0) for v in values):
                raise ModaliftError(f"{name} = {', '.join(f'{v:g}' for v in values)} - each must be a number"
                                    f"{' above 0' if name == 'std' else ''}")
            # One-dimensional: a five-dimensional buffer would refuse net.to(memory_format=torch.channels_last).
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).expand(channels).clone())
        self.invalid = invalid
        self.motion = motion
        self.motion_gain = motion_gain
        self.out_channels = channels * (1 if motion == "none" else 2)

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
        return self.piece(clip)[0]

    @property
    def remembers(self) -> int:
        """How many tensors :meth:`piece` carries from one piece of a clip to the next."""
        return 2 if self.motion == "running" else 0

    def piece(self, clip: Tensor, before: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As :meth:`forward`, for a piece of a longer clip that comes after the pieces of ``before``.

        The memory is ``(frames so far (1,), their mean (B, C, 1, H, W))``, or nothing without motion; zeros are the
        start.
        """
        if self.motion == "clip":
            raise ModaliftError("motion='clip' needs the whole clip - build with motion='running' to stream")
        x = self.normalize(clip)
        if self.motion == "none":
            return x, ()
        count = torch.arange(1, x.shape[2] + 1, device=x.device, dtype=x.dtype)
        total = x.cumsum(2)
        if before is not None:
            count, total = count + before[0], total + before[0] * before[1]
        mean = total / count.reshape(1, 1, -1, 1, 1)
        return torch.cat([x, self.motion_gain * (x - mean)], 1), (count[-1:], mean[:, :, -1:])


class OneValueError(ModaliftError, ValueError):
    """A training step on a single clip, one of whose maps has a single position, which BatchNorm refuses."""


def wide(channels: int, width: float, who: str) -> int:
    """A number of channels times the width multiplier, at least one.

    Raises:
        ModaliftError: a width that is not above 0.
    """
    if width <= 0:
        raise ModaliftError(f"network '{who}': width={width} - must be above 0 (1 is the published width)")
    return max(1, round(channels * width))


class Backbone(nn.Module):
    """Base of the trunks: a clip ``(B, C, T, H, W)`` to its last feature map, with named maps on the way.

    A subclass sets ``stages`` (name -> Stage, from the input to the last; the last one is what the head reads) and
    implements :meth:`features`.

    Attributes:
        smallest: the fewest frames and pixels (height or width) of a clip that it can read.
        recompute: whether a training step keeps only what goes into each part that is run through :meth:`again`.
    """

    stages: dict[str, Stage]
    smallest: tuple[int, int] = (1, 1)
    recompute: bool = False

    def again(self, part: nn.Module, *inputs: Any) -> Tensor:
        """``part(*inputs)``; with ``recompute``, in training, its activations are made anew for the backward pass."""
        return recomputed(part, *inputs) if self.recompute and self.training else part(*inputs)

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """The last feature map and the maps of the stages in ``keep``, all ``(B, C, T, H, W)``."""
        raise NotImplementedError  # every family implements it

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[0]


class Network(nn.Module):
    """What every network of one sensor has, whatever it answers: a Recognizer gives logits, a Translator pictures.

    Attributes:
        prepare: from the sensor's unit to what the network likes.
        view: the view of a table that it reads.
        modality: the modality of that view.
        classes, channels, frames, size: what it was built for (``size`` in pixels; 1 for signals; no classes where it
            does not tell any apart).
        config: the arguments of :func:`modalift.networks.build` that rebuild it.
        streams: whether it can take one frame at a time (``step``).
        smallest: the fewest frames and pixels (height or width) of a clip that it can read.
    """

    streams: bool = False
    smallest: tuple[int, int] = (1, 1)

    def __init__(self, prepare: Prepare) -> None:
        super().__init__()
        self.prepare = prepare
        # Set by networks.build; the defaults serve networks that are put together by hand.
        self.view = ""
        self.modality = ""
        self.classes = 0
        self.channels = prepare.mean.numel()
        self.frames = 0
        self.size = 0
        self.config: dict[str, Any] = {}

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Name -> channels and strides of the maps that it shows; none where it shows none."""
        return {}

    def check(self, clip: Tensor, smallest: tuple[int, int], called: str) -> None:
        """Raises for a clip that is not of this sensor, or too small."""
        if clip.dim() != 5 or clip.shape[1] != self.channels:
            raise ModaliftError(f"network '{self.view or called}' reads clips (B, {self.channels}, T, H, W), not "
                                f"{tuple(clip.shape)}")
        frames, pixels = smallest
        if clip.shape[2] < frames or min(clip.shape[3:]) < pixels:
            raise ModaliftError(f"network '{self.view or called}' got {clip.shape[2]} frames of "
                                f"{clip.shape[3]} x {clip.shape[4]} pixels - it needs at least {frames} of {pixels} x {pixels}")


class Recognizer(Network):
    """A network of one sensor: ``net(clip) -> logits``, ``net.observe(clip, stages) -> Observation``.

    Clips are in the sensor's unit (8-bit gray values, millimeters, meters) because the network itself normalizes:
    nothing changes under a trained file. Its attributes are those of :class:`Network`.
    """

    def __init__(self, prepare: Prepare, backbone: Backbone, head: nn.Module, neck: nn.Module | None = None) -> None:
        super().__init__(prepare)
        self.backbone = backbone
        self.neck = neck
        self.head = head

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Name -> channels and strides of every map that :meth:`observe` can return, without a forward pass."""
        stages = dict(self.backbone.stages)
        if self.neck is not None:
            stages["neck"] = list(self.backbone.stages.values())[-1]
        return stages

    @property
    def last_stage(self) -> str:
        """The deepest map: what the head reads."""
        return list(self.stages)[-1]

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(B, K)`` of clips ``(B, C, T, H, W)`` in the sensor's unit."""
        return self.observe(clip).logits

    def observe(self, clip: Tensor, stages: Collection[str] = ()) -> Observation:
        """Logits, and the feature maps of the named stages.

        Raises:
            ModaliftError: a stage that the network does not have, a clip of the wrong shape, or, in training, a single
                clip that leaves BatchNorm one value a channel.
        """
        for name in stages:
            if name not in self.stages:
                raise ModaliftError(f"network '{self.view}' has no stage '{name}' - {nearest(name, self.stages)}")
        self.check(clip, self.backbone.smallest, type(self.backbone).__name__)
        try:
            x, maps = self.backbone.features(self.prepare(clip), [s for s in stages if s != "neck"])
            if self.neck is not None:
                x = self.neck(x)
                if "neck" in stages:
                    maps["neck"] = x
            return Observation(self.head(x), maps)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            name = self.view or type(self.backbone).__name__
            raise OneValueError(f"network '{name}' cannot train on {clip.shape[0]} clip of "
                                f"{' x '.join(map(str, clip.shape[2:]))}: BatchNorm finds no variance where a map has one "
                                "position - train with batches of 2 or more, or on larger clips") from None

    def step(self, frame: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits after one more frame ``(B, C, 1, H, W)``, and the state to hand in with the next one.

        Only for networks with ``streams``; after the last frame of a clip the logits equal ``net(clip)``.
        """
        raise ModaliftError(f"network '{self.config.get('name', '?')}' cannot stream - build `small` with causal=true")
