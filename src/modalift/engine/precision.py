"""In which precision a training computes: half only where the hardware multiplies it and a measured step is faster.

On a processor without instructions for it, half precision is several times slower than float32; with them, a narrow
network may gain nothing. So ``run.precision=auto`` measures, and the run keeps what came out.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from modalift.engine.distributed import Ranks, broadcast
from modalift.engine.experiment import Experiment
from modalift.engine.monitor import Monitor
from modalift.engine.optim import freeze_others
from modalift.engine.processor import describe, environment
from modalift.engine.run import Run
from modalift.engine.selftest import safeguard
from modalift.files import write_text
from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.modalities import Batch
from modalift.schemes import Progress, Scheme, total

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Half precision is chosen where a training step in it takes at most this share of float32's time.
FASTER = 0.9
#: Seconds that measuring may take beyond one step in each precision, and the most steps in each.
BUDGET, STEPS = 1.0, 5


@dataclass(frozen=True)
class Choice:
    """What a training computes in.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        reason: why, in a few words.
        warns: whether it is likely not what was meant.
    """

    precision: str
    reason: str
    warns: bool = False

    def entry(self, device: torch.device) -> dict[str, Any]:
        """The first line of a run's log."""
        return {"kind": "start", "epoch": 0, "step": 0, "precision": self.precision, "reason": self.reason,
                "processor": describe().line(self.precision, device.type == "cuda")}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass computes in a precision."""
    return torch.autocast(device.type, HALF[precision]) if precision in HALF else nullcontext()


def settle(experiment: Experiment, run: Run, clips: ClipSet, ranks: Ranks, monitor: Monitor) -> Choice:
    """The precision of a run: what it began with, or what :func:`choose` says; kept in its ``environment.json``.

    Every process of a distributed training must call this, and all get the first one's choice. Nothing of the training
    is touched: the scheme is measured as a copy, and the random state is put back.
    """
    asked = experiment.recipe.run.precision
    choice = broadcast(_kept(run, asked), ranks)
    if choice is None:
        missing = broadcast(lacking(half_of(asked), ranks.device), ranks)  # all of them measure, or none
        choice = broadcast(choose(asked, missing, lambda half: share_of_time(
            half, experiment.scheme, first_batch(experiment, clips, ranks).to(ranks.device), ranks)), ranks)
        if ranks.is_main:
            chosen = {"device": ranks.device.type, "precision": choice.precision, "precision_asked": asked,
                      "precision_reason": choice.reason}
            write_text(run.environment, json.dumps(environment() | chosen, indent=1))
    if ranks.is_main:
        monitor.message(f"precision {choice.precision}: {choice.reason}", warning=choice.warns)
    return choice


def choose(asked: str, missing: str, share: Callable[[str], float]) -> Choice:
    """What a precision of a recipe means on this machine.

    Args:
        asked: ``auto``, or one of the precisions, which is then taken; a half one without hardware for it with a warning.
        missing: why the device does not multiply the half precision natively, as :func:`lacking` says; empty where it does.
        share: measures the time of a training step in a half precision as a share of float32's.
    """
    if asked == "fp32":
        return Choice("fp32", "as the recipe says")
    half = half_of(asked)
    if asked != "auto":
        if not missing:
            return Choice(asked, "as the recipe says")
        return Choice(asked, f"{asked} takes {share(asked):.1f} times as long as float32 on this processor ({missing})"
                             " - run.precision=auto", warns=True)
    if missing:
        return Choice("fp32", missing)
    measured = share(half)
    told = f"a training step in {half} takes {measured:.2f} of float32's time"
    return Choice(half if measured <= FASTER else "fp32", told)


def half_of(asked: str) -> str:
    """The half precision that is asked for, or that ``auto`` considers."""
    return "bf16" if asked == "auto" else asked


def lacking(half: str, device: torch.device) -> str:
    """Why a device multiplies no numbers of a half precision natively; empty where it does, and for float32."""
    if half not in HALF:
        return ""
    if device.type == "cpu":
        here = describe()
        return "" if here.multiplies(half) else here.lacks(half)
    if device.type == "cuda":
        native = half == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if native else f"the GPU does not multiply {half} natively"
    return f"nothing is known of {half} on '{device.type}'"


def first_batch(experiment: Experiment, clips: ClipSet, ranks: Ranks) -> Batch:
    """The first batch of the training."""
    optim, seed = experiment.recipe.optim, experiment.recipe.run.seed
    return next(iter(loader(clips, batch=optim.batch, shuffle=True, seed=seed, epoch=0, rank=ranks.rank, world=ranks.size,
                            per_class=optim.per_class)))


def share_of_time(half: str, scheme: Scheme, batch: Batch, ranks: Ranks) -> float:
    """The time of a training step in a half precision as a share of float32's; 0 where float32 does not fit in memory.

    A step is the forward and backward pass of every update, on a copy of the scheme; CPU time on a CPU, for other work on
    the machine disturbs it less. Of large networks one step in each precision is enough; of others the fastest of several
    counts, without the first.
    """
    probe, cuda = copy.deepcopy(scheme), ranks.device.type == "cuda"
    for dtype in (torch.float32, HALF[half]):  # what is wrong on this processor could end the process
        safeguard(probe, ranks.device, dtype)
    times: dict[str, list[float]] = {"fp32": [], half: []}
    try:
        with torch.random.fork_rng(devices=[ranks.device] if cuda else []):
            for precision, spent in times.items():
                spent.append(_step_time(probe, batch, precision, ranks.device))
            first = sum(spent[0] for spent in times.values())
            for _ in range(broadcast(min(STEPS, int(BUDGET / first)), ranks)):
                for precision, spent in times.items():
                    spent.append(_step_time(probe, batch, precision, ranks.device))
    except torch.OutOfMemoryError:
        if times["fp32"]:
            raise
        return 0.0
    finally:
        del probe
        if cuda:
            torch.cuda.empty_cache()
    fp32, other = (min(spent[1:] or spent) for spent in times.values())
    return other / fp32


def _step_time(scheme: Scheme, batch: Batch, precision: str, device: torch.device) -> float:
    """Seconds of one forward and backward pass of every update."""
    cuda = device.type == "cuda"
    now = time.process_time if device.type == "cpu" else time.perf_counter
    if cuda:
        torch.cuda.synchronize(device)
    started = now()
    for update in scheme.updates():
        with freeze_others(scheme, update):
            with autocast(precision, device):
                loss = total(scheme(batch, dataclasses.replace(Progress(), update=update.name)))
            loss.backward()
    if cuda:
        torch.cuda.synchronize(device)
    spent = now() - started
    scheme.zero_grad(set_to_none=True)
    return spent


def _kept(run: Run, asked: str) -> Choice | None:
    """What the run began with; None where it has not begun, or was begun with another precision in its recipe."""
    try:
        held = json.loads(run.environment.read_text(encoding="utf-8"))
        precision, by = held["precision"], held["precision_asked"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # it is measured anew, and a checkpoint of another precision refuses to go on
    return Choice(precision, "as this run began") if by == asked and precision in ("fp32", *HALF) else None
