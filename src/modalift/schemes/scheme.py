"""The Scheme: networks that learn together, and the words in which a scheme is written."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modalift.errors import ModaliftError
from modalift.losses.precision import full
from modalift.modalities import Batch, Table
from modalift.networks import Network, Observation, Recognizer
from modalift.networks.joint_norm import JointBatchNorm
from modalift.signatures import checked, parameters

#: Term name -> (weight, raw scalar). ``sum(weight * raw)`` is the loss, the raw values are the log. A name says what
#: is compared and who teaches whom: ``graph/teacher>student``, ``imitate/teacher+assistant>student``; ``ce/student``
#: for a term of labels.
Terms = dict[str, tuple[float, Tensor]]


@dataclass(frozen=True)
class Progress:
    """Where training stands: ``epoch`` of ``epochs``, ``step`` of ``steps`` (all steps of the run), and which update."""

    epoch: int = 0
    epochs: int = 1
    step: int = 0
    steps: int = 1
    update: str = "all"


@dataclass(frozen=True)
class Update:
    """One optimizer's share of a step.

    Attributes:
        name: what a recipe's ``optim.updates`` calls it, and ``Progress.update`` while it runs.
        members: the roles, and the names of further modules (decoders, projections), whose parameters it moves.
    """

    name: str
    members: tuple[str, ...]


class Scheme(nn.Module):
    """Networks that learn together; ``forward(batch, progress)`` holds the paper's equations.

    A subclass takes its networks (arguments annotated with a kind of Network, or ``Mapping[str, Recognizer]`` for any
    number) and its settings (keyword arguments with defaults) in its constructor: that signature *is* its part of a recipe.
    Settings are checked against their annotations whoever calls it, so a range is an annotation
    (``weight: NonNegative = 1.0``) and a constructor itself checks only what relates one argument to another.
    """

    #: The settings under which the contracts try a scheme with every family of networks; by default the constructor's
    #: defaults and each other choice of a ``Literal``. Choices that no example makes are tried with the smallest networks.
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()

    #: Roles whose networks must come trained (their ``init`` names a run) and never move.
    frozen_roles: tuple[str, ...] = ()
    #: Whether clips without a label teach anything here; where not, they are left out of training.
    uses_unlabeled: bool = True
    #: Whether labels teach each student as they do in `single`; where not (ProKT's sees none), a scheme says so.
    labels_teach: bool = True
    #: Whether parameters rest in some phases: without a gradient, so that neither decay nor momentum moves them.
    rests: bool = False
    #: Whether the loss compares the clips of a batch, so that gradient accumulation would change it.
    relates_batch: bool = False
    #: How it does so: what is said where accumulation is refused.
    batch_relation: str = "compares the clips of a batch with each other"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = with_checked_settings(cls.__init__)  # type: ignore[method-assign]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        raise NotImplementedError  # every scheme implements it

    @classmethod
    def frozen_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The frozen roles under these settings: where a setting decides, a scheme says so here."""
        return cls.frozen_roles

    @property
    def roles(self) -> dict[str, Any]:
        """Role -> network, for every network of the scheme."""
        found: dict[str, Any] = {}
        for name, child in self.named_children():
            if isinstance(child, Network):
                found[name] = child
            elif isinstance(child, nn.ModuleDict):
                found.update({k: m for k, m in child.items() if isinstance(m, Network)})
        return found

    @property
    def students(self) -> dict[str, Any]:
        """Role -> network, for the networks that may ship: by default every one that learns."""
        return {k: n for k, n in self.roles.items() if k not in self.frozen_roles}

    def frozen(self) -> list[nn.Module]:
        """Networks that never move: no gradient, no drifting statistics."""
        return [n for k, n in self.roles.items() if k in self.frozen_roles]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Name -> module, for what learns beside the networks and stays at home: decoders, projections, ..."""
        mine = {id(net) for net in self.roles.values()}
        return {k: m for k, m in self.named_children()
                if id(m) not in mine and not any(id(x) in mine for x in m.modules())}

    @property
    def idle(self) -> dict[str, str]:
        """Settings that do nothing under the others or with these networks -> where; one that a recipe gives is refused."""
        return {}

    @property
    def notes(self) -> list[str]:
        """What a person should know before training and neither the cast nor the terms tell."""
        return []

    def models(self) -> dict[str, Any]:
        """Role -> network, for all that a run keeps: the students, and what is evaluated beside them (a joint prediction)."""
        return dict(self.students)

    def evaluation_views(self, role: str) -> tuple[str, ...]:
        """The views that evaluating one of :meth:`models` reads: those of its network, and what it is compared with."""
        return tuple(self.models()[role].views)

    def needs(self) -> set[str]:
        """The views that training reads."""
        return {n.view for n in self.roles.values()}

    def updates(self) -> list[Update]:
        """The ordered updates of one step; by default one that moves everything that learns."""
        return [Update("all", (*(k for k in self.roles if k not in self.frozen_roles), *self.parts))]

    def setup(self, table: Table) -> None:
        """Called once before training, with the training table (memory banks, class counts)."""

    def after_step(self, batch: Batch) -> None:
        """Called after each optimizer step (momentum, banks)."""

    def train(self, mode: bool = True) -> Scheme:
        super().train(mode)
        for network in self.frozen():
            network.eval().requires_grad_(False)
        return self


def network_in(hint: Any) -> type[Network] | None:
    """The kind of network that a constructor's argument takes; None where it takes none.

    Example:
        >>> network_in(Recognizer | None), network_in(float)
        (<class 'modalift.networks.recognizer.Recognizer'>, None)
    """
    parts = (hint, *typing.get_args(hint)) if typing.get_origin(hint) is not Mapping else ()
    return next((part for part in parts if isinstance(part, type) and issubclass(part, Network)), None)


def is_optional(hint: Any) -> bool:
    """Whether an argument may be None."""
    return type(None) in typing.get_args(hint)


def settings_in(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Setting -> default: the arguments of a scheme's constructor that are no networks."""
    return {k: d for k, (hint, d) in parameters(constructor).items()
            if network_in(hint) is None and typing.get_origin(hint) is not Mapping}


