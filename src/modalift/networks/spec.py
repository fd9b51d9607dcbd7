"""What a network is built for: its sensor, its clips and its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modalift.networks.prepare import Motion, Prepare

#: What is between a trunk and its classifier.
Neck = Literal["none", "converter"]


@dataclass(frozen=True)
class NetworkSpec:
    """What a family's function receives, and passes on to the network that it builds.

    Attributes:
        channels, frames, size: of its clips (``size`` in pixels; 1 for signals).
        classes: number of classes K; 0 for a network that does not classify.
        view: the view of a table that it reads.
        modality: the modality of that view.
        mean, std, invalid, motion, motion_gain: see :class:`~modalift.networks.prepare.Prepare`.
        neck, neck_reduction: ``converter``: a :class:`~modalift.networks.converter.FeatureConverter` between the trunk and
            the classifier.
        name: the family; empty for networks that are assembled by hand, which cannot be rebuilt from a file.
        options: the family's own options, as given.

    Example:
        >>> spec = NetworkSpec(channels=3, motion="clip")
        >>> spec.prepared_channels, spec.config
        (6, {})
    """

    channels: int
    frames: int = 0
    size: int = 0
    classes: int = 0
    view: str = ""
    modality: str = ""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    invalid: float | None = None
    motion: Motion = "none"
    motion_gain: float = 2.0
    neck: Neck = "none"
    neck_reduction: int = 8
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self) -> Prepare:
        """The preprocessing of such a network."""
        return Prepare(self.channels, self.mean, self.std, self.invalid, self.motion, self.motion_gain)

    @property
    def prepared_channels(self) -> int:
        """The channels that reach the trunk."""
        return self.channels if self.motion == "none" else 2 * self.channels

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of :func:`modalift.networks.build` that rebuild the network; empty if no family built it."""
        if not self.name:
            return {}
        neck = {} if self.neck == "none" else {"neck": self.neck, "neck_reduction": self.neck_reduction}
        return {"name": self.name, "classes": self.classes, "view": self.view, "modality_name": self.modality,
                "channels": self.channels, "frames": self.frames, "size": self.size, "mean": list(self.mean),
                "std": list(self.std), "motion": self.motion, "motion_gain": self.motion_gain, **neck, **self.options}
