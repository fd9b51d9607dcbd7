"""Time and memory of the networks, and of the published implementations of three of them.

    python benchmarks/networks.py                        # reference, families: on the CPU, one thread
    python benchmarks/networks.py --sections reference --only tsm i3d --rounds 9
    python benchmarks/networks.py --sections compiled    # what Inductor gains (needs a C++ compiler; minutes)
    python benchmarks/networks.py --sections gpu         # clips per second at each paper's input, where there is a GPU
    python benchmarks/networks.py --table                # only the generated tables of docs/networks.md

Times are CPU seconds of this process, measured in alternation within one run, so that other work on the machine affects all
equally; ratios are of the same round. References (:mod:`reference_networks`) do the published code's operations with our
weights, and are first asserted to give our outputs and gradients. Rows are written to `benchmarks/results/networks.md`;
rows that were not selected are kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalift import networks
from modalift.engine.processor import hardware
from modalift.report import costing

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from network_tables import with_tables  # noqa: E402
from reference_networks import REFERENCES, counterpart, take_weights  # noqa: E402

RESULTS = HERE / "results" / "networks.md"
DOCUMENT = HERE.parent / "docs" / "networks.md"
CLASSES = 27
#: Family -> (CPU time, saved activations) that a training step of ours may have at most, as shares of the reference's.
GOALS: dict[str, tuple[float, float | None]] = {"tsm": (0.8, 0.7), "action_net": (0.7, 0.6), "i3d": (0.95, None)}
#: Families whose compiled form is timed by default: one of each kind.
COMPILED = ("small", "tsm", "action_net", "i3d", "r3d")

Step = Callable[[], object]


# ---- measuring ------------------------------------------------------------------------------------------------------


def built(name: str, frames: int, size: int, **options: Any) -> nn.Module:
    """A family's network for a clip of these extents, or of the smallest possible ones; for signals, the default clip."""
    info = networks.FAMILIES[name]
    signal = info.clip[2] == 1
    frames, size = (info.clip[1], 1) if signal else (frames, size)
    net = networks.build(name, classes=CLASSES, view=info.view, channels=info.clip[0], frames=frames, size=size, **options)
    least = net.backbone.smallest
    if frames < least[0] or size < least[1]:
        frames, size = max(frames, least[0]), max(size, least[1])
        net = networks.build(name, classes=CLASSES, view=info.view, channels=info.clip[0], frames=frames, size=size, **options)
    return net


def recognizers() -> list[str]:
    """The families that give logits."""
    return [name for name in networks.NETWORKS if networks.has_classes(name)]


def clips_for(net: nn.Module, batch: int) -> Tensor:
    shape = (batch, net.channels, net.frames, net.size, net.size)
    torch.manual_seed(1)
    return torch.randn(shape) if net.size == 1 else torch.randint(0, 256, shape, dtype=torch.uint8)


def channels_last(net: nn.Module) -> nn.Module:
    """The network with its convolutions' weights in channels-last order, two- and three-dimensional ones alike."""
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    for p in net.parameters():
        if p.dim() in orders:
            p.data = p.data.contiguous(memory_format=orders[p.dim()])
    return net


def trained(net: Callable[[Tensor], Tensor], clip: Tensor, labels: Tensor, half: bool = False) -> Step:
    """A training step without its optimizer, which is the same for all."""
    weights = [p for p in net.parameters() if p.requires_grad]  # type: ignore[attr-defined]

    def step() -> None:
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(net(clip).float(), labels)
        loss.backward()
        for p in weights:
            p.grad = None

    return step


def asked(net: Callable[[Tensor], Tensor], clip: Tensor, half: bool = False) -> Step:
    """A forward pass without gradients."""
    def step() -> None:
        with torch.no_grad(), torch.autocast(clip.device.type, torch.bfloat16, enabled=half):
            net(clip)

    return step


