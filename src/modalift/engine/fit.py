"""The training loop, to be read in one sitting."""

from __future__ import annotations

import time
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from modalift.engine.distribution import agree, join, leave, place, spread
from modalift.engine.evaluate import merit, quick_look
from modalift.engine.experiment import Experiment
from modalift.engine.logs import Logs, add, means, progress_bar, say
from modalift.engine.optim import (
    MovingAverage,
    Plateau,
    build_optimizer,
    check_updates,
    clip_each,
    factor,
    only,
    section_of,
    set_rate,
)
from modalift.engine.precision import HALF, computing, settle
from modalift.engine.run import Run
from modalift.engine.selftest import safeguard
from modalift.engine.state import Saver, State
from modalift.errors import ModaliftError
from modalift.loading.clips import loader
from modalift.networks.joint_norm import synchronize
from modalift.schemes import Progress, Terms, total


def fit(experiment: Experiment, run: Run, console: Console | None = None) -> State:
    """Trains a scheme; goes on from the run's last checkpoint where there is one.

    On the CPU a run that was killed at any moment ends with the same weights, bit for bit, as one that was not:
    augmentation depends on (seed, epoch, clip) alone, the order of clips on (seed, epoch), the learning rate on the
    place in training, and everything else is in the checkpoint. It goes on in the precision that it began with. With
    another number of threads the last bits differ, with another number of processes the order of samples alone is kept.
    """
    recipe, console = experiment.recipe, console or Console(stderr=True)
    optim, settings = recipe.optim, recipe.run
    world = join(settings.device)
    scheme, train = experiment.scheme, experiment.train
    place(scheme, world.device)
    if world.size > 1 and settings.joint_norm:
        synchronize(scheme)
    if scheme.relates_batch and optim.accumulate > 1:
        raise ModaliftError(f"optim.accumulate={optim.accumulate}: scheme '{recipe.scheme.name}' {scheme.batch_relation}"
                            " - use accumulate=1 and a larger batch")
    clips = experiment.clips(train, scheme.needs(), augment=True)
    torch.manual_seed(settings.seed + 7919 * world.rank)  # dropout
    scheme.setup(train)
    choice = settle(experiment, run, clips, world, console)
    guarded = safeguard(scheme, world.device, HALF.get(choice.precision, torch.float32))
    if guarded and world.chief:
        console.print(Text(f"{len(guarded)} convolutions run in contiguous memory, since PyTorch computes them incorrectly on"
                           f" this processor in channels-last memory: {', '.join(guarded)}"), soft_wrap=True)
    updates = {u.name: u for u in scheme.updates()}
    check_updates(optim, updates)
    own = {name: section_of(optim, name) for name in updates}
    optimizers = {name: build_optimizer(own[name], scheme, u) for name, u in updates.items()}
    students = scheme.students
    state = State(scheme, optimizers, Plateau(optim), MovingAverage(students, optim.ema) if optim.ema else None,
                  torch.amp.GradScaler(world.device.type, enabled=choice.precision == "fp16"),
                  experiment.fingerprint(choice.precision), choice.precision)
    if run.last.is_file():
        state.load(run.last)
    logs = Logs(run.folder, state.marks, tensorboard=settings.tensorboard, writes=world.chief)
    if not state.step:
        logs.write(choice.entry(world.device))
    idle = scheme.rests or len(updates) > 1
    model, (steps, per_step) = spread(scheme.train(), world, idle), experiment.steps(world.size)
    saver = Saver(run, state, logs, world, settings.save_s)

    def rate(name: str, step: int) -> float:
        """The learning rate of an update at a step: what a resumed run logs too, whose step is behind it."""
        return own[name].lr * factor(own[name], step / steps, state.plateau.scale)

    shown = [*updates][-1]  # whose rate is logged

    def step(batch: Any, name: str, last: bool) -> Terms:
        """One update's forward and backward; ``last`` closes the accumulation."""
        where = Progress(state.epoch, optim.epochs, state.step, steps * optim.epochs, name)
        with only(scheme, updates[name]):
            with computing(choice.precision, world.device):
                terms: Terms = model(batch, where)
            loss = total(terms)
            check(loss, terms, state, run)
            state.scaler.scale(loss / optim.accumulate).backward()
        if last:
            state.scaler.unscale_(optimizers[name])
            if own[name].clip:
                clip_each(optimizers[name], own[name].clip)
            state.scaler.step(optimizers[name])
            state.scaler.update()
            optimizers[name].zero_grad(set_to_none=True)
        return terms

    with progress_bar(console, world.chief) as bar:
        task = bar.add_task("training", total=steps * optim.epochs, completed=state.step, says="")
        while state.epoch < optim.epochs:
            started, batches = time.perf_counter(), 0
            for batch in loader(clips, batch=optim.batch, shuffle=True, seed=settings.seed, epoch=state.epoch,
                                start=state.sample, workers=settings.workers, drop_last=len(train) >= per_step,
                                rank=world.rank, world=world.size, per_class=optim.per_class):
                if state.sample >= steps * per_step:  # what does not fill a step is left for another epoch's order
                    break
                batch, batches = batch.to(world.device), batches + 1
                closes = batches % optim.accumulate == 0
                terms: Terms = {}
                for name in updates:
                    set_rate(optimizers[name], rate(name, state.step))
                    terms |= step(batch, name, closes)
                add(state.sums, terms)
                if not closes:
                    continue
                state.step += 1
                state.sample += per_step
                scheme.after_step(batch)
                if state.average:
                    state.average.update(students, state.step)
                if state.step % max(1, steps // 20) == 0:
                    logs.write({"kind": "step", "epoch": state.epoch, "step": state.step, "lr": rate(shown, state.step - 1),
                                "loss": float(total(terms).detach()), **say(terms)})
                bar.update(task, completed=state.step)
                saver.maybe()
            state.seconds += time.perf_counter() - started
            entry = {"kind": "epoch", "epoch": state.epoch, "step": state.step, "lr": rate(shown, state.step - 1),
                     "seconds": round(state.seconds, 3), **means(state.sums)}
            state.epoch, state.sample, state.sums = state.epoch + 1, 0, {}
            if len(experiment.table.split("val")) and state.epoch % recipe.protocol.eval_every == 0:
                found = agree(quick_look(experiment, "val", world.device, state.average), world)
                entry["val"] = found  # several students: the mean over them decides
                if found:
                    best = sum(merit(v) for v in found.values()) / len(found)
                    state.plateau.look(sum(v["loss"] for v in found.values()) / len(found))
                    if best > state.best:
                        state.best = best
                        saver.write(run.best)
                    bar.update(task, says=f"val {best:.3f}")
            logs.write(entry)
        saver.write(run.last)
    logs.close()
    model = scheme  # lets the wrapper go before the process group, whose threads could else wait for ever
    leave()
    return state


def check(loss: Tensor, terms: Terms, state: State, run: Run) -> None:
    """Stops a training whose loss is no number, and names the term."""
    if torch.isfinite(loss):
        return
    bad = next((k for k, (_, raw) in terms.items() if not torch.isfinite(raw)), "the sum")
    kept = f"the last good checkpoint is {run.last}" if run.last.is_file() else "no checkpoint had been written yet"
    raise ModaliftError(f"the loss is not finite in epoch {state.epoch + 1}, step {state.step + 1}: term '{bad}'"
                        f" - {kept}; lower optim.lr, or set optim.clip=1")
