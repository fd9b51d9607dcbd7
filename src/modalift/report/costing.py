"""A network's cost, computed without allocating memory for it; for `modalift cost` and the network tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from modalift.errors import ModaliftError
from modalift.modalities import modality
from modalift.networks import FAMILIES, Recognizer, build
from modalift.networks.cost import LARGEST, cost, legacy_flops
from modalift.report.numbers import quantity

#: Shown with every number of that counter.
LEGACY_NOTE = ("the MSD paper's GFLOPs come from a counter with a known defect: it divides the output of a strided "
               "convolution by the stride once more (docs/networks.md)")


@dataclass(frozen=True)
class Extents:
    """Channels, frames, height and width of a clip."""

    channels: int
    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.frames}x{self.height}x{self.width}"

    @property
    def numbers(self) -> int:
        return self.channels * self.frames * self.height * self.width


def read_extents(text: str) -> Extents:
    """Parses ``3x8x224x224`` (channels, frames, height, width).

    Raises:
        ModaliftError: the text has another form, an extent is below 1, or the product is too large.

    Example:
        >>> read_extents("60x32x1x1")
        Extents(channels=60, frames=32, height=1, width=1)
    """
    if not re.fullmatch(r"\s*[0-9]{1,18}(\s*[x×]\s*[0-9]{1,18}){3}\s*", text, re.IGNORECASE | re.ASCII):
        raise ModaliftError(f"--input {text}: give channels x frames x height x width, such as 3x8x224x224 for a video "
                            "or 60x32x1x1 for a signal")
    found = Extents(*map(int, re.findall(r"[0-9]+", text)))
    if min(asdict(found).values()) < 1 or found.numbers > LARGEST:
        raise ModaliftError(f"--input {text}: each extent must be 1 or more, and their product at most {LARGEST:,}")
    return found


def clip_of(name: str) -> Extents:
    """The default clip of a network family."""
    channels, frames, pixels = FAMILIES[name].clip
    return Extents(channels, frames, pixels, pixels)


def make(name: str, classes: int, clip: Extents, options: Mapping[str, Any] | None = None) -> Recognizer:
    """Builds a network on the meta device, which allocates no memory.

    Raises:
        ModaliftError: an unknown family or option, or a clip of the wrong kind (video or signal).
    """
    options = dict(options or {})
    for key, instead in (("classes", "--classes"), ("channels", "--input"), ("frames", "--input"), ("size", "--input")):
        if key in options:
            raise ModaliftError(f"{key}={options[key]}: is not an option of a network - use {instead}")
    if "name" in options:
        raise ModaliftError(f"name={options['name']}: give the network first, as in modalift cost {options['name']} ...")
    view = str(options.pop("view", FAMILIES[name].view))
    with torch.device("meta"):
        net = build(name, classes=classes, view=view, channels=clip.channels, frames=clip.frames, size=clip.height, **options)
    signals = modality(FAMILIES[name].view).kind == "signal"
    point = clip.height == clip.width == 1
    if signals and not point:
        raise ModaliftError(f"network '{name}' reads signals, not a clip of {clip} - give CxTx1x1, such as {clip_of(name)}")
    if point and not signals:
        raise ModaliftError(f"network '{name}' reads video, but a clip of {clip} is a signal - use {clip_of(name)}")
    return net


def figures(net: Recognizer, clip: Extents, legacy: bool = False) -> dict[str, int]:
    """Exact integers: ``parameters``, ``macs``, ``flops``, ``activation_bytes`` and, with ``legacy``, ``paper_msd_flops``."""
    size = (clip.height, clip.width)
    spent = cost(net, clip.frames, size)
    found = {"parameters": spent.parameters, "macs": spent.macs, "flops": 2 * spent.macs,
             "activation_bytes": spent.activation_bytes}
    return found | ({"paper_msd_flops": legacy_flops(net, clip.frames, size)} if legacy else {})


def render(title: str, found: Mapping[str, int]) -> Table:
    """A table of the costs: rounded, and as exact integers."""
    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for name, key in (("parameters", "parameters"), ("multiply-accumulates (MACs)", "macs"), ("FLOPs (2 x MACs)", "flops"),
                      ("activations kept for backward", "activation_bytes")):
        exact = f"{found[key]:,}"
        table.add_row(name, *((quantity(found[key], "B", digits=4, base=1024), f"{exact} bytes") if key == "activation_bytes"
                              else (quantity(found[key], digits=4), exact)))
    if "paper_msd_flops" in found:
        figure = found["paper_msd_flops"]
        table.add_row("the MSD paper's GFLOPs", f"{figure / 1e9:.1f}", f"{figure:,}")
    return table
