"""MTUT beyond what every scheme promises: three sensors, its two backbones, its schedule, maps of other extents."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.recipe import load_recipe
from modalift.schemes import Progress

END = Progress(epoch=74, epochs=75)
SENSORS = {"rgb": 3, "depth": 1, "flow": 2}


def batch(n: int = 4, frames: int = 16, size: int = 32) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    clips = {v: 20 + 10 * torch.rand(n, c, frames, size, size, generator=g) for v, c in SENSORS.items()}
    return Batch(clips, {}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes, torch.arange(n))


def cast(family: str, views=tuple(SENSORS), **settings):
    nets = {}
    for view in views:
        torch.manual_seed(len(view))
        nets[view] = networks.build(family, classes=4, view=view, frames=16, size=32, width=0.125, dropout=0.0)
    return schemes.build("mtut", nets, settings).train()


@pytest.mark.parametrize(("family", "stage"), [("i3d", "Mixed_5c"), ("c3d", "pool5")])
def test_the_map_that_is_aligned_by_default_is_the_papers(family, stage):
    made, named = cast(family), cast(family, stage=stage)
    assert {net.last_stage for net in made.roles.values()} == {stage}
    one, other = made(batch(), END), named(batch(), END)
    assert one.keys() == other.keys()
    assert sum(k.startswith("ssa/") for k in one) == 6, "every network from every other one"
    for key in one:
        torch.testing.assert_close(one[key][1], other[key][1])
        assert torch.isfinite(one[key][1])


def test_alignment_begins_after_sixty_of_seventy_five_epochs():
    made, given = cast("c3d", ("rgb", "depth")), batch()
    weights = [made(given, Progress(epoch=e, epochs=75))["ssa/depth>rgb"][0] for e in (0, 59, 60, 74)]
    assert weights == [0.0, 0.0, 0.05, 0.05]


@pytest.mark.parametrize(("align_after", "epochs", "wanted"), [
    (0.8, 1, [True]), (0.8, 3, [False, False, True]), (1.0, 2, [False] * 2), (0.0, 2, [True] * 2),
    (0.5, 4, [False, False, True, True])])
def test_however_short_a_training_its_last_epoch_aligns_unless_it_never_shall(align_after, epochs, wanted):
    made, given = cast("c3d", ("rgb", "depth"), align_after=align_after), batch()
    found = [made(given, Progress(epoch=e, epochs=epochs))["ssa/depth>rgb"] for e in range(epochs)]
    assert [weight > 0 for weight, _ in found] == wanted
    assert [raw.requires_grad for _, raw in found] == wanted


def test_without_the_focal_weight_every_network_follows_every_other_one():
    terms = cast("c3d", focal=False)(batch(), END)
    for m in SENSORS:
        for n in SENSORS:
            if n != m:
                assert terms[f"focal_weight/{n}>{m}"][1].item() == 1
                torch.testing.assert_close(terms[f"ssa/{n}>{m}"][1].detach(), terms[f"ssa_distance/{n}>{m}"][1])


def test_the_focal_weights_gradient_reaches_its_own_network_alone():
    views = ("rgb", "depth")
    plain, other = cast("c3d", views, focal_beta=0.5), cast("c3d", views, focal_beta=0.5, rho_grad=True)
    given, moved = batch(), {}
    for key in ("ssa/depth>rgb", "ssa/rgb>depth"):
        a, b = plain(given, END)[key], other(given, END)[key]
        torch.testing.assert_close(a[1], b[1])
        learner, teacher = key.split(">")[1], key.split("/")[1].split(">")[0]
        own, same = (list(m.roles[learner].parameters()) for m in (plain, other))
        one = torch.autograd.grad(a[1], own, retain_graph=True, allow_unused=True)
        two = torch.autograd.grad(b[1], same, retain_graph=True, allow_unused=True)
        moved[key] = any(y is not None and (x is None or not torch.allclose(x, y)) for x, y in zip(one, two, strict=True))
        beside = torch.autograd.grad(b[1], list(other.roles[teacher].parameters()), allow_unused=True)
        assert all(g is None for g in beside), "the other network is never pushed to become worse"
    assert any(moved.values()), "the classifier of a network that is the worse one somewhere"


def test_maps_of_other_extents_in_time_and_picture_are_averaged_to_the_smaller():
    torch.manual_seed(0)
    large = networks.build("small", classes=4, view="rgb", frames=8, size=64, width=4, dropout=0.0)
    small = networks.build("small", classes=4, view="depth", frames=4, size=32, width=6, dropout=0.0)
    made = schemes.build("mtut", {"rgb": large, "depth": small}, {"focal": False, "reference": 64}).train()
    given = batch()
    given.clips = {"rgb": batch(4, 8, 64).clips["rgb"], "depth": batch(4, 4, 32).clips["depth"]}
    a, b = (made.roles[k].observe(given.clips[k], ["layer3"]).maps["layer3"] for k in ("rgb", "depth"))
    assert (a.shape[2:], b.shape[2:]) == ((8, 8, 8), (4, 4, 4))
    rows = [F.adaptive_avg_pool3d(a, 4).flatten(2), b.flatten(2)]  # (B, C, d)
    unit = [F.normalize(r - r.mean(1, keepdim=True), dim=1) for r in rows]
    one, other = (u.transpose(1, 2) @ u for u in unit)
    expected = (one - other).square().sum((1, 2)).mean()
    found = made(given, END)["ssa/depth>rgb"][1]
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-2)  # training wants an epsilon inside the root


def test_the_recipes_have_the_papers_schedule():
    for name in ("nvgesture/mtut_i3d", "egogesture/mtut_i3d", "nvgesture/mtut_c3d", "viva/mtut_c3d"):
        recipe = load_recipe(name)
        optim, scheme = recipe.optim, recipe.scheme.model_extra
        assert (optim.epochs, optim.batch, optim.lr, optim.momentum, optim.gamma) == (75, 6, 0.01, 0.9, 0.1)
        assert scheme["align_after"] * optim.epochs == 60
        for section in recipe.networks.values():
            net = networks.build(section.name, classes=4, view=section.view, frames=16, size=32, width=0.125)
            assert scheme["stage"] == net.last_stage


@pytest.mark.parametrize("wrong", [{"ssa_weight": -1.0}, {"focal_beta": 0.0}, {"focal_limit": -1.0}, {"align_after": 5.0},
                                   {"reference": 0}])
def test_settings_that_teach_nothing_or_the_wrong_way_are_told(wrong):
    nets = {v: networks.build("small", classes=4, view=v, frames=8, size=16, width=4) for v in ("rgb", "depth")}
    with pytest.raises(ModaliftError, match=rf"scheme\.{next(iter(wrong))} = .*: must "):
        schemes.build("mtut", nets, wrong)


def test_one_network_has_nobody_to_learn_from():
    net = networks.build("small", classes=4, view="depth", frames=8, size=16, width=4)
    with pytest.raises(ModaliftError, match="there is 1 - add another one"):
        schemes.build("mtut", {"depth": net})
