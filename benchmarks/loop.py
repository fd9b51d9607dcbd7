"""Cost of the training loop apart from the networks: checkpoints, and the overhead per step.

    python benchmarks/loop.py

A checkpoint holds weights, the two moments of AdamW and the position in the data; it is synced to disk. Its share is its time
over `run.checkpoint_every_s` = 30 s. The overhead of a step is the time of the loop's step (terms, sums, finiteness check,
schedule) minus that of the simplest step that trains the same network on the same batch, measured in alternation.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from modalift import networks
from modalift.engine.checkpoint import TrainingState
from modalift.engine.logs import add_terms
from modalift.engine.optim import Plateau, build_optimizer, lr_multiplier, set_lr
from modalift.engine.processor import hardware
from modalift.modalities import Batch
from modalift.recipe import OptimSection
from modalift.schemes import Progress, build, total

HERE = Path(__file__).resolve().parent


def checkpoint(name: str, **options: object) -> tuple[float, float]:
    """Median seconds and megabytes of a checkpoint of a network and its AdamW."""
    net = networks.build(name, classes=27, view="depth", **options)  # type: ignore[arg-type]
    scheme, section = build("single", {"student": net}), OptimSection()
    optimizer = build_optimizer(section, scheme, scheme.updates()[0])
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainingState(scheme, {"all": optimizer}, Plateau(section), None, scaler, "x", "fp32")
    with tempfile.TemporaryDirectory() as folder:
        path, times = Path(folder) / "last.pt", []
        for _ in range(7):
            started = time.perf_counter()
            state.save(path)
            times.append(time.perf_counter() - started)
        return statistics.median(times), path.stat().st_size / 1e6


def steps(rounds: int = 30) -> tuple[float, float]:
    """Median CPU seconds of the loop's step and of the simplest one, alternating, on a tiny network."""
    net = networks.build("small", classes=4, view="depth", frames=4, size=16, width=8)
    scheme, section = build("single", {"student": net}), OptimSection()
    optimizer = build_optimizer(section, scheme, scheme.updates()[0])
    yes = torch.ones(4, dtype=torch.bool)
    batch = Batch({"depth": torch.rand(4, 1, 4, 16, 16) * 3000}, {}, {"depth": yes}, torch.arange(4), yes, torch.arange(4))
    sums: dict[str, float] = {}

    def ours() -> None:
        set_lr(optimizer, section.lr * lr_multiplier(section, 1.0))
        terms = scheme(batch, Progress())
        loss = total(terms)
        if not torch.isfinite(loss):
            raise ArithmeticError
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        add_terms(sums, terms)

    def plain() -> None:
        torch.nn.functional.cross_entropy(net(batch.clips["depth"]), batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        for name, step in (("ours", ours), ("plain", plain)):
            started = time.process_time()
            for _ in range(20):
                step()
            times[name].append((time.process_time() - started) / 20)
    return statistics.median(times["ours"]), statistics.median(times["plain"])


def main() -> None:
    torch.set_num_threads(1)
    lines = ["# Cost of the training loop", "", "Made by `python benchmarks/loop.py`.",
             f"{hardware('fp32')} Medians of 7 and 30 repeats.", "",
             "| checkpoint of | MB | ms | share of 30 s |", "|---|---|---|---|"]
    for title, name, options in (("small", "small", {"frames": 16, "size": 48}),
                                 ("tsm ResNet-18", "tsm", {"backbone": "resnet18"}),
                                 ("tsm ResNet-50", "tsm", {"backbone": "resnet50"})):
        seconds, size = checkpoint(name, **options)
        lines.append(f"| {title}, AdamW | {size:.1f} | {1e3 * seconds:.0f} | {seconds / 30:.2%} |")
    ours, plain = steps()
    lines += ["", f"A step of the loop takes {1e6 * (ours - plain):.0f} microseconds of CPU time more than the simplest step"
                  f" ({1e3 * ours:.2f} against {1e3 * plain:.2f} ms on a network so small that its cost is negligible)."]
    (HERE / "results" / "loop.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
