"""One process or several, as `torchrun` or SLURM started them."""

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
    """This process among those of a distributed training.

    Attributes:
        rank: of this process, 0 for the main one.
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0


def init_distributed(device: str = "auto") -> Ranks:
    """Joins the processes that the environment describes (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, as `torchrun` sets them).

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` (a GPU if there is one).

    Raises:
        ModaliftError: an unknown device, or a GPU where there is none.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    where = device_of(device)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return Ranks(rank, size, where)


def device_of(device: str = "auto") -> torch.device:
    """The device of this process by ``run.device``; with several GPUs, the one of its ``LOCAL_RANK``.

    Raises:
        ModaliftError: an unknown device, or a GPU where there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModaliftError(f"run.device = '{device}', but PyTorch sees no GPU - use run.device=cpu")
    try:
        found = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device)
        torch.zeros(1, device=found).item()  # a name that PyTorch knows may be a device that it was not built for
    except Exception:  # of many kinds, with texts of many lines
        raise ModaliftError(f"run.device = '{device}' is no device here - use cpu, cuda or auto") from None
    return found


def set_threads(threads: int) -> None:
    """Sets the CPU threads of this process by ``run.threads``; 0 leaves PyTorch's choice."""
    if threads:
        torch.set_num_threads(threads)


def shutdown_distributed() -> None:
    """Ends the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def to_device(scheme: nn.Module, device: torch.device) -> None:
    """Moves a scheme to a device, with the weights of 2-D convolutions in channels-last memory: 25 % faster on CPUs.

    Those of 3-D convolutions stay contiguous: in channels-last memory a training step of ``r3d`` took a third longer, that
    of other networks between 5 % less and 7 % more.
    """
    scheme.to(device)
    for p in scheme.parameters():
        if p.dim() == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)


def broadcast(value: Any, ranks: Ranks) -> Any:
    """The main process's value, in all processes."""
    if ranks.size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gather(value: Any, ranks: Ranks) -> list[Any]:
    """The values of all processes, in all processes."""
    if ranks.size == 1:
        return [value]
    values: list[Any] = [None] * ranks.size
    dist.all_gather_object(values, value)
    return values


def wrap_ddp(scheme: nn.Module, ranks: Ranks, find_unused_parameters: bool = False) -> nn.Module:
    """Wraps a scheme in DistributedDataParallel, which averages gradients over processes; one process needs no wrapper.

    Args:
        scheme: the scheme, on its device.
        ranks: the processes.
        find_unused_parameters: whether a step may leave parameters without a gradient (several updates, or phases).
    """
    if ranks.size == 1:
        return scheme
    ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(scheme, device_ids=ids, find_unused_parameters=find_unused_parameters)
