"""One process or many: what `torchrun` or SLURM says, and nothing more."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from modalift.errors import ModaliftError


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0


def init_distributed(device: str = "auto") -> Ranks:
    """The processes that the environment describes (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, as `torchrun` sets them).

    Raises:
        ModaliftError: a device that is not there.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModaliftError(f"run.device = '{device}', but PyTorch sees no GPU - use run.device=cpu")
    try:
        where = torch.device(f"cuda:{local}" if device == "cuda" else device)
    except RuntimeError:
        raise ModaliftError(f"run.device = '{device}' is no device - use cpu, cuda or auto") from None
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return Ranks(rank, size, where)


def shutdown_distributed() -> None:
    """Ends the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def to_device(scheme: nn.Module, device: torch.device) -> None:
    """Moves a scheme to its device, the weights of 2-D convolutions channels-last: a quarter less time on CPUs.

    Those of 3-D ones stay: training steps of ``r3d`` took a third longer with them, others between 5% less and 7% more.
    """
    scheme.to(device)
    for p in scheme.parameters():
        if p.dim() == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)


def broadcast(found: Any, ranks: Ranks) -> Any:
    """What the main process found, in all of them."""
    if ranks.size == 1:
        return found
    held = [found]
    dist.broadcast_object_list(held)
    return held[0]


def wrap_ddp(scheme: nn.Module, ranks: Ranks, find_unused_parameters: bool = False) -> nn.Module:
    """The scheme as every process runs it: gradients are averaged over processes.

    ``find_unused_parameters``: a step may leave parameters without a gradient (several updates, or phases).
    """
    if ranks.size == 1:
        return scheme
    ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(scheme, device_ids=ids, find_unused_parameters=find_unused_parameters)
