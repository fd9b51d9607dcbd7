"""The processor, its features and its limits: for the choice of precision, run folders and tables of results."""

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

#: Instruction sets that decide how fast a network is, in the order in which they are printed: Linux's -> PyTorch's name.
FEATURES = {"avx2": "avx2", "avx512f": "avx512_f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16",
            "avx512_fp16": "avx512_fp16", "amx_bf16": "amx_bf16", "amx_fp16": "amx_fp16", "neon": "neon", "sve": "sve"}
#: Environment variables that limit PyTorch or oneDNN to older instruction sets.
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
#: oneDNN's names of instruction sets in ascending order, up to the last that lacks one of the half precisions.
_ISAS = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16")
#: Half precision -> features of which it needs one, and oneDNN's instruction sets that lack it.
_HALF = {"bf16": (("avx512_bf16", "amx_bf16"), _ISAS[:-1]), "fp16": (("avx512_fp16", "amx_fp16"), _ISAS)}
#: Precision -> its name in a table of results.
PRECISIONS = {"fp32": "float32", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Processor:
    """The processor of this process.

    Attributes:
        name: name of the processor model.
        features: its instruction sets, of :data:`FEATURES`.
        cores: number of cores that this process may use.
        threads: number of threads that PyTorch uses.
        limits: ``VARIABLE=value`` for those of :data:`LIMITS` that are set.
        gpu: name of the GPU, None without one.
    """

    name: str
    features: tuple[str, ...]
    cores: int
    threads: int
    limits: tuple[str, ...] = ()
    gpu: str | None = None

    def supports(self, precision: str) -> bool:
        """Whether there are instructions for matrix products in ``bf16`` or ``fp16``, not disabled by limits."""
        features, lacking = _HALF[precision]
        for limit in self.limits:
            variable, _, value = limit.partition("=")
            if variable == "ATEN_CPU_CAPABILITY" and value.lower() in ("default", "avx2"):
                return False
            if variable != "ATEN_CPU_CAPABILITY" and value.upper() in lacking:
                return False
        return bool(set(features) & set(self.features))

    def unsupported_reason(self, precision: str) -> str:
        """Why :meth:`supports` is False, in a few words: ``no avx512_bf16 or amx_bf16``."""
        features = _HALF[precision][0]
        if set(features) & set(self.features):
            return f"limited by {', '.join(self.limits)}"
        return f"no {' or '.join(features)}"

    def line(self, precision: str = "", on_gpu: bool = False, torch_version: str = torch.__version__) -> str:
        """One line for tables of results: processor, features, cores, PyTorch, precision and threads.

        Args:
            precision: ``fp32``, ``bf16``, ``fp16``, or other text; empty where PyTorch was not used.
            on_gpu: whether the GPU was used.
            torch_version: version of PyTorch.

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


def hardware(precision: str = "", *, on_gpu: bool = False, environment_paths: Iterable[Path] = ()) -> str:
    """The line about hardware in tables of results, as all benchmarks print it.

    Args:
        precision: see :meth:`Processor.line`.
        on_gpu: whether the GPU was used.
        environment_paths: ``environment.json`` of the runs in a table; it is then their hardware, not that of this process.
    """
    lines = []
    for path in environment_paths:
        stored = read_json(path, dict, "the run was made by an older version; train it again")
        other = Processor(stored["processor"], tuple(stored["features"]), stored["cores"], stored["threads"],
                          tuple(stored["limits"]), stored["gpu"])
        lines.append(other.line(stored["precision"], stored["device"] == "cuda", stored["torch"]))
    return f"Hardware: {' / '.join(dict.fromkeys(lines or [describe().line(precision, on_gpu)]))}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number > 1 else "")


def describe() -> Processor:
    """The processor of this process, with the current number of threads and limits."""
    return Processor(_name(), _features(), _cores(), torch.get_num_threads(),
                     tuple(f"{v}={os.environ[v]}" for v in LIMITS if os.environ.get(v)),
                     torch.cuda.get_device_name() if torch.cuda.is_available() else None)


def environment() -> dict[str, Any]:
    """Versions and hardware, as recorded in ``environment.json``."""
    import numpy

    here = describe()
    return {
        "modalift": __version__, "python": sys.version.split()[0], "torch": torch.__version__,
        "numpy": numpy.__version__, "system": platform.platform(), "processor": here.name, "features": list(here.features),
        "limits": list(here.limits), "cores": here.cores, "threads": here.threads, "gpu": here.gpu,
    }


def _cpuinfo(key: str) -> str:
    """A field of the first processor in Linux's ``/proc/cpuinfo``; empty on other systems."""
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
    flags = _cpuinfo("flags").split()  # PyTorch before 2.12
    return tuple(name for name in FEATURES if name in flags)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