def with_checked_settings(constructor: Callable[..., None]) -> Callable[..., None]:
    """A scheme's constructor that refuses settings of another type, or outside the range, than their annotations state."""
    @functools.wraps(constructor)
    def checking(self: Scheme, *networks: Any, **named: Any) -> None:
        known = settings_in(constructor)
        given = {k: v for k, v in named.items() if k in known}
        constructor(self, *networks, **named | checked(constructor, given, known, "scheme", f"scheme '{type(self).__name__}'"))

    return checking


# ---- the words of a scheme ------------------------------------------------------------------------------------------


def watch(net: Recognizer, batch: Batch, stages: Iterable[str] = ()) -> Observation:
    """What ``net`` makes of the clips whose sensor was present; ``.indices`` says which these are.

    Absent rows never reach the network, so its batch statistics are those of real clips. Where no clip has the
    sensor, logits are ``(0, K)`` and carry zero times every parameter, so that a distributed step stays in step.
    """
    if net.view not in batch.clips:
        raise ModaliftError(f"the batch has no view '{net.view}' - its views: {', '.join(batch.clips) or 'none'}")
    clip, present = batch.clips[net.view], batch.present[net.view]
    names = tuple(stages)
    if bool(present.all()):
        return net.observe(clip, names)
    rows = present.nonzero().squeeze(1)
    together = any(isinstance(m, JointBatchNorm) for m in net.modules())
    if len(rows) == 0 and not (together and net.training):  # statistics over all processes need every one of them
        nothing = torch.stack([p.sum() * 0.0 for p in net.parameters() if p.requires_grad] or [clip.new_zeros(())])
        maps = {s: clip.new_zeros((0, net.stages[s].channels, 1, 1, 1), dtype=torch.float32) + nothing.sum() for s in names}
        return Observation(clip.new_zeros((0, net.classes), dtype=torch.float32) + nothing.sum(), maps, rows)
    seen = net.observe(clip[rows], names)
    return Observation(seen.logits, seen.maps, rows)


def look(net: Recognizer, batch: Batch, stages: Iterable[str] = ()) -> Observation:
    """:func:`watch` without gradients, and without moving the network's statistics: for a teacher that only shows."""
    with torch.no_grad(), still(net):
        return watch(net, batch, stages)


