"""The precision of a training: half precision only where the hardware supports it and a measured step is faster.

On a processor without instructions for it, half precision is several times slower than float32; with them, a narrow
network may still gain nothing. So ``run.precision=auto`` measures a step, and the run records the choice.
"""

from __future__ import annotations

import copy
import dataclasses
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
from modalift.engine.selftest import avoid_incorrect_convolutions
from modalift.files import parse_json, to_json, write_text
from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.modalities import Batch
from modalift.schemes import Progress, Scheme, total

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Half precision is chosen where its training step takes at most this share of float32's time.
MAX_RELATIVE_TIME = 0.9
#: Seconds for measuring beyond one step in each precision, and the largest number of further steps in each.
MEASURE_SECONDS, MEASURE_STEPS = 1.0, 5


@dataclass(frozen=True)
class Choice:
    """The precision of a training, and why it was chosen.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        reason: why, in a few words.
        warning: whether to warn about it: the precision is slow here.
    """

    precision: str
    reason: str
    warning: bool = False

    def log_entry(self, device: torch.device) -> dict[str, Any]:
        """The first entry of a run's log."""
        return {"kind": "start", "epoch": 0, "step": 0, "precision": self.precision, "reason": self.reason,
                "processor": describe().line(self.precision, device.type == "cuda")}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context for a forward pass in a precision; float32 needs none."""
    return torch.autocast(device.type, HALF[precision]) if precision in HALF else nullcontext()


def resolve_precision(experiment: Experiment, run: Run, clips: ClipSet, ranks: Ranks, monitor: Monitor) -> Choice:
    """The precision of a run: the recorded one, or that of :func:`choose_precision`; recorded in ``environment.json``.

    Every process of a distributed training must call this, and all get the main process's choice. The training is not
    affected: a copy of the scheme is measured, and the random state is restored.

    Args:
        experiment: the scheme and its recipe.
        run: the run folder.
        clips: the training clips.
        ranks: the processes.
        monitor: receives the choice.
    """
    setting = experiment.recipe.run.precision
    choice = broadcast(_recorded(run, setting), ranks)
    if choice is None:
        unsupported = broadcast(unsupported_reason(half_of(setting), ranks.device), ranks)  # all measure, or none
        choice = broadcast(choose_precision(setting, unsupported, lambda half: relative_step_time(
            half, experiment.scheme, first_batch(experiment, clips, ranks).to(ranks.device), ranks)), ranks)
        if ranks.is_main:
            chosen = {"device": ranks.device.type, "precision": choice.precision, "precision_setting": setting,
                      "precision_reason": choice.reason}
            write_text(run.environment_path, to_json(environment() | chosen, indent=1))
    if ranks.is_main:
        monitor.message(f"precision {choice.precision}: {choice.reason}", warning=choice.warning)
    return choice


def choose_precision(setting: str, unsupported: str, relative_time: Callable[[str], float]) -> Choice:
    """Chooses the precision for a recipe's ``run.precision`` on this machine.

    Args:
        setting: ``auto`` or a precision, which is then taken, with a warning where the hardware does not support it.
        unsupported: why the device does not support the half precision, see :func:`unsupported_reason`; empty where it does.
        relative_time: measures the time of a training step in half precision relative to float32's.
    """
    if setting == "fp32":
        return Choice("fp32", "as the recipe says")
    half = half_of(setting)
    if setting != "auto":
        if not unsupported:
            return Choice(setting, "as the recipe says")
        return Choice(setting, f"{setting} takes {relative_time(setting):.1f} times as long as float32 on this processor"
                             f" ({unsupported}) - set run.precision=auto", warning=True)
    if unsupported:
        return Choice("fp32", unsupported)
    measured = relative_time(half)
    reason = f"a training step in {half} takes {measured:.2f} of float32's time"
    return Choice(half if measured <= MAX_RELATIVE_TIME else "fp32", reason)


def half_of(setting: str) -> str:
    """The requested half precision; for ``auto`` the one that it considers."""
    return "bf16" if setting == "auto" else setting


def unsupported_reason(half: str, device: torch.device) -> str:
    """Why a device has no matrix products in a half precision; empty where it has them, and for float32."""
    if half not in HALF:
        return ""
    if device.type == "cpu":
        here = describe()
        return "" if here.supports(half) else here.unsupported_reason(half)
    if device.type == "cuda":
        native = half == "fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if native else f"the GPU does not support {half} natively"
    return f"it is unknown whether '{device.type}' supports {half}"


def first_batch(experiment: Experiment, clips: ClipSet, ranks: Ranks) -> Batch:
    """The first batch of the training."""
    optim, seed = experiment.recipe.optim, experiment.recipe.run.seed
    return next(iter(loader(clips, batch=optim.batch, shuffle=True, seed=seed, epoch=0, rank=ranks.rank, world=ranks.size,
                            per_class=optim.per_class)))


def relative_step_time(half: str, scheme: Scheme, batch: Batch, ranks: Ranks) -> float:
    """The time of a training step in half precision relative to float32's; 0 where float32 does not fit into memory.

    A step is the forward and backward pass of every update, on a copy of the scheme. On a CPU it is measured in CPU time,
    which other processes affect less. For large networks one step in each precision is enough; for others it is the
    fastest of several, without the first.
    """
    probe, cuda = copy.deepcopy(scheme), ranks.device.type == "cuda"
    # What is wrong on this processor could end the process.
    avoid_incorrect_convolutions(probe, ranks.device, (torch.float32, HALF[half]))
    times: dict[str, list[float]] = {"fp32": [], half: []}
    try:
        with torch.random.fork_rng(devices=[ranks.device] if cuda else []):
            for precision, spent in times.items():
                spent.append(_step_time(probe, batch, precision, ranks.device))
            first = sum(spent[0] for spent in times.values())
            for _ in range(broadcast(min(MEASURE_STEPS, int(MEASURE_SECONDS / first)), ranks)):
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


def _recorded(run: Run, setting: str) -> Choice | None:
    """The precision with which the run started; None where it has not, or if ``run.precision`` was another one."""
    try:
        stored = parse_json(run.environment_path.read_text(encoding="utf-8"))
        precision, by = stored["precision"], stored["precision_setting"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # it is measured again, and a checkpoint of another precision is refused
    return Choice(precision, "as at the start of this run") if by == setting and precision in ("fp32", *HALF) else None
