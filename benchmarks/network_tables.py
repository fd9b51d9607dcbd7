"""The parts of `docs/networks.md` that are generated from the code: `python benchmarks/networks.py --table` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from modalift.networks import FAMILIES, NETWORKS, Translator, options_of
from modalift.networks.cost import macs
from modalift.networks.weights import formats_for
from modalift.report import costing


@dataclass(frozen=True)
class Row:
    """One network of the tables.

    Attributes:
        name, options, classes, clip: the arguments of `modalift cost`.
        msd: the name of the row, parameters and GFLOPs as printed in the MSD paper.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 27
    clip: str = ""
    msd: tuple[str, str, str] | None = None

    @property
    def extents(self) -> costing.Extents:
        return costing.read_extents(self.clip) if self.clip else costing.clip_of(self.name)

    @property
    def command(self) -> str:
        return " ".join([self.name, *(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in self.options.items())])


SQUARE = "3x8x224x224"
ROWS = (
    Row("tsn", {"backbone": "resnet18"}, 10, SQUARE),
    Row("tsn", {"backbone": "resnet34"}, 10, SQUARE),
    Row("tsn", {"backbone": "resnet50"}, 10, SQUARE),
    Row("tsm", {}, 83, SQUARE, ("TSM", "23.7M", "28.2")),
    Row("tea", {}, 83, SQUARE, ("TEA", "24.3M", "31.1")),
    Row("action_net", {}, 83, SQUARE, ("ACTION-Net", "27.9M", "29.8")),
    Row("two_stream", {}, 101, "3x1x224x224"),
    Row("two_stream", {"view": "flow"}, 101, "2x10x224x224"),
    Row("vgg16", {}, 83, "3x1x224x224"),
    Row("c3d", {}, 101, "3x16x112x112"),
    Row("c3d", {"variant": "gesrec"}, 83, "3x32x112x112", ("C3D", "65.6M", "71.7")),
    Row("r3d", {"backbone": "resnet18"}, 83, "3x16x112x112"),
    Row("r3d", {"backbone": "resnet34"}, 83, "3x16x112x112"),
    Row("r3d", {"backbone": "resnet50"}, 83, "3x16x112x112"),
    Row("r3d", {"backbone": "res3d18"}, 249, "3x8x112x112"),
    Row("i3d", {}, 400, "3x64x224x224", ("MTUT", "12.7M", "88.2")),
    Row("i3d", {}, 25, "3x32x224x224"),
    Row("i3d_resnet50", {}, 10, "3x32x224x224"),
    Row("i3d_resnet50", {"strides": "mmaction2"}, 400, "3x32x224x224"),
    Row("i3d_resnet50", {"strides": "mmaction2", "pattern": "heavy"}, 400, "3x32x224x224"),
    Row("i3d_resnet50", {"pattern": "slowonly"}, 400, SQUARE),
    Row("resnext101_3d", {}, 83, "3x32x112x112", ("3D ResNeXt-101", "47.7M", "13.9")),
    Row("small", {"motion": "clip"}),
    Row("tcn"),
)


def counts() -> str:
    """Exact counts of every family."""
    lines = ["| `modalift cost ...` | clip | classes | parameters | MACs | activations kept, MiB per clip |",
             "|---|---|--:|--:|--:|--:|"]
    for row in ROWS:
        if row.name not in NETWORKS:
            continue
        found = costing.figures(costing.make(row.name, row.classes, row.extents, row.options), row.extents)
        lines.append(f"| `{row.command}` | {row.extents} | {row.classes} | {found['parameters']:,} | {found['macs']:,} | "
                     f"{found['activation_bytes'] / 2**20:.1f} |")
    return "\n".join(lines)


def msd() -> str:
    """The columns of the MSD paper next to the exact values."""
    lines = ["| row of the paper | params, GFLOPs printed | `modalift cost ... --paper-msd` | parameters | its column, G | "
             "true MACs, G | true FLOPs, G |", "|---|---|---|--:|--:|--:|--:|"]
    for row in ROWS:
        if row.msd and row.name in NETWORKS:
            found = costing.figures(costing.make(row.name, row.classes, row.extents, row.options), row.extents, legacy=True)
            lines.append(f"| {row.msd[0]} | {row.msd[1]}, {row.msd[2]} | `{row.command} --classes {row.classes} --input "
                         f"{row.extents}` | {found['parameters']:,} | {found['paper_msd_flops'] / 1e9:.4f} | "
                         f"{found['macs'] / 1e9:.3f} | {found['flops'] / 1e9:.1f} |")
    return "\n".join(lines)


def facts(name: str) -> str:
    """A family's default clip, stages, options and weight files, read from the code."""
    if name not in NETWORKS:
        return ""
    info, clip = FAMILIES[name], costing.clip_of(name)
    net = costing.make(name, 27, clip)
    stages = ", ".join(f"`{k}` {' x '.join(map(str, s.shape(clip.frames, clip.height, clip.width)))}"
                       for k, s in net.stages.items())
    options = ", ".join(f"`{k}={p.default}`" for k, p in options_of(name).items())
    frames, pixels = net.smallest if isinstance(net, Translator) else net.backbone.smallest
    told = "" if isinstance(net, Translator) else " with 27 classes"
    least = f"{frames} x {pixels} x {pixels}" if pixels > 1 or frames > 1 else "one frame of one pixel"
    files = ", ".join(f for f in formats_for(name) if f != "modalift") or "none but its own"
    return "\n".join([f"- Papers: {info.papers or 'none of the four'}. Clip: {clip}, "
                      f"{sum(p.numel() for p in net.parameters()):,} parameters and "
                      f"{macs(net, clip.frames, (clip.height, clip.width)):,} MACs{told}. Smallest clip: {least}.",
                      *([f"- Stages there (C x T x H x W): {stages}."] if stages else []), f"- Options: {options}.",
                      f"- Loads: {files}."])


def with_tables(text: str) -> str:
    """A document with everything between `<!-- made: WHAT -->` and `<!-- end -->` generated again."""
    def made(found: re.Match[str]) -> str:
        what, _, name = found[1].partition(" ")
        new = {"counts": counts, "msd": msd}[what]() if not name else facts(name)
        return f"<!-- made: {found[1]} -->\n{new}\n<!-- end -->"

    return re.sub(r"<!-- made: ([\w ]+?) -->\n.*?<!-- end -->", made, text, flags=re.DOTALL)
