"""The Scheme: networks that are trained together, and the functions of which schemes are written."""

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
from modalift.losses.full_precision import at_least_float32
from modalift.modalities import Batch, Table
from modalift.networks import Network, Observation, Recognizer
from modalift.networks.sync_batchnorm import CrossRankBatchNorm
from modalift.signatures import checked, parameters

#: Term name -> (weight, raw scalar). ``sum(weight * raw)`` is the loss, the raw values are logged. A name is
#: ``what/teacher>learner``: what is compared, who teaches and who learns, as ``kd/teacher>student`` or
#: ``feature/teacher+assistant>student``; a term of labels is ``ce/student``. Terms of weight 0.0 may be for the log only.
Terms = dict[str, tuple[float, Tensor]]


@dataclass(frozen=True)
class Progress:
    """The position in training: ``epoch`` of ``epochs``, ``step`` of ``steps`` (of the whole run), and the current update."""

    epoch: int = 0
    epochs: int = 1
    step: int = 0
    steps: int = 1
    update: str = "all"


@dataclass(frozen=True)
class Update:
    """The part of a training step that one optimizer takes.

    Attributes:
        name: its key in a recipe's ``optim.updates``, and the value of ``Progress.update`` while it runs.
        members: the roles, and the names of training-only modules (decoders, projections), whose parameters it updates.
    """

    name: str
    members: tuple[str, ...]


