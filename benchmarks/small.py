"""Which design of `small` is the best for its cost? Real depth recordings (UTD-MHAD) and the simulator Darkroom.

    python benchmarks/small.py [--data FOLDER] [--runs runs/small] [--only PART ...] [--report]

Times every design, trains the promising ones with training people held out, trains the chosen ones on the whole
training splits and looks at the test splits once; finished cells are reused. Writes benchmarks/results/small.md.
The designs that are not part of `small` are registered here: `modalift --plugin benchmarks/small.py train ...`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from modalift import darkroom, datasets, networks
from modalift.engine.processor import hardware
from modalift.engine.run import Run
from modalift.engine.study import Cell, run_cells, summary
from modalift.errors import ModaliftError
from modalift.loading.cache import build_cache
from modalift.networks import NetworkSpec, Recognizer, Stage, network
from modalift.networks.heads import bin_weights
from modalift.networks.resnet import Layout, ResNet
from modalift.networks.shift import shift
from modalift.report.console import ConsoleMonitor
from modalift.report.numbers import percent, points_span

HERE = Path(__file__).resolve().parent
DARK_PEOPLE = "s13,s14,s15,s16"
#: Where a design is tried: recipe, whose clips it is not trained on, epochs.
SCREENS = {"s7": ("utd_mhad/single_depth", "s7", 40), "s3": ("utd_mhad/single_depth", "s3", 40),
           "s1": ("utd_mhad/single_depth", "s1", 40), "s5": ("utd_mhad/single_depth", "s5", 40),
           "dark": ("darkroom/teacher_thermal", DARK_PEOPLE, 14)}


@dataclass(frozen=True)
class Design:
    """One way to build it: options of :func:`small_candidate`, and where it was tried."""

    idea: str
    options: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


DESIGNS: dict[str, Design] = {}  # filled below


# ---- the designs ----------------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """A residual block in one of several makes, its input mixed in time by a shift or by a learned convolution.

    Args:
        channels, width, stride: of its input, of its convolutions, in space.
        mixing: ``shift``, or ``conv``: a channelwise convolution over three frames that begins as the shift.
        kind: ``basic``; ``separable``: depthwise and pointwise in place of each 3 x 3; ``inverted``: four times the
            channels inside, depthwise.
        squeeze: whether channels are weighed by their means over the image (squeeze and excitation).
        shift_div: of the shift.
    """

    def __init__(self, channels: int, width: int, stride: int, mixing: str, kind: str, squeeze: bool, shift_div: int) -> None:
        super().__init__()
        wide = {"basic": width, "separable": width, "inverted": 4 * channels}[kind]
        first: nn.Module
        if kind == "inverted":
            first = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True),
                                  nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False))
        else:
            first = _spatial(channels, width, stride, kind)
        self.conv1, self.bn1 = first, nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, width, 1, bias=False) if kind == "inverted" else _spatial(width, width, 1, kind)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shift_div, self.mix, self.weigh = shift_div, None, None
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        if mixing == "conv":
            f, begin = channels // shift_div, torch.zeros(3, channels)
            begin[2, :f] = begin[0, f:2 * f] = begin[1, 2 * f:] = 1
            self.mix = nn.Parameter(begin)
        if squeeze:
            self.weigh = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.Sigmoid())

    def forward(self, x: Tensor, frames: int, past: Tensor | None = None) -> Tensor:
        if self.mix is None:
            y = shift(x, frames, self.shift_div)
        else:
            clip, weight = x.unflatten(0, (-1, frames)), self.mix.to(x.dtype)[:, :, None, None]
            y = clip * weight[1]
            y[:, 1:] += clip[:, :-1] * weight[0]
            y[:, :-1] += clip[:, 1:] * weight[2]
            y = y.flatten(0, 1)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(y)))))
        if self.weigh is not None:
            y = y * self.weigh(y.mean((2, 3)))[:, :, None, None]
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def _spatial(channels: int, width: int, stride: int, kind: str) -> nn.Module:
    if kind == "basic":
        return nn.Conv2d(channels, width, 3, stride, 1, bias=False)
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels),
                         nn.Conv2d(channels, width, 1, bias=False))


class TriedHead(nn.Module):
    """The order-aware head with other ways of pooling a frame, and more temporal convolutions.

    Args:
        pool: ``mean``; ``gridN``: means of N x N cells; ``where``: means, and the expected place of
            each channel under a softmax over the image.
        depth: temporal convolutions; the second and later ones are dilated by 2, 4, ... around a skip path.
    """

    def __init__(self, channels: int, classes: int, bins: int, dropout: float, pool: str, depth: int) -> None:
        super().__init__()
        hidden, places = 2 * channels, int(pool[4:]) ** 2 if pool.startswith("grid") else {"mean": 1, "where": 3}[pool]
        self.bins, self.pool = bins, pool
        self.sharp = nn.Parameter(torch.ones(channels)) if pool == "where" else None
        self.conv = nn.Conv1d(places * channels, hidden, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm1d(hidden)
        self.more = nn.ModuleList(
            nn.Sequential(nn.Conv1d(hidden, hidden, 3, padding=2**i, dilation=2**i, bias=False), nn.BatchNorm1d(hidden))
            for i in range(1, depth))
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden * bins, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv1d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")

    def pooled(self, x: Tensor) -> Tensor:
        if self.pool == "mean":
            return x.mean((3, 4))
        y = x.transpose(1, 2).flatten(0, 1)
        if self.sharp is None:
            y = F.adaptive_avg_pool2d(y, int(self.pool[4:])).flatten(1)
        else:
            y = y.float()
            share = (y.flatten(2) * self.sharp[:, None]).softmax(2).unflatten(2, y.shape[2:])
            down, across = (torch.linspace(-1, 1, n, device=x.device) for n in y.shape[2:])
            y = torch.cat([y.mean((2, 3)), (share.sum(3) * down).sum(2), (share.sum(2) * across).sum(2)], 1)
        return y.unflatten(0, (x.shape[0], -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        u = F.relu(self.bn(self.conv(self.pooled(x))))
        for more in self.more:
            u = F.relu(u + more(u))
        logits: Tensor = self.fc(self.drop((u @ bin_weights(u.shape[2], self.bins, u.device).to(u.dtype)).flatten(1)))
        return logits


@network("small_candidate", papers="Modalift's own", clip=(3, 16, 56))
def small_candidate(spec: NetworkSpec, *, width: int = 16, blocks: int = 1, dropout: float = 0.3, bins: int = 4,
                    shift_div: int = 8, mixing: str = "shift", kind: str = "basic", squeeze: bool = False, pool: str = "mean",
                    depth: int = 1, widths: str = "", strides: str = "1-2-2", stem: int = 2) -> Recognizer:
    """`small` (to the same random weights) and the designs beside it.

    Args:
        mixing, kind, squeeze: see :class:`Mixed`.
        pool, depth: see :class:`TriedHead`.
        widths, strides: channels and stride of each block, as ``64-128``; by default the usual doubling.
        stem: its stride, 2, or 4 with a kernel of 7; only with ``widths``.
    """
    trunk = ResNet(spec.prepared_channels, Layout((blocks,) * 3, small_stem=True), width, "residual", shift_div)
    if widths:
        _rebuild(trunk, spec.prepared_channels, [int(w) for w in widths.split("-")], [int(s) for s in strides.split("-")], stem,
                 mixing, kind, squeeze, shift_div)
    elif (mixing, kind, squeeze) != ("shift", "basic", False):
        inside = width
        for i in range(3):
            stage = []
            for j in range(blocks):
                stage.append(Mixed(inside, width * 2**i, 2 if i and not j else 1, mixing, kind, squeeze, shift_div))
                inside = width * 2**i
            setattr(trunk, f"layer{i + 1}", nn.Sequential(*stage))
        _begin(trunk)
    return Recognizer(spec, trunk, TriedHead(trunk.channels, spec.classes, bins, dropout, pool, depth))


def _rebuild(trunk: ResNet, channels: int, widths: list[int], strides: list[int], stem: int, *make: Any) -> None:
    """Gives a trunk other stages: one block each."""
    inside, stride = trunk.conv1.out_channels, stem
    if stem == 4:
        trunk.conv1 = nn.Conv2d(channels, inside, 7, 4, 3, bias=False)
    trunk.stages = {"stem": Stage(inside, stem)}
    for i, (width, step) in enumerate(zip(widths, strides, strict=True)):
        setattr(trunk, f"layer{i + 1}", nn.Sequential(Mixed(inside, width, step, *make)))
        inside, stride = width, stride * step
        trunk.stages[f"layer{i + 1}"] = Stage(inside, stride)
    for i in range(len(widths), 3):
        delattr(trunk, f"layer{i + 1}")
    trunk.channels = inside
    _begin(trunk)


def _begin(trunk: nn.Module) -> None:
    for m in trunk.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


DESIGNS |= {
    "today": Design("width 16, one block per stage, mean over the image, 4 spans", (), ("s7", "s3", "dark")),
    "grid2": Design("means of 2 x 2 cells", ("pool=grid2",), ("s7",)),
    "grid3": Design("means of 3 x 3 cells", ("pool=grid3",), ("s7", "s3", "dark")),
    "grid6": Design("6 x 6 cells: every place of the map", ("pool=grid6",), ("s7", "s3", "dark")),
    "where": Design("the place of each channel: softmax over the image", ("pool=where",), ("s7",)),
    "deep head": Design("three dilated temporal convolutions in the head", ("depth=3",), ("s7",)),
    "learned mixing": Design("channelwise temporal convolution that begins as the shift", ("mixing=conv",), ("s7",)),
    "width 24": Design("", ("width=24",), ("s7",)),
    "width 32": Design("", ("width=32",), ("s7",)),
    "width 12, grid3": Design("", ("width=12", "pool=grid3"), ("s7",)),
    "width 32, grid3": Design("", ("width=32", "pool=grid3"), ("s7",)),
    "late width": Design("16, 64, 128 channels, 3 x 3 cells", ("widths=16-64-128", "pool=grid3"), ("s7",)),
    "coarse stem": Design("stem of stride 4; 32, 64, 128 channels, 3 x 3 cells",
                          ("width=32", "stem=4", "widths=32-64-128", "strides=1-2-1", "pool=grid3"), ("s7",)),
    "two stages": Design("64, 128 channels, 3 x 3 cells", ("widths=64-128", "strides=2-2", "pool=grid3"), ("s7",)),
    "two narrow stages": Design("48, 96 channels, 4 x 4 cells", ("widths=48-96", "strides=2-2", "pool=grid4"), ("s7",)),
    "two blocks": Design("a ResNet-14", ("blocks=2",)),
    "squeeze": Design("squeeze and excitation", ("squeeze=true",)),
    "separable": Design("depthwise and pointwise for each 3 x 3, width 24", ("kind=separable", "width=24")),
    "inverted": Design("inverted residuals", ("kind=inverted",)),
}
#: Trained on the complete training splits and evaluated on the test splits: name -> options of `small` itself.
FINAL: dict[str, tuple[str, ...]] = {"today": ("grid=1",), "grid6": ("grid=6",)}
FINAL_SEEDS = 3
TESTS = {"utd": ("utd_mhad/single_depth", 80), "dark": ("darkroom/teacher_thermal", 14)}


# ---- cost -----------------------------------------------------------------------------------------------------------


def costs(rounds: int = 9) -> dict[str, dict[str, float]]:
    """Parameters, MACs, and median CPU milliseconds per clip of a bf16 training step and of a forward pass, in alternation."""
    torch.set_num_threads(1)
    nets = {name: networks.build("small_candidate", classes=27, view="depth", frames=16, size=48, motion="clip",
                                 **{k: _value(v) for k, v in (o.split("=") for o in design.options)})
            for name, design in DESIGNS.items()}
    steps: dict[str, list[float]] = {n: [] for n in nets}
    answers: dict[str, list[float]] = {n: [] for n in nets}
    clips, labels = torch.randint(500, 4000, (8, 1, 16, 48, 48)), torch.randint(0, 27, (8,))
    for _ in range(rounds):
        for name, net in nets.items():
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(net.train()(clips), labels)
            loss.backward()
            steps[name].append((time.process_time() - started) / len(clips))
            started = time.process_time()
            with torch.no_grad():
                net.eval()(clips[:1])
            answers[name].append(time.process_time() - started)
    found = {n: networks.cost(net, 16, 48) for n, net in nets.items()}
    return {n: {"parameters": found[n].parameters, "macs": found[n].macs, "step_ms": 1e3 * statistics.median(steps[n]),
                "answer_ms": 1e3 * statistics.median(answers[n])} for n in nets}


def _value(text: str) -> Any:
    return {"true": True}.get(text, int(text) if text.isdigit() else text)


# ---- training -------------------------------------------------------------------------------------------------------


def places(recipe: str, runs: Path, data: Path) -> tuple[str, ...]:
    if recipe.startswith("utd_mhad"):
        return (f"data.root={data}", f"data.cache={runs / 'cache'}")
    return (f"data.root={runs / 'darkroom'}", "data.labeled=1.0")


def screen(design: str, where: str, runs: Path, data: Path) -> Cell:
    """A training without some of the training people, who are its validation; the test split is not used."""
    recipe, held, epochs = SCREENS[where]
    options = [f"networks.student.{o}" for o in ("name=small_candidate", *DESIGNS[design].options)]
    return Cell(design.replace(", ", "-").replace(" ", "-"), recipe, 0, 0, 0,
                (*places(recipe, runs, data), *options, f"optim.epochs={epochs}", f"protocol.val_subjects=[{held}]",
                 f"protocol.eval_every={epochs}"))


def screen_all(runs: Path, data: Path, console: Console) -> None:
    for where in SCREENS:
        for design in (d for d in DESIGNS if where in DESIGNS[d].tried):
            cell = screen(design, where, runs, data)
            if not cell.run(runs / where).finished:
                console.print(f"{where}: {design}", highlight=False)
                command = [sys.executable, "-m", "modalift.cli", "--plugin", str(Path(__file__).resolve()),
                           *cell.command(runs / where), "--json"]
                if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                    raise ModaliftError(f"the training of '{design}' without {where} failed - its message is above")


def validation(run: Run) -> dict[str, float] | None:
    """Top-1 and loss of the people who were held out, after the last epoch."""
    if not run.finished:
        return None
    looks = [e for e in map(json.loads, (run.folder / "log.jsonl").read_text().splitlines()) if e.get("val")]
    found: dict[str, float] = looks[-1]["val"]["student"]
    return found


def finals(test: str, runs: Path, data: Path) -> list[Cell]:
    recipe, epochs = TESTS[test]
    return [Cell(name, recipe, seed, 0, 0,
                 (*places(recipe, runs, data), *(f"networks.student.{o}" for o in options), f"optim.epochs={epochs}"))
            for seed in range(FINAL_SEEDS) for name, options in FINAL.items()]


# ---- report ---------------------------------------------------------------------------------------------------------


def screened(runs: Path, data: Path, cost: dict[str, dict[str, float]]) -> list[str]:
    names = [w for w in SCREENS if any(w in d.tried for d in DESIGNS.values())]
    lines = ["| design | what is different | parameters | M MACs | step ms | answer ms | " + " | ".join(
        f"{'Darkroom' if w == 'dark' else w}: top-1, loss" for w in names) + " |", "|" + "---|" * (6 + len(names))]
    for name, design in DESIGNS.items():
        c = cost[name]
        cells = []
        for where in names:
            found = validation(screen(name, where, runs, data).run(runs / where)) if where in design.tried else None
            cells.append(f"{100 * found['top1']:.1f}, {found['loss']:.2f}" if found else "-")
        lines.append(f"| {name} | {design.idea or ', '.join(design.options)} | {c['parameters']:,.0f} | {c['macs'] / 1e6:.0f} |"
                     f" {c['step_ms']:.1f} | {c['answer_ms']:.1f} | {' | '.join(cells)} |")
    return lines


def tested(test: str, runs: Path, data: Path) -> list[str]:
    title = {"utd": "UTD-MHAD depth, official test split, 80 epochs",
             "dark": "Darkroom, thermal camera, all labels, test people, 14 epochs"}[test]
    cells, home = finals(test, runs, data), runs / f"test_{test}"
    there = [c for c in cells if c.run(home).predictions_path("student", "test").is_file()]
    if not there:
        return [f"## {title}", "", "Not trained yet.", ""]
    found = summary(there, home)["rows"]
    lacking = [f"`{c.name}` seed {c.seed}" for c in cells if c not in there]
    lines = [f"## {title}", "", "| design | options | tera MACs per run | top-1, each seed | mean | deviation |",
             "|---|---|---|---|---|---|"]
    pairs = []
    for row in found:
        each = " ".join(f"{100 * t:.1f}" for t in row["top1"])
        lines.append(f"| {row['name']} | {' '.join(FINAL[row['name']])} | {row['training_macs'] / 1e12:.1f} | {each} |"
                     f" {percent(row['mean'])} | {percent(row['sd']) if row['sd'] else '-'} |")
        if d := row.get("against_first"):
            pairs.append(f"- `{row['name']}` against `{found[0]['name']}`: **{100 * d['difference']:+.1f} points** (95 % over"
                         f" seeds: {points_span(d['over_seeds'])};"
                         f" over subjects and seeds: {points_span(d['over_subjects_seeds'])})")
    if lacking:
        pairs.append(f"Not trained yet: {', '.join(lacking)}.")
        if test == "utd":
            pairs.append(earlier())
    return [*lines, "", *pairs, ""]


def earlier() -> str:
    """What the same cells of `today` reached in the study of utd_mhad.md, whose recipe is the same."""
    rows = (HERE / "results" / "utd_mhad.md").read_text().splitlines()
    cells = next(r for r in rows if r.startswith("| single_depth | 80 |")).split("|")
    return (f"`today` is the recipe `single_depth`; its seeds from 0 stand in [utd_mhad.md](utd_mhad.md): {cells[5].strip()},"
            f" mean {cells[6].strip()}, deviation {cells[7].strip()}.")


def write(runs: Path, data: Path) -> Path:
    measured: dict[str, dict[str, float]] = json.loads((runs / "cost.json").read_text())
    text = [
        "# Which `small`?", "", "Made by `python benchmarks/small.py`.", "",
        f"{hardware('bf16 in training, float32 in answers')} Other work on the machine at the same time.",
        "Milliseconds are CPU time a clip (1 x 16 x 48 x 48), medians, designs in alternation: of a training step of eight"
        " clips without the optimizer, and of one answer in float32.", "",
        "## Designs, on people held out of the training split", "",
        "One seed. UTD-MHAD: 40 epochs without training subject s7 (or another), who then is the validation: about 108 clips,"
        " so a difference below about ten points between two cells is within chance; the loss says more."
        f" Darkroom: thermal, all labels, 14 epochs without {DARK_PEOPLE} (320 clips). `-`: not tried; where the step alone is"
        " several times as dear, no training was made.", "",
        *screened(runs, data, measured), "", *(line for test in TESTS for line in tested(test, runs, data)),
    ]
    path = HERE / "results" / "small.md"
    path.write_text("\n".join(text).rstrip("\n") + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data" / "utd_mhad_depth")
    parser.add_argument("--runs", type=Path, default=Path("runs/small"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=["cost", "screen", "test"], help="do only these parts")
    parser.add_argument("--report", action="store_true", help="do not train, only write the results")
    given = parser.parse_args()
    console, parts = Console(stderr=True), given.only or ["cost", "screen", "test"]
    if not (given.runs / "cost.json").is_file() or (given.only and "cost" in parts):
        given.runs.mkdir(parents=True, exist_ok=True)
        (given.runs / "cost.json").write_text(json.dumps(costs(), indent=1))
    if not given.report:
        if not (given.runs / "cache").is_dir():
            build_cache(datasets.open("csv", given.data), given.runs / "cache", ["depth"], codec="raw")
        if not (given.runs / "darkroom").is_dir():
            darkroom.simulate(given.runs / "darkroom", clips=1600, workers=given.jobs, test_share=0.2,
                              modalities=["rgb", "thermal"])
        if "screen" in parts:
            screen_all(given.runs, given.data, console)
        for test in TESTS if "test" in parts else ():
            run_cells(finals(test, given.runs, given.data), given.runs / f"test_{test}", jobs=given.jobs,
                      monitor=ConsoleMonitor(console))
            write(given.runs, given.data)
    console.print(f"written: {write(given.runs, given.data)}")


if __name__ == "__main__":
    main()