def in_turns(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each step in each round; in a round every step has its turn, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for turn in range(rounds):
        for name in sorted(steps, reverse=bool(turn % 2)):
            start = time.process_time()
            steps[name]()
            times[name].append(time.process_time() - start)
    return times


def kept(net: nn.Module, clip: Tensor) -> int:
    """Bytes of distinct storages that a training step keeps for its backward pass, weights and buffers excluded."""
    own = {t.untyped_storage().data_ptr() for t in [*net.parameters(), *net.buffers()]}
    found: dict[int, Any] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            found[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = net.train()(clip)
    del out
    return sum(s.nbytes() for s in found.values())


def _peak(name: str, kind: str, batch: int) -> float:
    """In a process of its own: MiB by which a training step raises the most memory that the process ever held."""
    torch.set_num_threads(1)
    net = REFERENCES[name](CLASSES, 8) if kind == "reference" else built(name, 8, 112)
    net = channels_last(net) if "channels-last" in kind else net
    clip = torch.rand(batch, 3, 8, 112, 112) if kind == "reference" else clips_for(net, batch)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)  # gradients are the same for all
    step = trained(net.train(), clip[:, :, :, :32, :32].contiguous(), torch.zeros(batch, dtype=torch.long))
    step()  # libraries load and set aside what they need
    before = _most_held()
    trained(net, clip, torch.zeros(batch, dtype=torch.long))()
    return _most_held() - before


def _most_held() -> float:
    """MiB; Linux's own figure of this program, because getrusage's begins with that of the process that started it."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    return int(found[1]) / 1024 if found else float("nan")


def peak(name: str, kind: str, batch: int = 2) -> float:
    """See :func:`_peak`: an independent look at what :func:`kept` counts, temporary tensors included."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak, name, kind, batch).result()


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """``median (first quartile-third quartile)``."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    form = ".0f" if form == ".3g" and low >= 100 else form
    return f"{middle:{form}} ({low:{form}}-{high:{form}})"


# ---- beside the published implementations ---------------------------------------------------------------------------


def shaken(net: nn.Module) -> None:
    """Weights as training leaves them: nothing is at the special values it was initialized to."""
    torch.manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p) * p.square().mean().sqrt().clamp(min=0.1))


def agree(name: str) -> float:
    """The largest relative difference of outputs and gradients between ours and the reference, in double precision.

    Raises:
        AssertionError: it is above 1e-6.
    """
    worst = 0.0
    for moved in (False, True):
        torch.manual_seed(0)
        ours = networks.build(name, classes=5, view="rgb", frames=4, size=64, dropout=0.0, mean=(110,), std=(60,)).double()
        if moved:
            shaken(ours)
        reference = REFERENCES[name](5, 4).double()
        take_weights(reference, ours)
        clip = torch.rand(2, 3, 4, 64, 64, dtype=torch.float64) * 255
        labels = torch.tensor([1, 3])
        for net, given in ((ours.train(), clip), (reference.train(), (clip - 110) / 60)):
            F.cross_entropy(net(given), labels).backward()
        own = dict(ours.named_parameters())
        pairs = [(own[counterpart(k, own)].grad.reshape(p.shape), p.grad) for k, p in reference.named_parameters()]
        pairs.append((ours(clip).detach(), reference((clip - 110) / 60).detach()))
        scale = max(float(b.abs().max()) for _, b in pairs[:-1])
        for a, b in pairs:
            # A gradient that is nothing but rounding (a bias before BatchNorm) is compared on the scale of the others.
            worst = max(worst, float((a - b).abs().max() / max(float(b.abs().max()), 1e-6 * scale)))
    assert worst < 1e-6, f"{name}: ours and the reference differ by {worst:.1e}"
    return worst


def beside_reference(name: str, rounds: int) -> list[list[str]]:
    difference = agree(name)
    plain = built(name, 8, 112)
    shaken(plain)
    last = channels_last(built(name, 8, 112))
    last.load_state_dict(plain.state_dict())
    reference = REFERENCES[name](CLASSES, 8)
    take_weights(reference, plain)
    nets = {"reference": reference, "ours": plain, "ours, channels-last": last}
    clip, labels = clips_for(plain, 2), torch.tensor([3, 5])
    floats = (clip - 110.0) / 60  # the published loaders normalize; ours do so inside
    steps = {k: trained(net.train(), floats if net is reference else clip, labels) for k, net in nets.items()}
    times = in_turns(steps, rounds)
    memory = {k: kept(net, floats if net is reference else clip) for k, net in nets.items()}
    rows = []
    for key in nets:
        share = [a / b for a, b in zip(times[key], times["reference"], strict=True)]
        saved = memory[key] / memory["reference"]
        goal = verdict(name, statistics.median(share), saved) if key != "reference" else f"agrees to {difference:.0e}"
        rows.append([f"{name}: {key}", spread([t / 2 for t in times[key]]), "1" if key == "reference" else spread(share),
                     f"{memory[key] / 2**20:.0f}", f"{saved:.2f}", f"{peak(name, key):.0f}", goal])
    return rows


def verdict(name: str, seconds: float, saved: float) -> str:
    time_goal, memory_goal = GOALS[name]
    said = [f"time {time_goal:g}: {'met' if seconds <= time_goal else 'MISSED'}"]
    if memory_goal is not None:
        said.append(f"memory {memory_goal:g}: {'met' if saved <= memory_goal else 'MISSED'}")
    return ", ".join(said)


# ---- every family ---------------------------------------------------------------------------------------------------


def family(name: str, rounds: int) -> list[list[str]]:
    net = channels_last(built(name, 8, 64))
    clip, labels = clips_for(net, 2), torch.tensor([3, 5])
    found = {}
    for kind in ("training", "inference"):
        net.train(kind == "training")
        steps = {half: trained(net, clip, labels, half == "bf16") if kind == "training" else asked(net, clip, half == "bf16")
                 for half in ("f32", "bf16")}
        found[kind] = in_turns(steps, rounds)
    cells = [name, " x ".join(map(str, clip.shape[1:]))]
    for times in found.values():
        cells.append(spread([2 / t for t in times["f32"]], ".3g"))
    for times in found.values():
        cells.append(spread([a / b for a, b in zip(times["bf16"], times["f32"], strict=True)]))
    return [[*cells, f"{kept(net, clip) / 2 / 2**20:.1f}"]]


def compiled(name: str, rounds: int) -> list[list[str]]:
    """What Inductor gains; the network is small, so that compiling it takes seconds."""
    options = {"backbone": "resnet18"} if name in ("tsm", "r3d") and "backbone" in networks.options_of(name) else {}
    net = channels_last(built(name, 8, 64, **options))
    clip, labels = clips_for(net, 2), torch.tensor([3, 5])
    cells = [" ".join([name, *options.values()]), " x ".join(map(str, clip.shape[1:]))]
    start = time.process_time()
    for kind in ("training", "inference"):
        net.train(kind == "training")
        torch._dynamo.reset()
        quick = torch.compile(net, fullgraph=True)
        make: Callable[[Any], Step] = (lambda n: trained(n, clip, labels)) if kind == "training" else (lambda n: asked(n, clip))
        times = in_turns({"eager": make(net), "compiled": make(quick)}, rounds)
        cells.append(spread([a / b for a, b in zip(times["compiled"], times["eager"], strict=True)]))
    return [[*cells, f"{time.process_time() - start:.0f}"]]


def why_not_compiled() -> str | None:
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) or shutil.which("clang++") else f"no C++ compiler ({compiler}) for Inductor"


# ---- a GPU ----------------------------------------------------------------------------------------------------------


def on_gpu(name: str, rounds: int) -> list[list[str]]:
    """Clips per second and peak memory at its paper's clip: bf16, channels-last, compiled and eager."""
    torch.backends.cudnn.benchmark = True
    clip_of, batch = costing.clip_of(name), 8
    cells = [name, str(clip_of).replace("x", " x ")]
    cells += [*_gpu_cells(name, batch, rounds, compiled=False), *_gpu_cells(name, batch, rounds, compiled=True)]
    return [[*cells, str(batch)]]


def _gpu_cells(name: str, batch: int, rounds: int, compiled: bool) -> Iterator[str]:
    clip_of = costing.clip_of(name)
    for kind in ("training", "inference"):
        torch.manual_seed(0)
        torch._dynamo.reset()
        net = channels_last(built(name, clip_of.frames, clip_of.height)).cuda().train(kind == "training")
        clip = clips_for(net, batch).cuda()
        labels = torch.zeros(batch, dtype=torch.long, device=clip.device)
        run = torch.compile(net, fullgraph=True) if compiled else net
        step = trained(run, clip, labels, True) if kind == "training" else asked(run, clip, True)
        try:
            for _ in range(3):
                step()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            rates = []
            for _ in range(max(5, rounds)):
                start = time.perf_counter()
                for _ in range(5):
                    step()
                torch.cuda.synchronize()
                rates.append(5 * batch / (time.perf_counter() - start))
            yield f"{statistics.median(rates):.0f} clips/s, {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
        except torch.cuda.OutOfMemoryError:
            yield "out of memory"
        del net, run, clip, step
        torch.cuda.empty_cache()


def why_no_gpu() -> str | None:
    return None if torch.cuda.is_available() else "no GPU here"


# ---- writing --------------------------------------------------------------------------------------------------------

#: Section -> its title, what is said above its table, the table's header, what makes a family's rows, its families,
#: and why it cannot run here (None if it can).
SECTIONS: dict[str, tuple[str, str, list[str], Callable[[str, int], list[list[str]]], Callable[[], Iterable[str]],
                          Callable[[], str | None]]] = {
    "reference": (
        "Training steps beside the published implementations' operations",
        "Forward and backward at 8 x 112 x 112, batch of 2, float32, one thread. Medians and quartiles; shares of the same "
        "round. Weights are perturbed, so that no path for initial weights can be taken. "
        "Peak memory is what a step adds to the most that a fresh process has held: saved activations and temporary ones.",
        ["network", "CPU seconds per clip", "share of the reference's time", "saved activations, MiB per batch",
         "share of its memory", "peak memory of a step, MiB", "goal"], beside_reference, lambda: GOALS, lambda: None),
    "families": (
        "Every family at a small clip",
        "Clips a CPU second, one thread, batch of 2, channels-last; bf16 is autocast's time as a share of float32's.",
        ["network", "clip", "training, clips/s", "inference, clips/s", "bf16 training", "bf16 inference",
         "kept for backward, MiB a clip"], family, recognizers, lambda: None),
    "compiled": (
        "What `torch.compile` (Inductor) gains on the CPU",
        "Time of the compiled network as a share of the eager one's, one thread, batch of 2, float32, channels-last.",
        ["network", "clip", "training", "inference", "CPU seconds of all this"], compiled, lambda: COMPILED,
        why_not_compiled),
    "gpu": (
        "On a GPU, at the papers' inputs",
        "bf16 autocast, channels-last (-3d); peak memory of PyTorch's allocator.",
        ["network", "clip", "training, eager", "inference, eager", "training, compiled", "inference, compiled", "batch"],
        on_gpu, recognizers, why_no_gpu),
}


#: Section -> what its networks compute in.
PRECISION = {"reference": "fp32", "families": "float32 and bf16", "compiled": "fp32", "gpu": "bf16"}


def write_rows(section: str, rows: list[list[str]], to: Path) -> None:
    """Puts rows into their section; rows of other networks stay, unless they are of another machine."""
    title, said, header, *_ = SECTIONS[section]
    old: dict[str, str] = {}
    for part in (to.read_text() if to.is_file() else "").split("\n## ")[1:]:
        name, _, text = part.partition("\n")
        old[name] = text.strip()
    machine = hardware(PRECISION[section], on_gpu=section == "gpu")
    lines = old.get(title, "").splitlines() if machine in old.get(title, "") else []
    table = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    table = {k: v for k, v in table.items() if k not in (header[0], "---")}
    table |= {row[0]: "| " + " | ".join(row) + " |" for row in rows}
    old[title] = "\n".join([machine, said, "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|", *table.values()])
    parts = [f"## {SECTIONS[k][0]}\n\n{old[SECTIONS[k][0]]}" for k in SECTIONS if SECTIONS[k][0] in old]
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text("# Networks: time and memory\n\nMade by `python benchmarks/networks.py` (`--sections compiled`, "
                  "`--sections gpu`).\nCounts of parameters and multiply-accumulates: `docs/networks.md`.\n\n"
                  + "\n\n".join(parts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=["reference", "families"])
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="families; by default all of the section")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the Markdown file that gets the rows")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/networks.md and do nothing else")
    given = parser.parse_args()
    if given.table:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
        return
    torch.set_num_threads(1)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    warnings.filterwarnings("ignore", category=UserWarning)
    for section in given.sections:
        _, _, header, measure, families, why_not = SECTIONS[section]
        if reason := why_not():
            print(f"{section}: skipped, {reason}")
            continue
        print(f"{section}: {' | '.join(header)}")
        for name in families():
            if name not in networks.NETWORKS or (given.only and name not in given.only):
                continue
            rows = measure(name, given.rounds)
            write_rows(section, rows, given.out)
            for row in rows:
                print("  " + " | ".join(row), flush=True)


if __name__ == "__main__":
    main()
