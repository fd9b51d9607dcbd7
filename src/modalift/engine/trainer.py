"""The training loop: ``train``, ``train_epoch``, ``train_step``, ``validate``, ``save``."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalift.engine.checkpoint import CheckpointTimer, TrainingState
from modalift.engine.distributed import broadcast, gather, init_distributed, shutdown_distributed, to_device, wrap_ddp
from modalift.engine.evaluate import validate
from modalift.engine.experiment import Experiment
from modalift.engine.feasible import check_best, check_share
from modalift.engine.logs import Logs, add_terms, epoch_terms, step_terms
from modalift.engine.monitor import Monitor
from modalift.engine.optim import (
    MovingAverage,
    Plateau,
    build_optimizer,
    check_updates,
    clip_gradients,
    freeze_others,
    lr_multiplier,
    section_of,
    set_lr,
)
from modalift.engine.precision import HALF, autocast, resolve_precision
from modalift.engine.run import Run
from modalift.engine.selftest import avoid_incorrect_convolutions
from modalift.errors import ModaliftError
from modalift.interruption import keeping
from modalift.loading.collation import loader
from modalift.modalities import Batch
from modalift.models import kind_of
from modalift.networks.sync_batchnorm import convert_sync_batchnorm
from modalift.schemes import Progress, Terms, total


class Trainer:
    """Trains a scheme; resumes from the run's last checkpoint where there is one.

    On the CPU a run that was killed at any moment ends with the same weights, bit for bit, as one that was not:
    augmentation depends on (seed, epoch, clip) alone, the order of clips on (seed, epoch), the learning rate on the
    step, and everything else is in the checkpoint. It resumes in the precision in which it started. With another number
    of threads the last bits differ; with another number of processes only the order of clips is the same.

    Args:
        experiment: the scheme, its table and the recipe.
        run: the folder of its log and its checkpoints.
        monitor: receives messages and progress.

    Raises:
        ModaliftError: settings with which the scheme cannot be trained, or a checkpoint of another experiment.
    """

    def __init__(self, experiment: Experiment, run: Run, monitor: Monitor | None = None) -> None:
        self.experiment, self.run, self.monitor = experiment, run, monitor or Monitor()
        self.optim, self.settings, self.scheme = experiment.recipe.optim, experiment.recipe.run, experiment.scheme
        self.ranks = init_distributed(self.settings.device)
        self.prepare_scheme()
        table = experiment.train
        self.clips = experiment.clips(table, self.scheme.required_views(), augment=True, tolerant=True)
        self.steps, self.clips_per_step = experiment.steps(self.ranks.size)
        self.drop_last = len(table) >= self.clips_per_step
        torch.manual_seed(self.settings.seed + 7919 * self.ranks.rank)  # dropout
        self.scheme.setup(table)
        self.precision = resolve_precision(experiment, run, self.clips, self.ranks, self.monitor)
        self.check_convolutions()
        self.updates = {update.name: update for update in self.scheme.updates()}
        check_updates(self.optim, self.updates)
        self.sections = {name: section_of(self.optim, name) for name in self.updates}
        self.state = self.initial_state()
        if run.last_checkpoint_path.is_file():
            self.state.load(run.last_checkpoint_path)
            if experiment.recipe.protocol.select == "best":
                check_best(run, self.state.best)
        self.saved_step = self.state.step
        self.logs = Logs(run, self.state.log_sizes, tensorboard=self.settings.tensorboard, enabled=self.ranks.is_main)
        self.model = wrap_ddp(self.scheme.train(), self.ranks, self.scheme.has_phases or len(self.updates) > 1)
        self.checkpoints = CheckpointTimer(self.settings.checkpoint_every_s)

    def prepare_scheme(self) -> None:
        """Moves the scheme to its device; synchronizes batch normalization over several processes."""
        scheme = self.scheme
        to_device(scheme, self.ranks.device)
        if self.ranks.size > 1 and self.settings.sync_batchnorm:
            convert_sync_batchnorm(scheme)
        if scheme.relates_batch and self.optim.accumulate > 1:
            raise ModaliftError(f"optim.accumulate={self.optim.accumulate}: scheme '{self.experiment.recipe.scheme.name}'"
                                f" {scheme.batch_relation} - use accumulate=1 and a larger batch")

    def check_convolutions(self) -> None:
        """Tests the scheme's convolutions on this processor; incorrect ones then run in contiguous memory.

        In float32, in which the scheme is validated, and in the precision of the training.
        """
        half = HALF.get(self.precision.precision)
        affected = avoid_incorrect_convolutions(self.scheme, self.ranks.device, (torch.float32, *([half] if half else [])))
        if affected and self.ranks.is_main:
            self.monitor.message(f"{len(affected)} convolutions run in contiguous memory, since PyTorch computes them"
                                 f" incorrectly on this processor in channels-last memory: {', '.join(affected)}", warning=True)

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
        """Trains all remaining epochs; returns the final state."""
        state = self.state
        if not state.step:
            self.logs.write(self.precision.log_entry(self.ranks.device))
        with keeping(self.resumption), \
                self.monitor.progress("training", self.steps * self.optim.epochs, state.step) as self.show_progress:
            while state.epoch < self.optim.epochs:
                entry = self.train_epoch()
                entry |= self.validate()
                self.share_unreadable()
                self.logs.write(entry)
            self.save(self.run.last_checkpoint_path)
        self.logs.close()
        self.model = self.scheme  # frees DDP before the process group, whose threads could wait forever otherwise
        shutdown_distributed()
        return state

    def train_epoch(self) -> dict[str, Any]:
        """Trains the remaining steps of one epoch; returns its log entry."""
        state, started, terms = self.state, time.perf_counter(), {}
        for count, batch in enumerate(self.batches(), 1):
            self.leave_out({self.clips.table[index].id: reason for index, reason in batch.unreadable.items()})
            accumulated = count % self.optim.accumulate == 0
            terms = self.train_step(batch, accumulated)
            add_terms(state.sums, terms)
            if not accumulated:
                continue
            state.step += 1
            state.sample += self.clips_per_step
            self.scheme.after_step(batch)
            if state.average:
                state.average.update(self.scheme.students, state.step)
            if state.step % max(1, self.steps // 20) == 0:
                self.logs.write({"kind": "step", **self.position(), "loss": float(total(terms).detach()), **step_terms(terms)})
            self.show_progress(state.step)
            if self.checkpoints.due():
                with self.checkpoints.writing():
                    self.save(self.run.last_checkpoint_path)
        state.seconds += time.perf_counter() - started
        entry = {"kind": "epoch", **self.position(), "seconds": round(state.seconds, 3), **epoch_terms(state.sums)}
        state.epoch, state.sample, state.sums = state.epoch + 1, 0, {}
        return entry

    def train_step(self, batch: Batch, accumulated: bool) -> Terms:
        """Forward and backward pass of every update on one batch, and the optimizers' steps where gradients are accumulated.

        Args:
            batch: the batch, on the device.
            accumulated: whether this batch is the last of an accumulation, after which the optimizers step.

        Returns:
            The terms of all updates.

        Raises:
            ModaliftError: the loss is not finite.
        """
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
            if accumulated:
                self.optimizer_step(name)
            terms |= own
        return terms

    def optimizer_step(self, name: str) -> None:
        """Steps the optimizer of one update, with the gradient norm of each network clipped separately."""
        state, optimizer = self.state, self.state.optimizers[name]
        state.scaler.unscale_(optimizer)
        if self.sections[name].clip_grad_norm:
            clip_gradients(optimizer, self.sections[name].clip_grad_norm)
        state.scaler.step(optimizer)
        state.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def validate(self) -> dict[str, Any]:
        """Validates the students every ``protocol.eval_every`` epochs and after the last, saves the best checkpoint.

        Returns:
            The log entry.

        Raises:
            ModaliftError: no validation clip can be read, and the training needs one.
        """
        state, protocol, unreadable = self.state, self.experiment.recipe.protocol, dict[str, str]()
        is_due = state.epoch % protocol.eval_every == 0 or state.epoch == self.optim.epochs
        if not len(self.experiment.table.split("val")) or not is_due:
            return {}
        found = broadcast(validate(self.experiment, "val", self.ranks.device, state.average, unreadable), self.ranks)
        self.leave_out(unreadable)
        if found:  # of several students: their mean
            scores = [kind_of(self.scheme.students[role]).selection_score(figures) for role, figures in found.items()]
            score = sum(scores) / len(found)
            state.plateau.step(sum(figures["loss"] for figures in found.values()) / len(found))
            if score > state.best or not math.isfinite(state.best):  # a score that is not finite is never better
                state.best = score if math.isfinite(score) else state.best
                self.save(self.run.best_checkpoint_path)
            self.show_progress(state.step, f"val {score:.3f}")
        elif protocol.select == "best" or self.optim.schedule == "plateau":
            first = next(iter(unreadable.items()), ("", "none is left"))
            raise ModaliftError(f"no validation clip can be read any more ({': '.join(first)}) - restore the files and run the"
                                f" same command again, which resumes {self.run.folder}")
        return {"val": found}

    def leave_out(self, unreadable: Mapping[str, str]) -> None:
        """Reports clips that could not be read when their turn came, each once; they contributed to no term.

        Raises:
            ModaliftError: with those that were left out before they are more than ``data.max_corrupt``.
        """
        new = {clip: reason for clip, reason in unreadable.items() if clip not in self.state.unreadable}
        if not new:
            return
        self.state.unreadable |= new
        for clip, reason in new.items() if self.ranks.is_main else ():
            self.monitor.message(f"left out {clip}: {reason}", warning=True)
        check_share(self.experiment, new | self.state.unreadable | self.experiment.corrupt,
                    "restore these files and run the same command again, or raise data.max_corrupt; both resume"
                    f" {self.run.folder}")

    def share_unreadable(self) -> None:
        """Tells every process of the clips that others could not read."""
        for unreadable in gather(self.state.unreadable, self.ranks):
            self.leave_out(unreadable)

    def resumption(self) -> str:
        """What an interrupted training says."""
        return (f"run the same command again to resume {self.run.folder} from step {self.saved_step} of"
                f" {self.steps * self.optim.epochs}")

    def save(self, path: Path) -> None:
        """Writes a checkpoint with the sizes of the log files at this step; only in the main process."""
        if self.ranks.is_main:
            self.state.log_sizes = self.logs.sizes()
            self.state.save(path)
            if path == self.run.last_checkpoint_path:
                self.saved_step = self.state.step

    # ---- parts of a step --------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The remaining batches of this epoch, on the device; clips that do not fill a step are left out of it."""
        state, optim, ranks = self.state, self.optim, self.ranks
        batches = loader(self.clips, batch=optim.batch, shuffle=True, seed=self.settings.seed, epoch=state.epoch,
                         start=state.sample, workers=self.settings.workers, drop_last=self.drop_last, rank=ranks.rank,
                         world=ranks.size, per_class=optim.per_class)
        for batch in batches:
            if state.sample >= self.steps * self.clips_per_step:
                break
            yield batch.to(ranks.device)

    def lr(self, name: str, step: int) -> float:
        """The learning rate of one update at a step."""
        section = self.sections[name]
        return section.lr * lr_multiplier(section, step / self.steps, self.state.plateau.scale)

    def position(self) -> dict[str, Any]:
        """Epoch, step and learning rate of the last step, for log entries."""
        state, last = self.state, [*self.updates][-1]
        return {"epoch": state.epoch, "step": state.step, "lr": self.lr(last, state.step - 1)}

    def check_finite(self, loss: Tensor, terms: Terms) -> None:
        """Raises where the loss is not finite (NaN or Inf), and names the term."""
        if torch.isfinite(loss):
            return
        culprit = next((k for k, (_, raw) in terms.items() if not torch.isfinite(raw)), "the sum")
        last = self.run.last_checkpoint_path
        kept = f"the last good checkpoint is {last}" if last.is_file() else "no checkpoint was written yet"
        raise ModaliftError(f"the loss is not finite (NaN or Inf) in epoch {self.state.epoch + 1}, step {self.state.step + 1}:"
                            f" term '{culprit}' - {kept}; start again in another run.dir with a lower optim.lr, or with"
                            " optim.clip_grad_norm=1")
