"""The training loop, to be read in one sitting: ``train``, ``train_epoch``, ``train_step``, ``validate``, ``save``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalift.engine.checkpoint import CheckpointTimer, TrainingState
from modalift.engine.distributed import broadcast, init_distributed, shutdown_distributed, to_device, wrap_ddp
from modalift.engine.evaluate import validate
from modalift.engine.experiment import Experiment
from modalift.engine.logs import Logs, add_terms, epoch_terms, step_terms
from modalift.engine.monitor import Monitor
from modalift.engine.optim import (
    MovingAverage,
    Plateau,
    build_optimizer,
    check_updates,
    clip_each,
    freeze_others,
    lr_multiplier,
    section_of,
    set_lr,
)
from modalift.engine.precision import HALF, autocast, settle
from modalift.engine.run import Run
from modalift.engine.selftest import safeguard
from modalift.errors import ModaliftError
from modalift.loading.collation import loader
from modalift.modalities import Batch
from modalift.models import kind_of
from modalift.networks.joint_norm import synchronize
from modalift.schemes import Progress, Terms, total


class Trainer:
    """Trains a scheme; goes on from the run's last checkpoint where there is one.

    On the CPU a run that was killed at any moment ends with the same weights, bit for bit, as one that was not:
    augmentation depends on (seed, epoch, clip) alone, the order of clips on (seed, epoch), the learning rate on the
    place in training, and everything else is in the checkpoint. It goes on in the precision that it began with. With
    another number of threads the last bits differ, with another number of processes the order of samples alone is kept.

    Args:
        experiment: what is trained.
        run: the folder of its log and its checkpoints.
        monitor: who is told how far it is.

    Raises:
        ModaliftError: settings that the scheme cannot be trained with, or a checkpoint of another experiment.
    """

    def __init__(self, experiment: Experiment, run: Run, monitor: Monitor | None = None) -> None:
        self.experiment, self.run, self.monitor = experiment, run, monitor or Monitor()
        self.optim, self.settings, self.scheme = experiment.recipe.optim, experiment.recipe.run, experiment.scheme
        self.ranks = init_distributed(self.settings.device)
        self.prepare_scheme()
        table = experiment.train
        self.clips = experiment.clips(table, self.scheme.needs(), augment=True)
        self.steps, self.clips_per_step = experiment.steps(self.ranks.size)
        self.drop_last = len(table) >= self.clips_per_step
        torch.manual_seed(self.settings.seed + 7919 * self.ranks.rank)  # dropout
        self.scheme.setup(table)
        self.precision = settle(experiment, run, self.clips, self.ranks, self.monitor)
        self.check_convolutions(self.precision.precision)
        self.updates = {update.name: update for update in self.scheme.updates()}
        check_updates(self.optim, self.updates)
        self.sections = {name: section_of(self.optim, name) for name in self.updates}
        self.state = self.initial_state()
        if run.last.is_file():
            self.state.load(run.last)
        self.logs = Logs(run, self.state.marks, tensorboard=self.settings.tensorboard, writes=self.ranks.is_main)
        self.model = wrap_ddp(self.scheme.train(), self.ranks, self.scheme.rests or len(self.updates) > 1)
        self.checkpoints = CheckpointTimer(self.settings.save_s)

    def prepare_scheme(self) -> None:
        """Moves the scheme to its device, with batch statistics over all processes where there are several."""
        scheme = self.scheme
        to_device(scheme, self.ranks.device)
        self.check_convolutions("fp32")
        if self.ranks.size > 1 and self.settings.joint_norm:
            synchronize(scheme)
        if scheme.relates_batch and self.optim.accumulate > 1:
            raise ModaliftError(f"optim.accumulate={self.optim.accumulate}: scheme '{self.experiment.recipe.scheme.name}'"
                                f" {scheme.batch_relation} - use accumulate=1 and a larger batch")

    def check_convolutions(self, precision: str) -> None:
        """Tests the kinds of convolution of the scheme on this processor; what is wrong there takes a safe path."""
        guarded = safeguard(self.scheme, self.ranks.device, HALF.get(precision, torch.float32))
        if guarded and self.ranks.is_main:
            self.monitor.message(f"{len(guarded)} convolutions run in contiguous memory, since PyTorch computes them"
                                 f" incorrectly on this processor in channels-last memory: {', '.join(guarded)}", warning=True)

    def initial_state(self) -> TrainingState:
        """The state before the first step."""
        scheme, precision = self.scheme, self.precision.precision
        optimizers = {name: build_optimizer(self.sections[name], scheme, update) for name, update in self.updates.items()}
        average = MovingAverage(scheme.students, self.optim.ema) if self.optim.ema else None
        scaler = torch.amp.GradScaler(self.ranks.device.type, enabled=precision == "fp16")
        return TrainingState(scheme, optimizers, Plateau(self.optim), average, scaler, self.experiment.fingerprint(precision),
                             precision)

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def train(self) -> TrainingState:
        """All epochs that are left."""
        state = self.state
        if not state.step:
            self.logs.write(self.precision.entry(self.ranks.device))
        with self.monitor.progress("training", self.steps * self.optim.epochs, state.step) as self.show:
            while state.epoch < self.optim.epochs:
                entry = self.train_epoch()
                self.logs.write(entry | self.validate())
            self.save(self.run.last)
        self.logs.close()
        self.model = self.scheme  # lets the wrapper go before the process group, whose threads could else wait for ever
        shutdown_distributed()
        return state

    def train_epoch(self) -> dict[str, Any]:
        """The steps that are left of one epoch; returns its entry in the log."""
        state, started, terms = self.state, time.perf_counter(), {}
        for count, batch in enumerate(self.batches(), 1):
            closes = count % self.optim.accumulate == 0
            terms = self.train_step(batch, closes)
            add_terms(state.sums, terms)
            if not closes:
                continue
            state.step += 1
            state.sample += self.clips_per_step
            self.scheme.after_step(batch)
            if state.average:
                state.average.update(self.scheme.students, state.step)
            if state.step % max(1, self.steps // 20) == 0:
                self.logs.write({"kind": "step", **self.place(), "loss": float(total(terms).detach()), **step_terms(terms)})
            self.show(state.step)
            if self.checkpoints.due():
                with self.checkpoints.writing():
                    self.save(self.run.last)
        state.seconds += time.perf_counter() - started
        entry = {"kind": "epoch", **self.place(), "seconds": round(state.seconds, 3), **epoch_terms(state.sums)}
        state.epoch, state.sample, state.sums = state.epoch + 1, 0, {}
        return entry

    def train_step(self, batch: Batch, closes: bool) -> Terms:
        """Forward and backward of every update of one batch; ``closes`` ends the accumulation and moves the weights."""
        state, terms = self.state, Terms()
        for name, update in self.updates.items():
            set_lr(state.optimizers[name], self.lr(name, state.step))
            progress = Progress(state.epoch, self.optim.epochs, state.step, self.steps * self.optim.epochs, name)
            with freeze_others(self.scheme, update):
                with autocast(self.precision.precision, self.ranks.device):
                    own: Terms = self.model(batch, progress)
                loss = total(own)
                self.check_finite(loss, own)
                state.scaler.scale(loss / self.optim.accumulate).backward()
            if closes:
                self.move_weights(name)
            terms |= own
        return terms

    def move_weights(self, name: str) -> None:
        """One optimizer's step, with the gradient of each network clipped by itself."""
        state, optimizer = self.state, self.state.optimizers[name]
        state.scaler.unscale_(optimizer)
        if self.sections[name].clip:
            clip_each(optimizer, self.sections[name].clip)
        state.scaler.step(optimizer)
        state.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def validate(self) -> dict[str, Any]:
        """Figures of every student on validation clips, where they are due; the best checkpoint is chosen by them."""
        state, protocol = self.state, self.experiment.recipe.protocol
        if not len(self.experiment.table.split("val")) or state.epoch % protocol.eval_every:
            return {}
        found = broadcast(validate(self.experiment, "val", self.ranks.device, state.average), self.ranks)
        if found:  # several students: the mean over them decides
            scores = [kind_of(self.scheme.students[role]).selection_score(figures) for role, figures in found.items()]
            score = sum(scores) / len(found)
            state.plateau.step(sum(figures["loss"] for figures in found.values()) / len(found))
            if score > state.best:
                state.best = score
                self.save(self.run.best)
            self.show(state.step, f"val {score:.3f}")
        return {"val": found}

    def save(self, path: Path) -> None:
        """Writes a checkpoint, with the place in the log files that belongs to it; only the main process does."""
        if self.ranks.is_main:
            self.state.marks = self.logs.marks()
            self.state.save(path)

    # ---- what a step needs ------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The batches that are left of this epoch; what does not fill a step waits for another epoch's order."""
        state, optim, ranks = self.state, self.optim, self.ranks
        batches = loader(self.clips, batch=optim.batch, shuffle=True, seed=self.settings.seed, epoch=state.epoch,
                         start=state.sample, workers=self.settings.workers, drop_last=self.drop_last, rank=ranks.rank,
                         world=ranks.size, per_class=optim.per_class)
        for batch in batches:
            if state.sample >= self.steps * self.clips_per_step:
                break
            yield batch.to(ranks.device)

    def lr(self, name: str, step: int) -> float:
        """The learning rate of an update at a step."""
        section = self.sections[name]
        return section.lr * lr_multiplier(section, step / self.steps, self.state.plateau.scale)

    def place(self) -> dict[str, Any]:
        """Where training stands, as the log has it: with the learning rate of the step that is done."""
        state, last = self.state, [*self.updates][-1]
        return {"epoch": state.epoch, "step": state.step, "lr": self.lr(last, state.step - 1)}

    def check_finite(self, loss: Tensor, terms: Terms) -> None:
        """Stops a training whose loss is not finite (NaN or Inf), and names the term."""
        if torch.isfinite(loss):
            return
        bad = next((k for k, (_, raw) in terms.items() if not torch.isfinite(raw)), "the sum")
        last = self.run.last
        kept = f"the last good checkpoint is {last}" if last.is_file() else "no checkpoint had been written yet"
        raise ModaliftError(f"the loss is not finite (NaN or Inf) in epoch {self.state.epoch + 1}, step {self.state.step + 1}:"
                            f" term '{bad}' - {kept}; lower optim.lr, or set optim.clip=1")
