"""How much faster a bundle predicts with ONNX Runtime than with PyTorch, measured in one run.

    python benchmarks/export.py [--rounds 15] [--threads 1] [--json]

Times of one clip, in process-CPU milliseconds and wall milliseconds; medians of rounds in which the two take turns, so
that other work on the machine disturbs both alike. The ratio is what carries over to another machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modalift import networks
from modalift.deploy.export import comparison_clips, export_onnx
from modalift.engine.processor import hardware
from modalift.loading.framing import Framing
from modalift.models.recognizer import RecognizerModel

#: Name -> options of networks.build: the network of the CPU, and the published one at a small and at its own size.
CASES: dict[str, dict[str, Any]] = {
    "small, 16 x 48 x 48": {"name": "small", "view": "depth", "frames": 16, "size": 48, "motion": "clip"},
    "small causal, 16 x 48 x 48": {"name": "small", "view": "depth", "frames": 16, "size": 48, "motion": "running",
                                   "causal": True},
    "tsm ResNet-18, 8 x 64 x 64": {"name": "tsm", "backbone": "resnet18", "view": "rgb", "frames": 8, "size": 64},
    "tsm ResNet-18, 8 x 112 x 112": {"name": "tsm", "backbone": "resnet18", "view": "rgb", "frames": 8, "size": 112},
}


def clocked(call: Callable[[], object]) -> tuple[float, float]:
    """Process-CPU and wall milliseconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def measure(options: dict[str, Any], rounds: int, threads: int, folder: Path) -> dict[str, Any]:
    """Medians of both runtimes for one network, and how well they agree."""
    import onnxruntime

    net = networks.build(classes=27, **options)
    framing = Framing(frames=options["frames"], size=options["size"])
    bundle = RecognizerModel(net, {net.view: framing}, [str(k) for k in range(27)])
    report = export_onnx(bundle, folder / "x.onnx")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(report.path), settings, providers=["CPUExecutionProvider"])
    clip = comparison_clips(bundle)[:1]
    given = {"clip": clip.numpy()}
    calls = {"eager": lambda: bundle.logits(clip), "onnxruntime": lambda: session.run(None, given)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():  # the first calls allocate and choose kernels
        call(), call()
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(clocked(call))
    cpu, wall = ({n: statistics.median(t[i] for t in ts) for n, ts in times.items()} for i in (0, 1))
    return {"cpu_ms": cpu, "wall_ms": wall, "times_faster": cpu["eager"] / cpu["onnxruntime"],
            "difference": report.difference, "onnx_bytes": report.bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(options, asked.rounds, asked.threads, Path(folder)) for name, options in CASES.items()}
    if asked.json:
        facts = {"hardware": hardware("fp32"), "rounds": asked.rounds}
        print(json.dumps({**facts, "cases": found}))
        return
    print(f"{hardware('fp32')} Medians of {asked.rounds} rounds.\n")
    print("| network, one clip | eager, CPU ms | ONNX Runtime, CPU ms | times faster | difference of largest logit |")
    print("|---|---|---|---|---|")
    for name, f in found.items():
        print(f"| {name} | {f['cpu_ms']['eager']:.1f} | {f['cpu_ms']['onnxruntime']:.1f} | {f['times_faster']:.2f} |"
              f" {f['difference']:.0e} |")


if __name__ == "__main__":
    main()
