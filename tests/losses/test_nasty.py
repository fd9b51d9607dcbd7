"""Every loss stays finite, with finite gradients, on inputs that break the usual implementations."""

from __future__ import annotations

import math

import pytest
import torch

from modalift import losses
from modalift.losses.depth_reconstruction import has_readings


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


def test_a_focal_weight_with_gradient_moves_its_own_loss_alone():
    own, other = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([1.0, 0.5, 9.0], [0.5, 1.0, 0.0]))
    losses.focal_weight(own, other, 2.0, limit=10.0, rho_grad=True).sum().backward()
    expected = torch.tensor([2 * math.e, 0.0, 0.0], dtype=torch.float64)  # beta e^(beta delta); none below 0 and at the limit
    torch.testing.assert_close(own.grad, expected)
    assert other.grad is None
    assert not losses.focal_weight(own, other).requires_grad


def test_losses_ignore_autocast():
    own, other = maps("plain")
    plain = losses.semantic_alignment(own, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert losses.semantic_alignment(own, other) == plain


def test_attention_between_graphs_ignores_autocast():
    own, other = maps("plain")
    one, two = (losses.batch_graph(m.detach(), 0.3) for m in (own, other))
    plain = losses.cross_attention(one, two, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses.cross_attention(one, two, 0.1), plain)


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


# ---- every loss of two maps, of two logits, of embeddings ---------------------------------------------------------------

MAPS = {
    "attention_transfer": losses.attention_transfer,
    "attention_transfer_p3": lambda a, b: losses.attention_transfer(a, b, power=3),
    "similarity_preserving": losses.similarity_preserving,
    "correlation_congruence": losses.correlation_congruence,
    "congruence_adjacent": lambda a, b: losses.correlation_congruence(a, b, adjacent=True),
    "relational_distance": losses.relational_distance,
    "relational_angle": losses.relational_angle,
    "channel_correlation": losses.channel_correlation,
    "feature_distance": losses.feature_distance,
    "semantic_alignment": lambda a, b: losses.semantic_alignment(a, b, eps=1e-5),  # as schemes call it
    "graph_attention": lambda a, b: losses.graph_attention([a, a], [b, b]),
    "graph_projected": lambda a, b: losses.graph_attention([a], [b], lambda i, j, x: x),
    "graph_sharp": lambda a, b: losses.graph_attention([a], [b], temperature=0.1, sigma=0.3, residual=True),
    "graph_median": lambda a, b: losses.graph_attention([a], [b], sigma="median"),
    "graph_cross": lambda a, b: losses.graph_attention([a, a], [b, b], graph="cross", sigma=0.3, temperature=0.1),
    "graph_cross_median": lambda a, b: losses.graph_attention([a], [b], lambda i, j, x: x, graph="cross", sigma="median"),
    "depth_reconstruction": lambda a, b: losses.depth_reconstruction(a[:, :1], b[:, :1], b[:, :1] > 0.3),
    "cycle_consistency": losses.cycle_consistency,
    "identity_mapping": losses.identity_mapping,
    "adversarial": lambda a, b: losses.adversarial(a, real=True),
    "batch_hard_triplet": lambda a, b: losses.batch_hard_triplet(a.flatten(1), torch.arange(len(a)) // 2),
    "triplet_soft": lambda a, b: losses.batch_hard_triplet(a.flatten(1), torch.arange(len(a)) // 2, None),
    "relation_consistency": lambda a, b: losses.relation_consistency(a.flatten(1), b.flatten(1), torch.arange(len(a)) // 2),
}
#: The one term whose target is not the second argument's graph but a learner's.
UNTAUGHT = {"cycle_consistency", "identity_mapping"}


def two_maps(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    own, other = torch.rand(4, 5, 2, 3, 3), torch.rand(4, 5, 2, 3, 3)
    if kind == "dead positions":
        own[0, :, 0, 1, 1] = 0
        other[1, :, :, 2] = 0
    elif kind == "dead clip":
        own[0], other[1] = 0, 0
    elif kind == "all dead":
        own, other = own * 0, other * 0
    elif kind == "identical":
        own[1:], other[1:] = own[0], other[0]
    elif kind == "equal":
        other = own.clone()
    elif kind == "offset":
        own, other = own + 1e3, other + 1e3
    elif kind == "large":
        own, other = own * 300, other * 300
    elif kind == "tiny":
        own, other = own * 1e-7, other * 1e-7
    elif kind == "one":
        own, other = own[:1], other[:1]
    return own.to(dtype).requires_grad_(), other.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "dead positions", "dead clip", "all dead", "identical", "equal", "offset", "large",
                                  "tiny", "one"])
@pytest.mark.parametrize("name", list(MAPS))
def test_losses_of_maps_are_finite_and_tame(name, kind, dtype):
    own, other = two_maps(kind, dtype)
    with torch.autocast("cpu", torch.bfloat16):  # whatever autocast does around it
        loss = MAPS[name](own, other)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(own.grad).all()
    scale = float(own.detach().float().abs().max())
    # A step of the input's own size may change the loss by no more than a great deal: no 1e10 from dead or equal clips.
    assert float(own.grad.float().abs().max()) * max(scale, 1e-3) < 1e6
    if name not in UNTAUGHT:
        assert other.grad is None, "the other side is a target"


@pytest.mark.parametrize("name", [name for name in MAPS if "median" not in name])  # a median is a number, not a function
def test_gradients_of_losses_of_maps_are_those_of_the_value(name):
    torch.manual_seed(3)
    own = torch.rand(4, 3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    other = torch.rand(4, 3, 1, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: MAPS[name](x, other), (own,), atol=1e-7)


@pytest.mark.parametrize("loss", [losses.attention_transfer, losses.similarity_preserving, losses.correlation_congruence,
                                  losses.relational_distance, losses.relational_angle, losses.channel_correlation,
                                  losses.feature_distance, losses.semantic_alignment, losses.depth_reconstruction])
def test_values_of_clips_average_to_the_loss(loss):
    torch.manual_seed(1)
    own, other = torch.rand(4, 5, 2, 3, 3), torch.rand(4, 5, 2, 3, 3)
    each = loss(own, other, per_sample=True)
    assert each.shape == (4,)
    assert each.mean().item() == pytest.approx(loss(own, other).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("gap", [0.0, 20.0, 120.0, 200.0])
def test_decoupled_is_finite_with_huge_logits(gap, classes, dtype):
    z = torch.zeros(2, classes, dtype=dtype)
    student, teacher = z.clone(), z.clone()
    student[:, 0], teacher[:, 1], student[:, -1] = gap, gap, -gap
    student.requires_grad_()
    loss = losses.decoupled(student, teacher, torch.tensor([1, 0]), temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    if classes == 2:
        assert losses.decoupled_parts(student, teacher, torch.tensor([1, 0]))[1].abs().max() == 0


def test_decoupled_is_right_where_the_usual_code_is_infinite():
    # A student that is sure of the wrong class by 120: -log of the right one's probability, which underflows.
    student, teacher = torch.tensor([[0.0, 120.0, 0.0]]), torch.tensor([[200.0, 0.0, 0.0]])
    sure, _ = losses.decoupled_parts(student, teacher, torch.tensor([0]), temperature=1.0)
    assert sure.item() == pytest.approx(120.0, rel=1e-6)


def test_two_identical_clips_have_no_angle_and_no_gradient_between_them():
    x = torch.rand(3, 6)
    x[1] = x[0]
    x.requires_grad_()
    losses.relational_angle(x, torch.rand(3, 6)).backward()
    assert x.grad.abs().max() < 10


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_distances_survive_a_common_offset(offset):
    torch.manual_seed(0)
    x = torch.rand(5, 16, dtype=torch.float64)
    near = losses.relational_distance(x.float() + offset, torch.rand(5, 4))
    exact = losses.relational_distance((x.float() + offset).double(), torch.rand(5, 4).double())
    torch.manual_seed(0)
    assert torch.isfinite(near)
    assert torch.isfinite(exact)
    who = torch.tensor([0, 0, 1, 1, 1])
    a = losses.batch_hard_triplet(x.float() + offset, who)
    assert a.item() == pytest.approx(losses.batch_hard_triplet((x.float() + offset).double(), who).item(), rel=1e-4)


def test_triplets_without_a_partner_or_a_rival_count_nothing():
    x = torch.rand(4, 3, requires_grad=True)
    for who in ([0, 0, 0, 0], [0, 1, 2, 3]):
        loss = losses.batch_hard_triplet(x, torch.tensor(who))
        assert loss.item() == 0
        assert torch.autograd.grad(loss, x)[0].abs().max() == 0


def test_contrastive_representation_equals_the_formula_and_survives_extremes():
    positive, negatives, n = torch.rand(3, dtype=torch.float64), torch.rand(3, 7, dtype=torch.float64), 50
    plain = -(positive.exp() / (positive.exp() + 7 / n)).log() - ((7 / n) / (negatives.exp() + 7 / n)).log().sum(1)
    torch.testing.assert_close(losses.contrastive_representation(positive, negatives, n, per_sample=True), plain)
    far = torch.tensor([-200.0], dtype=torch.float16, requires_grad=True)
    loss = losses.contrastive_representation(far, torch.full((1, 5), 200.0, dtype=torch.float16), n)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(far.grad).all()


def test_holes_of_the_depth_picture_do_not_count():
    depth = torch.rand(2, 1, 3, 8, 8)
    hole = torch.rand(2, 1, 3, 8, 8) < 0.3
    drawn = depth.clone()
    drawn[hole] = 99.0
    seen = torch.where(hole, torch.zeros_like(depth), depth)
    assert losses.depth_reconstruction(drawn, seen, ~hole).item() == 0
    assert losses.depth_reconstruction(drawn, seen, torch.zeros_like(hole)).item() == 0  # no reading at all
    constant = torch.full((2, 1, 3, 4, 4), 0.5)
    half = torch.where(hole, torch.zeros_like(depth), torch.full_like(depth, 0.5))
    assert losses.depth_reconstruction(constant, half, ~hole, antialias=True).item() == pytest.approx(0.0, abs=1e-10)


def test_a_clip_without_readings_does_not_dilute_the_others():
    depth, drawn = torch.rand(3, 1, 2, 8, 8), torch.rand(3, 1, 2, 8, 8)
    seen = torch.rand(3, 1, 2, 8, 8) < 0.5
    seen[1] = False
    seen[2] = False
    seen[2, :, :, 0, 0] = True  # one reading a frame
    by_hand = [(drawn[i] - depth[i])[seen[i]].square().mean() for i in (0, 2)]
    assert losses.depth_reconstruction(drawn, depth, seen).item() == pytest.approx((sum(by_hand) / 2).item(), rel=1e-5)
    each = losses.depth_reconstruction(drawn, depth, seen, per_sample=True)
    torch.testing.assert_close(each, torch.stack([by_hand[0], torch.zeros(()), by_hand[1]]))
    assert has_readings(seen, 8, 8).tolist() == [True, False, True]
    assert has_readings(seen, 2, 2).tolist() == [True, False, False], "of 4 x 4 pixels the middle ones are read"
    assert has_readings(seen, 2, 2, antialias=True).tolist() == [True, False, True]


def test_the_graphs_between_two_networks_are_those_of_one_where_their_maps_are_equal():
    torch.manual_seed(0)
    one, other = torch.rand(2, 4, 3, 1, 2, 2, dtype=torch.float64)
    for sigma in (1.0, 0.3, "median"):
        for graph in losses.cross_graphs(one, one, sigma):
            torch.testing.assert_close(graph, losses.batch_graph(one, sigma))
    a, b = one.flatten(1), other.flatten(1)
    edges = torch.tensor([[math.exp(-(x - y).square().mean() / (2 * 0.3**2)) for y in b] for x in a], dtype=torch.float64)
    for found, e in zip(losses.cross_graphs(one, other, 0.3), (edges, edges.T), strict=True):
        root = e.sum(1).rsqrt()
        torch.testing.assert_close(found, root[:, None] * e * root)


def test_the_median_width_is_that_of_two_clips_and_has_no_gradient():
    torch.manual_seed(0)
    x = torch.rand(5, 3, 1, 2, 2, dtype=torch.float64)
    square = torch.pdist(x.flatten(1)).square() / 12
    torch.testing.assert_close(losses.batch_graph(x, "median"), losses.batch_graph(x, square.median().item() ** 0.5))
    torch.testing.assert_close(losses.batch_graph(1e3 * x, "median"), losses.batch_graph(x, "median"))
    assert torch.equal(losses.batch_graph(torch.ones(4, 3, 1, 2, 2), "median"), torch.full((4, 4), 0.25))


def test_the_paper_s_graph_loss_sees_batch_means_and_a_sharp_one_sees_clips():
    torch.manual_seed(0)
    target = torch.rand(8, 4, 1, 6, 6)

    def own_share(**settings):
        x = torch.rand(8, 4, 1, 6, 6, requires_grad=True)
        g = torch.autograd.grad(losses.graph_attention([x], [target], lambda i, j, m: m, **settings), x)[0]
        return float((g - g.mean(0)).norm() / g.norm())

    assert own_share() < 0.05
    assert own_share(residual=True) > 0.5
    assert own_share(temperature=0.02, sigma=0.2) > 0.5


def test_what_cannot_be_compared_is_told():
    from modalift.errors import ModaliftError

    a, b = torch.rand(2, 3, 1, 2, 2), torch.rand(2, 4, 1, 2, 2)
    for loss in (losses.channel_correlation, losses.feature_distance):
        with pytest.raises(ModaliftError, match="3 channels against 4"):
            loss(a, b)
    with pytest.raises(ModaliftError, match="adjacent"):
        losses.correlation_congruence(a, b, adjacent=True)
    with pytest.raises(ModaliftError, match="1 stages of the student against 2"):
        losses.graph_attention([a], [b, b])
    with pytest.raises(ModaliftError, match="same clips"):
        losses.graph_attention([a], [b[:1]])
