"""How much memory decoded frames may take on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

#: Share of the free memory that frames may take; the rest is for the training itself, and for other programs.
SHARE = 0.5
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def memory_budget(workers: int = 0) -> int:
    """Bytes that the frames of one process may take.

    It is half of the free memory, divided by the training processes on this host (``LOCAL_WORLD_SIZE``, as `torchrun` sets
    it, else ``WORLD_SIZE``), each of which keeps its own frames.

    Args:
        workers: loader processes. On Linux they share the frames of their parent, elsewhere each has a copy.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)
    copies = 1 if sys.platform == "linux" else 1 + workers
    return int(SHARE * free_memory() / (processes * copies))


def free_memory() -> int:
    """Bytes that this process can still take: of the machine, of its container, and within its own limit."""
    return min([psutil.virtual_memory().available, *_free_in_cgroups(), *_free_in_own_limit()])


def _free_in_cgroups(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> Iterator[int]:
    """What the control groups of a container or a batch system leave: their limit less what is in use.

    File pages that the kernel can drop (``inactive_file``) count as free.
    """
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                yield from _free_in_cgroup(cgroups, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                yield from _free_in_cgroup(cgroups / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                           "total_inactive_file")


def _free_in_cgroup(root: Path, path: str, limit: str, usage: str, droppable: str) -> Iterator[int]:
    """Of a group and the groups around it; in a container the path may be the host's, then the root is its own."""
    inside = root / path.lstrip("/")
    for folder in dict.fromkeys((inside, *inside.parents, root)):
        if folder == root or root in folder.parents:
            with suppress(OSError, ValueError):
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                most, used = int((folder / limit).read_text()), int((folder / usage).read_text())  # "max": no limit
                yield max(0, most - used + int(stat.get(droppable, 0)))


def _free_in_own_limit() -> Iterator[int]:
    """What the process's own limit (``ulimit -v``) leaves."""
    with suppress(ImportError, OSError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield max(0, limit - psutil.Process().memory_info().vms)
