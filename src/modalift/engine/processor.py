"""Which processor computes, what it can do, and what limits it: for decisions, run folders and tables of results."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modalift.files import read_json
from modalift.version import __version__

#: Instruction sets that decide how fast a network is, in the order in which they are told: Linux's and PyTorch's name.
FEATURES = {"avx2": "avx2", "avx512f": "avx512_f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
            "avx512_fp16": "avx512_fp16", "amx_bf16": "amx_bf16", "amx_fp16": "amx_fp16", "neon": "neon", "sve": "sve"}
#: Variables that keep PyTorch or oneDNN below what the processor can do.
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
#: oneDNN's names of instruction sets in rising order, as far as they lack one of the half precisions.
_ISAS = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16")
#: Half precision -> features of which one must be there, and oneDNN's instruction sets without it.
_HALF = {"bf16": (("avx512_bf16", "amx_bf16"), _ISAS[:-1]), "fp16": (("avx512_fp16", "amx_fp16"), _ISAS)}
#: Precision -> its name in a table of results.
PRECISIONS = {"fp32": "float32", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Processor:
    """The processor of this process.

    Attributes:
        name: of the model.
        features: its instruction sets, of :data:`FEATURES`.
        cores: those that this process may use.
        threads: those that PyTorch uses.
        limits: ``VARIABLE=value`` for those of :data:`LIMITS` that are set.
        gpu: the GPU that PyTorch sees, if any.
    """

    name: str
    features: tuple[str, ...]
    cores: int
    threads: int
    limits: tuple[str, ...] = ()
    gpu: str | None = None

    def multiplies(self, precision: str) -> bool:
        """Whether matrix products of a half precision (``bf16``, ``fp16``) are instructions here, and may be used."""
        wanted, without = _HALF[precision]
        for limit in self.limits:
            variable, _, value = limit.partition("=")
            if variable == "ATEN_CPU_CAPABILITY" and value.lower() in ("default", "avx2"):
                return False
            if variable != "ATEN_CPU_CAPABILITY" and value.upper() in without:
                return False
        return bool(set(wanted) & set(self.features))

    def lacks(self, precision: str) -> str:
        """Why :meth:`multiplies` is False, in a few words: ``no avx512_bf16 or amx_bf16``."""
        wanted = _HALF[precision][0]
        if set(wanted) & set(self.features):
            return f"limited by {', '.join(self.limits)}"
        return f"no {' or '.join(wanted)}"

    def line(self, precision: str = "", on_gpu: bool = False, torch_version: str = torch.__version__) -> str:
        """One line for tables of results: processor, features, cores, PyTorch, precision and threads.

        Args:
            precision: what was computed in: ``fp32``, ``bf16``, ``fp16``, or words; empty where PyTorch had no part in it.
            on_gpu: whether the GPU computed.
            torch_version: of PyTorch.

        Example:
            >>> Processor("AMD EPYC", ("avx2",), 2, 1).line("fp32", torch_version="2.13.0")
            'AMD EPYC (avx2), 2 cores; PyTorch 2.13.0, float32, 1 thread'
        """
        software = f"PyTorch {torch_version}, {PRECISIONS.get(precision, precision)}, " if precision else ""
        if on_gpu:
            return f"{self.gpu}; {software.removesuffix(', ')}"
        limits = f", limited by {' and '.join(self.limits)}" if self.limits else ""
        return (f"{self.name} ({', '.join(self.features) or 'features unknown'}){limits}, {_count(self.cores, 'core')}; "
                f"{software}{_count(self.threads, 'thread')}")


def hardware(precision: str = "", *, on_gpu: bool = False, runs: Iterable[Path] = ()) -> str:
    """The line about hardware in a table of results, as every benchmark prints it.

    Args:
        precision: what was computed in; empty where PyTorch had no part in it.
        on_gpu: whether the GPU computed.
        runs: ``environment.json`` of the runs that a table is about: then what they say counts, not this process.
    """
    told = []
    for path in runs:
        held = read_json(path, dict, "the run was made by an older version; train it again")
        there = Processor(held["processor"], tuple(held["features"]), held["cores"], held["threads"], tuple(held["limits"]),
                          held["gpu"])
        told.append(there.line(held["precision"], held["device"] == "cuda", held["torch"]))
    return f"Hardware: {' / '.join(dict.fromkeys(told or [describe().line(precision, on_gpu)]))}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number > 1 else "")


def describe() -> Processor:
    """The processor of this process, as it stands: threads and limits may change."""
    return Processor(_name(), _features(), _cores(), torch.get_num_threads(),
                     tuple(f"{v}={os.environ[v]}" for v in LIMITS if os.environ.get(v)),
                     torch.cuda.get_device_name() if torch.cuda.is_available() else None)


def environment() -> dict[str, Any]:
    """Versions and hardware, for whoever wants to reproduce a run."""
    import numpy

    here = describe()
    return {
        "modalift": __version__, "python": sys.version.split()[0], "torch": torch.__version__,
        "numpy": numpy.__version__, "system": platform.platform(), "processor": here.name, "features": list(here.features),
        "limits": list(here.limits), "cores": here.cores, "threads": here.threads, "gpu": here.gpu,
    }


def _cpuinfo(key: str) -> str:
    """A field of Linux's description of the first processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")


def _name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _features() -> tuple[str, ...]:
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return tuple(name for name, key in FEATURES.items() if has.get(key))
    flags = _cpuinfo("flags").split()  # before PyTorch 2.12
    return tuple(name for name in FEATURES if name in flags)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