@contextmanager
def still(net: nn.Module) -> Iterator[None]:
    """While it lasts a network normalizes as ever, but moves copies of its running statistics.

    Copies, because a graph that is still to be walked back may hold the statistics themselves.
    """
    held = [(m, dict(m.named_buffers(recurse=False))) for m in net.modules() if isinstance(m, _BatchNorm) and m.training]
    for m, buffers in held:
        for name, value in buffers.items():
            setattr(m, name, value.clone())
    try:
        yield
    finally:
        for m, buffers in held:
            for name, value in buffers.items():
                setattr(m, name, value)


def common(one: Observation, other: Observation) -> tuple[Observation, Observation]:
    """The two observations on the clips that both networks saw, in the same order."""
    if torch.equal(one.indices, other.indices):
        return one, other  # nothing to copy
    both = one.indices.unsqueeze(1) == other.indices.unsqueeze(0)
    return one.take(both.any(1)), other.take(both.any(0))


def labels_of(seen: Observation, batch: Batch) -> tuple[Tensor, Tensor]:
    """Labels and the labeled mask of the clips that an observation holds."""
    return batch.labels[seen.indices], batch.labeled[seen.indices]


def average(values: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean of per-sample values ``(B,)`` over the kept ones; zero (with a gradient of zero) where none is kept.

    Under distributed training the count is that of all processes, so that the mean of the processes' gradients is
    the gradient of the joint batch however unevenly labels and sensors fall.
    """
    if keep is None:
        keep = torch.ones_like(values, dtype=torch.bool)
    count = keep.sum().to(torch.float32)
    if world_size() > 1:
        dist.all_reduce(count)
        count = count / world_size()
    # where(), not a product: 0 * inf is NaN, and what is left out must not matter.
    return torch.where(keep, values, torch.zeros_like(values)).sum() / count.clamp_min(1e-12)


def world_size() -> int:
    """How many processes train together; 1 where none was joined."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def joint(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, so that a relation spans the global batch.

    Gradients flow back to each process's own rows. Every process computes the same loss of the joint rows, and the mean
    of the processes' gradients is then that of the joint batch. Numbers of rows may differ between processes; one without
    any need not know the extents or the precision of the others' rows, so half precision becomes float32.
    """
    size = world_size()
    if size == 1:
        return rows
    rows = full(rows)
    shapes = torch.zeros(size, rows.dim(), dtype=torch.long, device=rows.device)
    if len(rows):
        shapes[dist.get_rank()] = torch.tensor(rows.shape)
    dist.all_reduce(shapes)
    counts, (most, *extents) = shapes[:, 0].tolist(), shapes.amax(0).tolist()
    if not most:
        return rows
    missing = rows.new_zeros((most - len(rows), *extents))
    padded = torch.cat([rows, missing]) if len(rows) else missing + rows.sum().to(missing.dtype)  # keeps it in the graph
    gathered = torch.distributed.nn.functional.all_gather(padded.contiguous())
    return torch.cat([g[:n] for g, n in zip(gathered, counts, strict=True)])


def joint_count(rows: Tensor) -> Tensor:
    """How many rows all processes have together, as a number for the log: the clips that a relation spans."""
    count = torch.tensor(float(len(rows)), device=rows.device)
    if world_size() > 1:
        dist.all_reduce(count)
    return count


def joint_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Mean of the kept values over all processes, as a number without gradient; zero where none is kept."""
    both = torch.stack([torch.where(keep, values, torch.zeros_like(values)).sum(), keep.sum()]).detach().float()
    if world_size() > 1:
        dist.all_reduce(both)
    return both[0] / both[1].clamp_min(1.0)


def label_loss(seen: Observation, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the labeled clips that the network saw, averaged over them."""
    labels, labeled = labels_of(seen, batch)
    each = F.cross_entropy(seen.logits.float(), labels.clamp_min(0), reduction="none", label_smoothing=smoothing)
    return average(each, labeled)


def total(terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """The loss: the weighted sum of the terms."""
    return torch.stack([weight * raw for weight, raw in terms.values()]).sum()
