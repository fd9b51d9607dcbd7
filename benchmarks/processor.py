"""Effects of the processor: half precision, memory format, threads, and the waiting policy of idle threads.

    python benchmarks/processor.py [--rounds 7] [--threads 1] [--limits "ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2"]

A training step (forward and backward) of `small` and of a temporal-shift ResNet-18 in every combination, in alternation
within one process, so that other work on the machine affects all equally; the waiting policy is fixed when PyTorch is
loaded, so each policy runs in its own process. Ratios to float32, channels-last, one thread: of CPU time (which other work
affects little) and of wall time. Every run replaces the section of its processor and its limits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from modalift import networks
from modalift.engine.distributed import to_device
from modalift.engine.precision import autocast
from modalift.engine.processor import LIMITS, hardware

RESULT = Path(__file__).resolve().parent / "results" / "processor.md"
#: Row -> family, options, clips of a batch, frames, pixels.
NETWORKS = {
    "small, 16 x 48 x 48, 16 clips": ("small", {"motion": "clip"}, 16, 16, 48),
    "small width=8, 8 x 32 x 32, 16 clips": ("small", {"motion": "clip", "width": 8}, 16, 8, 32),
    "tsm ResNet-18, 8 x 64 x 64, 4 clips": ("tsm", {"backbone": "resnet18"}, 4, 8, 64),
}
#: Column -> precision, channels-last, threads. The first is what the others are compared with.
WAYS = {
    "float32, channels-last, 1 thread": ("fp32", True, 1),
    "contiguous": ("fp32", False, 1),
    "bf16": ("bf16", True, 1),
    "2 threads": ("fp32", True, 2),
    "bf16, 2 threads": ("bf16", True, 2),
}
#: How idle threads wait -> the variables of OpenMP.
WAITING = {
    "asleep (Modalift's default)": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "spinning (OpenMP's default)": {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "300000"},
}


def step_of(family: str, options: dict[str, object], clips: int, frames: int, size: int, last: bool) -> nn.Module:
    net = networks.build(family, classes=10, view="rgb", channels=3, frames=frames, size=size, **options)  # type: ignore[arg-type]
    if last:
        to_device(net, torch.device("cpu"))
    return net.train()


def measure(rounds: int, threads: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Network -> way of at most so many threads -> (CPU, wall) seconds of each round."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row, (family, options, clips, frames, size) in NETWORKS.items():
        nets = {last: step_of(family, options, clips, frames, size, last) for last in (True, False)}
        clip, labels = torch.rand(clips, 3, frames, size, size) * 255, torch.randint(0, 10, (clips,))
        times: dict[str, list[tuple[float, float]]] = {way: [] for way, (_, _, own) in WAYS.items() if own <= threads}
        for turn in range(rounds + 1):
            for way in times:
                precision, last, own = WAYS[way]
                torch.set_num_threads(own)
                cpu, wall = time.process_time(), time.perf_counter()
                with autocast(precision, torch.device("cpu")):
                    logits = nets[last](clip)
                nn.functional.cross_entropy(logits.float(), labels).backward()
                if turn:  # the first round is a warm-up
                    times[way].append((time.process_time() - cpu, time.perf_counter() - wall))
                nets[last].zero_grad(set_to_none=True)
        found[row] = times
    return found


def cell(times: list[tuple[float, float]], base: list[tuple[float, float]]) -> str:
    """Medians over rounds of the ratios of CPU time and wall time."""
    cpu, wall = (statistics.median(a[i] / b[i] for a, b in zip(times, base, strict=True)) for i in (0, 1))
    return f"{cpu:.2f} ({wall:.2f})"


def section(limits: dict[str, str], rounds: int, threads: int) -> tuple[str, str]:
    """Title and text of the section of this processor under these limits."""
    title, lines = "", []
    for waiting, variables in list(WAITING.items())[:threads]:  # a single thread never waits
        clean = {k: v for k, v in os.environ.items() if k not in (*LIMITS, "OMP_NUM_THREADS")}
        command = [sys.executable, __file__, "--rounds", str(rounds), "--threads", str(threads), "--json"]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env={**clean, **limits, **variables})
        held = json.loads(done.stdout)
        title = held["title"]
        first, *ways = next(iter(held["times"].values()))
        lines += ["", f"Idle threads: {waiting}.", "", f"| training step | {first}, CPU ms per clip | {' | '.join(ways)} |",
                  "|---" * (len(ways) + 2) + "|"]
        for row, times in held["times"].items():
            base, *others = times.values()
            each = 1e3 * statistics.median(cpu for cpu, _ in base) / NETWORKS[row][2]
            lines.append(f"| {row} | {each:.2f} | {' | '.join(cell(other, base) for other in others)} |")
    return title, "\n".join(lines).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, choices=[1, 2], default=2, help="largest number; use 1 on a busy machine")
    parser.add_argument("--limits", default="", help="variables under which to measure, as NAME=VALUE NAME=VALUE")
    parser.add_argument("--json", action="store_true", help="measure in this process, as it is, and print the seconds")
    asked = parser.parse_args()
    if asked.json:
        times = measure(asked.rounds, asked.threads)
        torch.set_num_threads(asked.threads)
        print(json.dumps({"title": hardware("float32 and bf16").removesuffix("."), "times": times}))
        return
    title, text = section(dict(pair.split("=", 1) for pair in asked.limits.split()), asked.rounds, asked.threads)
    old: dict[str, str] = {}
    for part in (RESULT.read_text() if RESULT.is_file() else "").split("\n## ")[1:]:
        name, _, rest = part.partition("\n")
        old[name] = rest.strip()
    old[title] = text
    head = READING + "\n\n".join(f"## {name}\n\n{rest}" for name, rest in old.items())
    RESULT.write_text(head + "\n", encoding="utf-8")
    print(f"## {title}\n\n{text}")


READING = """# Effects of the processor

Made by `python benchmarks/processor.py` (`--threads 1 --limits "ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2"`).
Ratios to float32, channels-last, one thread, in the same round: of CPU time, and in brackets of wall time; medians.
Below 1 is faster.

"""

if __name__ == "__main__":
    main()