class Scheme(nn.Module):
    """Networks that are trained together; ``forward(batch, progress)`` holds the paper's equations.

    A subclass takes its networks (arguments annotated with a kind of Network, or ``Mapping[str, Recognizer]`` for any
    number) and its settings (keyword arguments with defaults) in its constructor. That signature is the schema of the
    recipe's ``scheme`` section. Settings are checked against their annotations on every call, so a range is an annotation
    (``kd_weight: NonNegative = 1.0``) and the constructor only checks arguments against each other.
    """

    #: The settings under which the contract tests run a scheme with every family of networks; if empty, the constructor's
    #: defaults and each other choice of a ``Literal``. Choices that are in no example are tested with the smallest networks.
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()

    #: Roles whose networks must be trained before (their ``init`` names a run) and are never updated.
    frozen_roles: tuple[str, ...] = ()
    #: Whether clips without a label contribute to the loss; if not, they are left out of training.
    uses_unlabeled: bool = True
    #: Whether each student has the same loss of labels as in `single`.
    trains_on_labels: bool = True
    #: Whether training has phases in which some parameters get no gradient (``None``), so that neither weight decay nor
    #: momentum changes them.
    has_phases: bool = False
    #: Whether the loss compares the clips of a batch with each other, so that gradient accumulation would change it.
    relates_batch: bool = False
    #: How it compares them, for the message that refuses accumulation.
    batch_relation: str = "compares the clips of a batch with each other"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = with_checked_settings(cls.__init__)  # type: ignore[method-assign]

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        raise NotImplementedError  # every scheme implements it

    @classmethod
    def frozen_for(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The frozen roles under these settings; overridden by schemes where a setting decides."""
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
        """Role -> network, for the networks that may be deployed: by default all that are trained."""
        return {k: n for k, n in self.roles.items() if k not in self.frozen_roles}

    def frozen(self) -> list[nn.Module]:
        """The networks that are never updated: no gradient, and no update of BatchNorm statistics."""
        return [n for k, n in self.roles.items() if k in self.frozen_roles]

    @property
    def training_only_modules(self) -> dict[str, nn.Module]:
        """Name -> module, for what is trained beside the networks and never deployed: decoders, projections, ..."""
        mine = {id(net) for net in self.roles.values()}
        return {k: m for k, m in self.named_children()
                if id(m) not in mine and not any(id(x) in mine for x in m.modules())}

    @property
    def unused_settings(self) -> dict[str, str]:
        """Setting -> condition, for settings without effect under the other settings or with these networks.

        A recipe that gives one of them is refused.
        """
        return {}

    @property
    def notes(self) -> list[str]:
        """What ``modalift explain`` prints beside the networks and the terms."""
        return []

    def models(self) -> dict[str, Any]:
        """Role -> network, for all that a run saves and evaluates: the students, and for example their fusion."""
        return dict(self.students)

    def evaluation_views(self, role: str) -> tuple[str, ...]:
        """The views that are read to evaluate one of :meth:`models`: its network's, and the view it is compared with."""
        return tuple(self.models()[role].views)

    def required_views(self) -> set[str]:
        """The views that training reads."""
        return {n.view for n in self.roles.values()}

    def updates(self) -> list[Update]:
        """The updates of one step, in order; by default a single one of all that is trained."""
        return [Update("all", (*(k for k in self.roles if k not in self.frozen_roles), *self.training_only_modules))]

    def setup(self, table: Table) -> None:
        """Called once before training with the training table (for memory banks, class counts)."""

    def after_step(self, batch: Batch) -> None:
        """Called after each optimizer step (momentum, banks)."""

    def train(self, mode: bool = True) -> Scheme:
        super().train(mode)
        for network in self.frozen():
            network.eval().requires_grad_(False)
        return self


def network_in(hint: Any) -> type[Network] | None:
    """The kind of network that a constructor's argument takes; None if it takes none.

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
    """Setting -> default, for the arguments of a scheme's constructor that are not networks."""
    return {k: d for k, (hint, d) in parameters(constructor).items()
            if network_in(hint) is None and typing.get_origin(hint) is not Mapping}


def with_checked_settings(constructor: Callable[..., None]) -> Callable[..., None]:
    """A scheme's constructor that first checks the settings against the types and ranges of their annotations."""
    @functools.wraps(constructor)
    def checking(self: Scheme, *networks: Any, **named: Any) -> None:
        known = settings_in(constructor)
        given = {k: v for k, v in named.items() if k in known}
        constructor(self, *networks, **named | checked(constructor, given, known, "scheme", f"scheme '{type(self).__name__}'"))

    return checking


# ---- functions for the forward method of a scheme -------------------------------------------------------------------


def observe(net: Recognizer, batch: Batch, stages: Iterable[str] = ()) -> Observation:
    """Logits and maps of ``net`` for the clips that have its sensor; ``.indices`` are their rows in the batch.

    Clips without the sensor never reach the network, so its batch statistics are those of recorded clips. If no clip has the
    sensor, the logits are ``(0, K)`` and depend on every parameter with a gradient of zero, which distributed training needs.

    Args:
        net: the network.
        batch: the clips.
        stages: names of the stages whose maps are wanted.

    Raises:
        ModaliftError: the batch does not contain the view of the network.
    """
    if net.view not in batch.clips:
        raise ModaliftError(f"the batch has no view '{net.view}' - its views: {', '.join(batch.clips) or 'none'}")
    clip, present = batch.clips[net.view], batch.present[net.view]
    names = tuple(stages)
    if bool(present.all()):
        return net.observe(clip, names)
    rows = present.nonzero().squeeze(1)
    together = any(isinstance(m, CrossRankBatchNorm) for m in net.modules())
    if len(rows) == 0 and not (together and net.training):  # synchronized statistics need every process
        nothing = torch.stack([p.sum() * 0.0 for p in net.parameters() if p.requires_grad] or [clip.new_zeros(())])
        maps = {s: clip.new_zeros((0, net.stages[s].channels, 1, 1, 1), dtype=torch.float32) + nothing.sum() for s in names}
        return Observation(clip.new_zeros((0, net.classes), dtype=torch.float32) + nothing.sum(), maps, rows)
    seen = net.observe(clip[rows], names)
    return Observation(seen.logits, seen.maps, rows)


def observe_frozen(net: Recognizer, batch: Batch, stages: Iterable[str] = ()) -> Observation:
    """:func:`observe` without gradients and without an update of BatchNorm statistics, for a network that only teaches."""
    with torch.no_grad(), frozen_batchnorm_stats(net):
        return observe(net, batch, stages)


@contextmanager
def frozen_batchnorm_stats(net: nn.Module) -> Iterator[None]:
    """Context manager: the network normalizes as usual, but its running statistics are unchanged afterwards.

    The statistics are replaced by copies for the duration: they cannot be restored in place, because the graph of an earlier
    forward pass may hold them for its backward pass.
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


def on_common_clips(one: Observation, other: Observation) -> tuple[Observation, Observation]:
    """The two observations restricted to the clips that both networks saw, in the same order."""
    if torch.equal(one.indices, other.indices):
        return one, other
    both = one.indices.unsqueeze(1) == other.indices.unsqueeze(0)
    return one.take(both.any(1)), other.take(both.any(0))


def labels_of(seen: Observation, batch: Batch) -> tuple[Tensor, Tensor]:
    """Labels ``(B,)`` and the mask of labeled clips ``(B,)`` for the clips of an observation."""
    return batch.labels[seen.indices], batch.labeled[seen.indices]


def masked_mean(values: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean of per-sample values ``(B,)`` where ``keep`` is true; zero, with a gradient of zero, if it is true nowhere.

    In distributed training the number of kept samples is counted over all processes, so that the mean of the processes'
    gradients equals the gradient of the global batch, however labels and sensors are distributed over processes.
    """
    if keep is None:
        keep = torch.ones_like(values, dtype=torch.bool)
    count = keep.sum().to(torch.float32)
    if world_size() > 1:
        dist.all_reduce(count)
        count = count / world_size()
    # where() instead of a product: 0 * inf is NaN.
    return torch.where(keep, values, torch.zeros_like(values)).sum() / count.clamp_min(1e-12)


def world_size() -> int:
    """The number of processes; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_across_ranks(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, for losses that compare the clips of the global batch.

    Gradients flow back to each process's own rows. Every process computes the same loss of the gathered rows, and the mean
    of the processes' gradients is then that of the global batch. The number of rows may differ between processes. A process
    without rows needs neither the shape nor the precision of the others' rows; half precision becomes float32 for that.
    """
    size = world_size()
    if size == 1:
        return rows
    rows = at_least_float32(rows)
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


def count_across_ranks(rows: Tensor) -> Tensor:
    """The number of rows of all processes, for the log: the clips that a loss compares with each other."""
    count = torch.tensor(float(len(rows)), device=rows.device)
    if world_size() > 1:
        dist.all_reduce(count)
    return count


def mean_across_ranks(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over all processes of the values where ``keep`` is true, without gradient; zero if it is true nowhere."""
    both = torch.stack([torch.where(keep, values, torch.zeros_like(values)).sum(), keep.sum()]).detach().float()
    if world_size() > 1:
        dist.all_reduce(both)
    return both[0] / both[1].clamp_min(1.0)


def label_loss(seen: Observation, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the labeled clips of an observation."""
    labels, labeled = labels_of(seen, batch)
    each = F.cross_entropy(seen.logits.float(), labels.clamp_min(0), reduction="none", label_smoothing=label_smoothing)
    return masked_mean(each, labeled)


def total(terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """The loss: the weighted sum of the terms."""
    return torch.stack([weight * raw for weight, raw in terms.values()]).sum()
