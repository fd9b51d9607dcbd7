"""Fusion beyond what every scheme promises: its two modes by hand, modality dropout, and that the joint answer is kept."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from modalift import networks, schemes
from modalift.engine.build import assemble
from modalift.errors import ModaliftError
from modalift.loading.framing import Framing
from modalift.modalities import Batch
from modalift.models import load, model_of
from modalift.recipe import load_recipe
from modalift.report import explain
from modalift.schemes import Progress

END = Progress(epoch=9, epochs=10)
VIEWS = {"rgb": 3, "thermal": 1, "nir": 1}


def net(view: str, classes: int = 4) -> networks.Recognizer:
    torch.manual_seed(len(view))
    return networks.build("small", classes=classes, view=view, frames=4, size=32, width=8, dropout=0.0)


def batch(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    clips = {v: 20 + 10 * torch.rand(n, c, 4, 32, 32, generator=g) for v, c in VIEWS.items()}
    return Batch(clips, {}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes.clone(), torch.arange(n))


def cast(views=tuple(VIEWS), **settings):
    torch.manual_seed(0)
    return schemes.build("fusion", {v: net(v) for v in views}, settings).eval()


def test_late_fusion_is_the_mean_of_the_logits_of_the_sensors_that_are_there():
    made, given = cast(), batch()
    given.present["rgb"][[0, 1]] = False
    given.present["nir"][[1, 5]] = False
    logits = {k: made.roles[k](given.clips[k]) for k in VIEWS}
    rows = [torch.stack([logits[k][b] for k in VIEWS if given.present[k][b]]).mean(0) for b in range(8)]
    terms = made(given, END)
    assert list(terms) == ["joint_ce/rgb+thermal+nir", "ce/rgb", "ce/thermal", "ce/nir"]
    expected = F.cross_entropy(torch.stack(rows), given.labels)
    torch.testing.assert_close(terms["joint_ce/rgb+thermal+nir"][1], expected, rtol=1e-4, atol=1e-6)


def test_mid_fusion_reads_features_side_by_side_and_zeros_for_what_is_absent():
    made, given = cast(mode="mid", bins=2), batch()
    given.present["thermal"][3] = False
    columns = []
    for k in VIEWS:
        deepest = made.roles[k].observe(given.clips[k], ["layer3"]).maps["layer3"].mean((3, 4))  # (B, C, 4)
        halves = torch.stack([deepest[..., :2].mean(2), deepest[..., 2:].mean(2)], 2).flatten(1)
        columns.append(halves * given.present[k].unsqueeze(1))
    expected = F.cross_entropy(made.head.layers(torch.cat(columns, 1)), given.labels)
    torch.testing.assert_close(made(given, END)["joint_ce/rgb+thermal+nir"][1], expected, rtol=1e-4, atol=1e-6)


def test_modality_dropout_leaves_out_its_share_and_never_all():
    made = cast(modality_dropout=0.5).train()
    here = torch.ones(3, 4000, dtype=torch.bool)
    here[0, :1000] = False
    torch.manual_seed(1)
    kept = made.kept(here)
    assert kept.any(0).all()
    assert not kept[0, :1000].any(), "what is absent stays so"
    three = (0.5 + 0.125) * torch.ones(3)  # a clip that would lose all three keeps all
    torch.testing.assert_close(kept[:, 1000:].float().mean(1), three, atol=0.04, rtol=0)
    assert torch.equal(made.eval().kept(here), here), "nothing is dropped when it answers"


def test_without_terms_of_their_own_branches_learn_through_the_joint_answer_alone():
    terms = cast(own_ce_weight=0.0)(batch(), END)
    assert [w for k, (w, _) in terms.items() if k.startswith("ce/")] == [0.0] * 3


@pytest.mark.parametrize("mode", ["late", "mid"])
def test_the_joint_answer_is_the_same_when_read_again(tmp_path, mode):
    made, given = cast(mode=mode), batch()
    framing = Framing(frames=4, size=32)
    fusion = made.models()["fusion"]
    held = load(model_of(fusion, dict.fromkeys(VIEWS, framing), tuple("abcd")).save(tmp_path / "fusion.modalift"))
    assert (held.kind, held.deployable, held.classes, held.framings["nir"]) == ("fusion", False, tuple("abcd"), framing)
    assert held.views == tuple(net.view for net in made.roles.values()), "in the order of the head's weights"
    with torch.no_grad():
        assert torch.equal(held.network(given.clips), fusion.eval()(given.clips))
        seen = torch.stack([net(given.clips[k]) for k, net in made.roles.items()]).mean(0)
    if mode == "late":
        torch.testing.assert_close(held.network(given.clips), seen)


@pytest.mark.parametrize("mode", ["late", "mid"])
def test_explain_shows_the_head_that_all_share_and_that_stays(mode, recipe_file):
    cast = {"depth": {"name": "small", "view": "depth", "width": 4}, "pose": {"name": "tcn", "view": "pose", "width": 8}}
    recipe = load_recipe(recipe_file(networks=cast), ["scheme.name=fusion", f"scheme.mode={mode}"])
    experiment = assemble(recipe, train=False)
    found = explain.as_json(experiment)["training_only_modules"]
    weights = sum(p.numel() for p in experiment.scheme.head.parameters())
    assert found == ([{"name": "head", "made_of": "FusionHead", "parameters": weights}] if mode == "mid" else [])
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(explain.render(experiment))
    said = console.export_text()
    assert ("for training only" in said) == (mode == "mid")
    assert f"{weights:,}" in said or mode == "late"


@pytest.mark.parametrize(("change", "told"), [
    ({"mode": "early"}, "mode"), ({"modality_dropout": 1.0}, "modality_dropout = 1.0"),
    ({"own_ce_weight": -1.0}, "own_ce_weight = -1"), ({"width": 0}, "width = 0")])
def test_settings_that_make_no_sense_are_told(change, told):
    with pytest.raises(ModaliftError, match=told):
        cast(**change)


def test_networks_that_cannot_be_joined_are_told():
    with pytest.raises(ModaliftError, match="there is 1"):
        cast(("rgb",))
    with pytest.raises(ModaliftError, match="different numbers of classes"):
        schemes.build("fusion", {"rgb": net("rgb"), "nir": net("nir", classes=5)})
    with pytest.raises(ModaliftError, match="another role"):
        schemes.build("fusion", {"rgb": net("rgb"), "fusion": net("nir")})
