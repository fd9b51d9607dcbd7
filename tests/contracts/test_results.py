"""Tables of results say what they were measured on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "results").glob("*.md"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_a_table_names_the_hardware(path):
    """Processor with its features (or that they were not recorded) and threads; where PyTorch computed, in which precision."""
    lines = re.findall(r"^(?:## )?(Hardware: .*)$", path.read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        assert re.search(r"not recorded|avx|amx|neon|sve|NVIDIA", line), line
        assert re.search(r"\d threads?\b", line), line
        assert "PyTorch" not in line or re.search(r"float32|bf16|fp16", line), line
