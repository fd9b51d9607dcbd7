"""The Recognizer: preprocessing + backbone (+ neck) + head. One sensor in, logits out: the product."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.networks.checkpointing import checkpointed
from modalift.networks.converter import FeatureConverter
from modalift.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Stage:
    """Extents of one named feature map: its channels, and its strides relative to the clip.

    Attributes:
        channels: channels of the map.
        stride: input pixels per map pixel, in height and width.
        time_stride: input frames per map frame.
        space, time: pixels -> map pixels and frames -> map frames, where that is not the quotient by the stride,
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
        """``(C, T, H, W)`` of the map for a clip of these extents."""
        space = self.space or (lambda pixels: -(-pixels // self.stride))
        time = self.time or (lambda count: -(-count // self.time_stride))
        return self.channels, time(frames), space(height), space(width)


@dataclass
class Observation:
    """What a network computed for some clips.

    Attributes:
        logits: ``(B, K)``.
        maps: stage name -> ``(B, C, T, H, W)``.
        indices: which clips of a batch these are, ``(B,)``.
    """

    logits: Tensor
    maps: dict[str, Tensor]
    indices: Tensor

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    def take(self, keep: Tensor) -> Observation:
        """The observation of some of its clips, by position or mask."""
        return Observation(self.logits[keep], {k: v[keep] for k, v in self.maps.items()}, self.indices[keep])


class OneValueError(ModaliftError, ValueError):
    """A training step on a single clip, one of whose maps has a single position: BatchNorm cannot compute a variance."""


def scaled_width(channels: int, width: float) -> int:
    """A number of channels times the width multiplier, at least 1.

    Example:
        >>> scaled_width(64, 0.25)
        16
    """
    return max(1, round(channels * width))


class Backbone(nn.Module):
    """Base of the trunks: a clip ``(B, C, T, H, W)`` to its last feature map, with named intermediate maps.

    A subclass sets ``stages`` (name -> Stage, in the order of computation; the head reads the last) and implements
    :meth:`features`.

    Attributes:
        smallest: the smallest number of frames, and of pixels (height or width), that it can read.
        checkpointing: activation checkpointing: a training step keeps only the inputs of each part that is run through
            :meth:`checkpointed`, and computes the rest again.
    """

    stages: dict[str, Stage]
    smallest: tuple[int, int] = (1, 1)
    checkpointing: bool = False

    def checkpointed(self, part: nn.Module, *inputs: Any) -> Tensor:
        """``part(*inputs)``; with ``checkpointing``, in training, its activations are computed again for the backward pass."""
        return checkpointed(part, *inputs) if self.checkpointing and self.training else part(*inputs)

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """The last feature map and the maps of the stages in ``keep``, all ``(B, C, T, H, W)``."""
        raise NotImplementedError  # every family implements it

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[0]


class Network(nn.Module):
    """Base of the networks of one sensor: a Recognizer gives logits, a Translator images.

    Args:
        spec: what it reads and is built for.

    Attributes:
        prepare: normalization, from the sensor's unit.
        view, modality, classes, channels, frames, size, config: those of its spec.
        kind: the kind of model that it becomes when trained (:data:`modalift.models.KINDS`).
        streams: whether it can take one frame at a time (``step``).
        smallest: the smallest number of frames, and of pixels (height or width), that it can read.
    """

    kind: ClassVar[str] = ""
    streams: bool = False
    smallest: tuple[int, int] = (1, 1)

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.prepare = spec.prepare()
        self.view, self.modality = spec.view, spec.modality
        self.classes, self.channels, self.frames, self.size = spec.classes, spec.channels, spec.frames, spec.size
        self.config = spec.config

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it reads: one."""
        return (self.view,)

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Name -> channels and strides of the maps that it can return; none by default."""
        return {}

    def check(self, clip: Tensor, smallest: tuple[int, int], called: str) -> None:
        """Raises for a clip of other channels, or of too few frames or pixels."""
        if clip.dim() != 5 or clip.shape[1] != self.channels:
            raise ModaliftError(f"network '{self.view or called}' reads clips (B, {self.channels}, T, H, W), not "
                                f"{tuple(clip.shape)}")
        frames, pixels = smallest
        if clip.shape[2] < frames or min(clip.shape[3:]) < pixels:
            raise ModaliftError(f"network '{self.view or called}' got {clip.shape[2]} frames of "
                                f"{clip.shape[3]} x {clip.shape[4]} pixels - it needs at least {frames} of {pixels} x {pixels}")


class Recognizer(Network):
    """A network of one sensor: ``net(clip) -> logits``, ``net.observe(clip, stages) -> Observation``.

    Clips are in the sensor's unit (8-bit gray values, millimeters, meters) because the network itself
    normalizes, with constants saved beside its weights. Its attributes are those of :class:`Network`.

    Args:
        spec: what it reads and is built for; also whether there is a ``neck`` between trunk and head.
        backbone, head: the trunk, and the module from its last map to logits.
    """

    kind = "recognizer"

    def __init__(self, spec: NetworkSpec, backbone: Backbone, head: nn.Module) -> None:
        super().__init__(spec)
        self.backbone = backbone
        self.head = head
        channels = list(backbone.stages.values())[-1].channels
        self.neck = FeatureConverter(channels, spec.neck_reduction) if spec.neck == "converter" else None

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
        return self.logits_and_maps(clip)[0]

    def observe(self, clip: Tensor, stages: Collection[str] = ()) -> Observation:
        """Logits, and the feature maps of the named stages.

        Raises:
            ModaliftError: a stage that the network does not have, a clip of the wrong shape, or, in training, a single
                clip that leaves BatchNorm one value per channel.
        """
        logits, maps = self.logits_and_maps(clip, stages)
        return Observation(logits, maps, torch.arange(len(logits), device=logits.device))

    def logits_and_maps(self, clip: Tensor, stages: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and maps as :meth:`observe` returns them, as plain tensors: what export traces."""
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
            return self.head(x), maps
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            name = self.view or type(self.backbone).__name__
            raise OneValueError(f"network '{name}' cannot train on {clip.shape[0]} clip of "
                                f"{' x '.join(map(str, clip.shape[2:]))}: a map has one position, so BatchNorm has no variance "
                                "- train with batches of 2 or more, or on larger clips") from None

    def step(self, frame: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits after one more frame ``(B, C, 1, H, W)``, and the state to pass with the next one.

        Only for networks with ``streams``; after the last frame of a clip the logits equal ``net(clip)``.
        """
        raise ModaliftError(f"network '{self.config.get('name', '?')}' cannot stream - build `small` with causal=true")
