"""Every loss stays finite, with finite gradients, on inputs that break the usual implementations."""

from __future__ import annotations

import pytest
import torch

from modalift import losses


def maps(kind: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    own, other = torch.rand(3, 5, 2, 3, 3), torch.rand(3, 7, 2, 3, 3)
    if kind == "dead":
        own[0, :, 0, 1, 1] = 0
        other[1] = 0
    elif kind == "identical":
        own[1] = own[0]
        other[1] = other[0]
    elif kind == "equal":
        other = own.clone()
    elif kind == "offset":
        own, other = own + 1e3, other + 1e3
    elif kind == "constant":
        own = torch.full_like(own, 1234.5)
    elif kind == "one":
        own, other = own[:1], other[:1]
    return own.to(dtype).requires_grad_(), other.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "dead", "identical", "equal", "offset", "constant", "one"])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_semantic_alignment_is_finite(kind, dtype, eps):
    own, other = maps(kind, dtype)
    loss = losses.semantic_alignment(own, other, eps=eps)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(own.grad).all()


def test_a_dead_position_gets_no_gradient_and_no_correlation():
    own, other = maps("dead")
    losses.semantic_alignment(own, other).backward()
    assert own.grad[0, :, 0, 1, 1].abs().max() == 0
    assert losses.correlation(own)[0, 4].abs().max() == 0


def test_grids_of_different_size_are_averaged_to_the_smaller():
    loss = losses.semantic_alignment(torch.rand(2, 4, 8, 6, 6), torch.rand(2, 9, 4, 1, 1), per_sample=True)
    assert loss.shape == (2,)
    assert torch.isfinite(loss).all()


def test_the_reference_size_rescales_the_sum():
    own, other = maps("plain")
    plain = losses.semantic_alignment(own, other)
    assert losses.semantic_alignment(own, other, reference=36).item() == pytest.approx(plain.item() * 4, rel=1e-5)


@pytest.mark.parametrize("gap", [0.0, 20.0, 200.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_soft_target_is_finite_with_huge_logits(gap, dtype):
    student = torch.tensor([[gap, 0.0, -gap]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-gap, 0.0, gap]], dtype=dtype)
    loss = losses.soft_target(student, teacher, temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_soft_target_is_not_negative_and_zero_only_for_equal_answers():
    logits = torch.randn(16, 5)
    assert losses.soft_target(logits, logits + 7.0).item() == pytest.approx(0.0, abs=1e-5)
    assert losses.soft_target(logits, logits.flip(0), per_sample=True).min() >= 0


def test_focal_weight_is_finite_and_limited():
    own, other = torch.tensor([200.0, 1.0], dtype=torch.float16), torch.tensor([0.0, 2.0], dtype=torch.float16)
    weight = losses.focal_weight(own, other)
    assert torch.isfinite(weight).all()
    assert weight[1] == 0
    assert losses.focal_weight(own, other, limit=10.0).tolist() == [10.0, 0.0]


def test_losses_ignore_autocast():
    own, other = maps("plain")
    plain = losses.semantic_alignment(own, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert losses.semantic_alignment(own, other) == plain


@pytest.mark.parametrize("name", ["soft_target", "semantic_alignment"])
def test_gradients_are_those_of_the_value(name):
    torch.manual_seed(1)
    if name == "soft_target":
        teacher = torch.randn(3, 4, dtype=torch.float64)
        x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda s: losses.soft_target(s, teacher), x)
    else:
        other = torch.rand(2, 4, 1, 2, 2, dtype=torch.float64)
        x = torch.rand(2, 3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda m: losses.semantic_alignment(m, other, eps=1e-5), x)
