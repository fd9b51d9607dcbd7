"""Losses against reference values that were computed by independent code (see the `source` of each)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modalift import losses

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "specs" / "golden.json"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="../shared with the reference values is absent")


def golden() -> dict:
    return json.loads(GOLDEN.read_text())


def given(name: str) -> torch.Tensor:
    """The input of that name, made again from its recipe (seeded uniform numbers) and checked."""
    spec = golden()["inputs"][name]
    u = np.random.Generator(np.random.PCG64(spec["seed"])).random(size=spec["shape"])
    x = spec["low"] + (spec["high"] - spec["low"]) * u
    assert x.sum() == pytest.approx(spec["sum"], rel=1e-12)
    return torch.tensor(x, dtype=torch.float64)


def value(name: str):
    return golden()["golden"][name]["value"]


def close(actual: torch.Tensor, expected) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-9)


def test_soft_target_matches_the_reference_value_and_gradient():
    student, teacher = given("logits_s").requires_grad_(), given("logits_t").requires_grad_()
    loss = losses.soft_target(student, teacher, temperature=4.0)
    close(loss, value("kd_T4"))
    loss.backward()
    assert student.grad.norm().item() == pytest.approx(golden()["golden"]["kd_T4"]["grad_norm_student"], rel=1e-9)
    assert teacher.grad is None


def test_semantic_alignment_matches_the_reference_value_and_gradient():
    own, other = given("ssa_m").requires_grad_(), given("ssa_n").requires_grad_()
    close(losses.semantic_alignment(own, other, per_sample=True), value("ssa_frob2_per_sample"))
    close(losses.semantic_alignment(own, other, reduction="mean"), value("ssa_mean_d2_batchmean"))
    loss = losses.semantic_alignment(own, other, reduction="sum")
    close(loss, value("ssa_sum_batchmean"))
    loss.backward()
    expected = golden()["golden"]["ssa_sum_batchmean"]["grad_norm_m_with_n_detached"]
    assert own.grad.norm().item() == pytest.approx(expected, rel=1e-9)
    assert other.grad is None, "the loss of one network must not move the other"


def test_focal_weight_matches_the_reference_table():
    for row in value("focal_rho_table"):
        own = torch.tensor([row["l_m"]], dtype=torch.float64)
        other = torch.tensor([row["l_n"]], dtype=torch.float64)
        assert losses.focal_weight(own, other, row["beta"]).item() == pytest.approx(row["rho_mn"], rel=1e-9)
