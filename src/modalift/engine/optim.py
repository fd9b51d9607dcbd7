"""Optimizers, learning rate schedules, gradient clipping and the moving average of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modalift.errors import ModaliftError, nearest
from modalift.recipe import OptimSection
from modalift.schemes import Scheme, Update


def section_of(section: OptimSection, update: str) -> OptimSection:
    """The settings of one update: the recipe's ``optim``, overridden by ``optim.updates.NAME``."""
    return section.model_copy(update=section.updates.get(update, {}))


def check_updates(section: OptimSection, updates: Iterable[str]) -> None:
    """Checks that ``optim.updates`` names updates of the scheme.

    Raises:
        ModaliftError: an unknown update.
    """
    for name in section.updates:
        if name not in updates:
            raise ModaliftError(f"unknown key 'optim.updates.{name}' - {nearest(name, updates)}")


def build_optimizer(section: OptimSection, scheme: Scheme, update: Update) -> torch.optim.Optimizer:
    """Builds the optimizer of one update: one parameter group per network, so that each is clipped separately.

    Weight decay applies to biases and normalization too, as in the four papers.
    """
    modules = {**scheme.training_only_modules, **scheme.roles}
    groups = [{"params": [p for p in modules[name].parameters() if p.requires_grad], "name": name}
              for name in update.members]
    if section.name == "sgd":
        return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum, weight_decay=section.weight_decay)
    return torch.optim.AdamW(groups, lr=section.lr, betas=section.betas, weight_decay=section.weight_decay)


def lr_multiplier(section: OptimSection, epoch: float, scale: float = 1.0) -> float:
    """The multiplier of the learning rate at a fractional epoch.

    A function of time alone, so that a resumed run needs no scheduler state; the exception is ``plateau``, whose ``scale``
    depends on validation and is passed in.

    ``linear`` stays at 1 until the first milestone (0 without one) and falls linearly to 0 at the end. ``onecycle`` rises
    from 1/25 to 1 in the first 30 % of training and falls to 1e-4, both along half a cosine.

    Example:
        >>> lr_multiplier(OptimSection(schedule="cosine", epochs=10), 5.0)
        0.5
    """
    total = float(section.epochs)
    warm = min(1.0, (epoch + 1e-9) / section.warmup) if section.warmup else 1.0
    if section.schedule == "step":
        return warm * section.gamma ** sum(epoch >= m for m in section.milestones)
    if section.schedule == "cosine":
        share = max(0.0, epoch - section.warmup) / max(total - section.warmup, 1e-9)
        return warm * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    if section.schedule == "linear":
        start = min(section.milestones[0] if section.milestones else 0.0, total)
        return warm * (1.0 if epoch < start else (total - epoch) / max(total - start, 1e-9))
    if section.schedule == "onecycle":
        rise = 0.3 * total
        start, low, share = (1 / 25, 1.0, epoch / rise) if epoch < rise else (1.0, 1e-4, (epoch - rise) / (total - rise))
        return low + (start - low) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return warm * (scale if section.schedule == "plateau" else 1.0)


class Plateau:
    """Multiplies ``scale`` by gamma when the validation loss has not fallen for more than ``patience`` validations."""

    def __init__(self, section: OptimSection) -> None:
        self.section = section
        self.best, self.waited, self.scale = math.inf, 0, 1.0

    def step(self, loss: float) -> None:
        """Takes the validation loss of an epoch."""
        if loss < self.best * (1 - 1e-4):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.section.patience:
            self.scale, self.waited = self.scale * self.section.gamma, 0

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best, "waited": self.waited, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.best, self.waited, self.scale = state["best"], int(state["waited"]), state["scale"]


def clip_gradients(optimizer: torch.optim.Optimizer, limit: float) -> dict[str, float]:
    """Clips each network's gradient to a norm of at most ``limit``; returns the norms before clipping."""
    return {g["name"]: float(nn.utils.clip_grad_norm_(g["params"], limit)) for g in optimizer.param_groups}


class MovingAverage:
    """Exponential moving average of the students' weights, which is deployed where ``optim.ema`` is set.

    The decay is at most :math:`(1 + n) / (10 + n)` at step n, so that the initial weights do not dominate a short
    training.
    """

    def __init__(self, students: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.average = {f"{role}.{k}": v.detach().clone() for role, net in students.items()
                        for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, students: Mapping[str, nn.Module], step: int) -> None:
        """Averages in the students' weights after a step; buffers of integers are copied."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for role, net in students.items():
            for k, v in net.state_dict().items():
                averaged = self.average[f"{role}.{k}"]
                if v.is_floating_point():
                    averaged.lerp_(v, 1 - decay)
                else:
                    averaged.copy_(v)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Restores the averages of a checkpoint."""
        for key, averaged in self.average.items():
            averaged.copy_(average[key])

    def of(self, role: str) -> dict[str, Tensor]:
        """The averaged state dict of one student."""
        start = f"{role}."
        return {k[len(start):]: v for k, v in self.average.items() if k.startswith(start)}


@contextmanager
def freeze_others(scheme: Scheme, update: Update) -> Iterator[None]:
    """Within it, only the members of one update require gradients; does nothing for a scheme with one update."""
    others = [p for name, module in {**scheme.training_only_modules, **scheme.roles}.items() if name not in update.members
              for p in module.parameters() if p.requires_grad] if len(scheme.updates()) > 1 else []
    for p in others:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in others:
            p.requires_grad_(True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
