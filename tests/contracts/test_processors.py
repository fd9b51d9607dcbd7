"""Every network is right on every processor: gradients equal those of float64, as the machine is and limited to AVX2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.gradients import CASES, TOLERANCE

#: Environments that limit the math libraries to what a processor has.
PROCESSORS = {"as it is": {}, "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}}
PROGRAM = Path(__file__).with_name("gradients.py")


def failures(threads: int, limits: dict[str, str], cases: list[int]) -> list[str]:
    """What is wrong with some cases, by tests in another process; after a crash a new one goes on behind it."""
    environment = {**os.environ, **limits, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive",
                   "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, str(PROGRAM), str(threads), *map(str, cases)], env=environment, text=True,
                          capture_output=True, timeout=300, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [f"{CASES[line['case']]}: {line['where']} is off by {line['error']:.2g}" for line in lines
             if "case" in line and not line["error"] < TOLERANCE]
    if done.returncode == 0:
        assert len(lines) == 2 * len(cases)
        return found
    assert lines, done.stderr
    at = lines[-1].get("begins", lines[-1].get("case"))
    how = f"signal {-done.returncode}" if done.returncode < 0 else done.stderr.strip().splitlines()[-1]
    found.append(f"{CASES[at]}: the process died ({how})")
    rest = cases[cases.index(at) + 1:]
    return found + (failures(threads, limits, rest) if rest else [])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_gradients_are_those_of_float64(processor: str, threads: int) -> None:
    wrong = failures(threads, PROCESSORS[processor], list(range(len(CASES))))
    assert not wrong, "\n".join(wrong)
