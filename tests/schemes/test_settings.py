"""Settings that would do nothing, stages and words that there are not: told, never swallowed."""

from __future__ import annotations

import re
import sys

import pytest
from annotated_types import Ge, Gt, Le, Lt

from modalift import cli, networks, schemes
from modalift.errors import ModaliftError
from modalift.recipe import load_recipe
from modalift.schemes import SCHEMES, check_settings
from modalift.schemes.crd import CRD
from modalift.schemes.mtcd import MTCD
from modalift.settings import bounds, choices
from modalift.signatures import parameters

MAPS = ("attention_transfer", "channel_correlation", "similarity_preserving", "correlation_congruence", "relational")


def net(view: str) -> networks.Recognizer:
    return networks.build("small", classes=4, view=view, frames=4, size=32, width=4, dropout=0.0)


def build(name: str, roles: str = "student teacher", **settings):
    return schemes.build(name, {role: net(f"view_{role}") for role in roles.split()}, settings)


@pytest.mark.parametrize(("name", "roles", "others", "dead"), [
    ("distill", "student teacher", {}, {"tckd_weight": 1.0}),
    ("distill", "student teacher", {}, {"nckd_weight": 8.0}),
    ("distill", "student teacher", {}, {"student_stages": ["layer3"]}),
    ("distill", "student teacher", {"loss": "decoupled"}, {"teacher_stages": ["nonsense"]}),
    *(("distill", "student teacher", {"loss": loss}, {"kd_temperature": 4.0}) for loss in MAPS),
    ("distill", "student teacher", {"loss": "relational"}, {"tckd_weight": 2.0}),
    *(("mtcd", "student teacher", {}, dead) for dead in ({"fusion_weight": 0.9}, {"assistant_weight": 1.0},
                                                         {"guide": "fusion"}, {"order": "together"})),
    ("mtcd", "student teacher assistant", {"order": "staged"}, {"assistant_weight": 1.0}),
    ("mtut", "one other", {"focal": False}, {"focal_beta": 3.0}),
    ("mtut", "one other", {"focal": False}, {"focal_limit": 3.0}),
    ("mtut", "one other", {"focal": False}, {"rho_grad": True}),
    ("mtut", "one other", {"reduction": "mean"}, {"reference": 10}),
    *(("fusion", "one other", {}, dead) for dead in ({"width": 64}, {"bins": 2}, {"dropout": 0.5})),
])
def test_a_setting_that_does_nothing_is_refused(name, roles, others, dead):
    (key,) = dead
    assert key in build(name, roles, **others).unused_settings
    with pytest.raises(ModaliftError, match=rf"scheme\.{key} does nothing with.* - remove it"):
        build(name, roles, **others, **dead)


@pytest.mark.parametrize(("name", "roles", "settings"), [
    ("distill", "student teacher", {"loss": "decoupled", "tckd_weight": 2.0, "nckd_weight": 1.0, "kd_temperature": 2.0}),
    ("distill", "student teacher", {"loss": "relational", "student_stages": ["layer1"], "teacher_stages": ["layer2"]}),
    ("mtcd", "student teacher assistant", {"fusion_weight": 0.1, "assistant_weight": 2.0, "guide": "sum", "order": "together"}),
    ("mtcd", "student teacher", {"teacher_weight": 0.1, "transform": "always"}),
    ("mtut", "one other", {"focal_beta": 1.0, "focal_limit": 3.0, "rho_grad": True, "reference": 10}),
    ("fusion", "one other", {"mode": "mid", "width": 64, "bins": 2, "dropout": 0.5}),
])
def test_one_that_does_something_is_not(name, roles, settings):
    assert not build(name, roles, **settings).unused_settings.keys() & settings.keys()


@pytest.mark.parametrize(("name", "roles", "settings", "told"), [
    ("mtut", "one other", {"stage": "layer9"}, r"scheme\.stage: the view_one network has no stage 'layer9'"),
    ("msd", "student", {"local_stage": "layer9"}, r"scheme\.local_stage: "),
    ("msd", "student", {"global_stage": "layer9"}, r"scheme\.global_stage: "),
    ("distill", "student teacher", {"loss": "relational", "student_stages": ["layer9"]}, r"scheme\.student_stages: "),
    ("mgcam_dkd", "student teacher", {"teacher_stages": ["layer9"]}, r"scheme\.teacher_stages: the view_teacher network"),
])
def test_a_stage_that_there_is_not_is_told_before_training(name, roles, settings, told):
    with pytest.raises(ModaliftError, match=rf"{told}.*did you mean 'layer\d'\?"):
        build(name, roles, **settings)


def test_two_stages_for_a_loss_of_one_are_told():
    with pytest.raises(ModaliftError, match="compares one map of each network, and 2 are named"):
        build("distill", loss="relational", student_stages=["layer1", "layer2"])


@pytest.mark.parametrize(("name", "key"), [("distill", "kd_weight"), ("distill", "tckd_weight"), ("mgcam_dkd", "kd_weight"),
                                           ("mtcd", "teacher_weight"), ("crd", "crd_weight"), ("route", "kd_weight"),
                                           ("prokt", "ce_weight")])
def test_a_weight_that_teaches_the_opposite_is_told(name, key):
    more = {"loss": "decoupled"} if key == "tckd_weight" else {}
    with pytest.raises(ModaliftError, match=rf"scheme\.{key} = -1\.0: must be 0 or more"):
        build(name, **more, **{key: -1.0})


def outside(hint) -> list[float]:
    """Numbers just outside the range of an annotation."""
    out = {Ge: lambda b: b.ge - 1, Gt: lambda b: b.gt, Le: lambda b: b.le + 1, Lt: lambda b: b.lt}
    return [out[type(bound)](bound) for bound in bounds(hint)]


@pytest.mark.parametrize("name", list(SCHEMES))
def test_a_number_outside_its_range_is_told_by_recipes_and_by_the_constructor(name):
    hints = {key: hint for key, (hint, _) in parameters(SCHEMES[name].__init__).items()}
    for key, hint in hints.items():
        for value in outside(hint):
            for refused in (lambda: check_settings(name, {key: value}), lambda: SCHEMES[name](**{key: value})):  # noqa: B023
                with pytest.raises(ModaliftError, match=rf"^scheme\.{key} = {value}: must (lie in|be) ") as told:
                    refused()
                assert "\n" not in str(told.value)


def test_a_scheme_that_is_made_in_python_checks_its_settings_too():
    with pytest.raises(ModaliftError, match=r"^scheme\.fusion_weight = -1: must be 0 or more$"):
        MTCD(net("rgb"), net("nir"), fusion_weight=-1)
    with pytest.raises(ModaliftError, match=r"^scheme\.guide = 'fusoin': .*did you mean 'fusion'\?$"):
        MTCD(net("rgb"), net("nir"), net("thermal"), guide="fusoin")
    with pytest.raises(ModaliftError, match=r"^scheme\.momentum = 1: must lie in \[0, 1\)$"):
        CRD(net("rgb"), net("nir"), momentum=1)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_words_that_there_are_not_are_answered_with_the_nearest(name):
    for key, (hint, _) in parameters(SCHEMES[name].__init__).items():
        for word in choices(hint):
            with pytest.raises(ModaliftError, match=rf"scheme\.{key} = '{word}x': .*did you mean '{word}'\?"):
                check_settings(name, {key: word + "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("name", "key"), [("distill", "kd_weight"), ("translator", "l1_weight"), ("mgcam_dkd", "sigma")])
def test_a_number_that_is_not_finite_is_told(name, key, value):
    with pytest.raises(ModaliftError, match=rf"^scheme\.{key} = {value}: must be a finite number"):
        check_settings(name, {key: value})


def test_neither_may_one_of_another_section_be(recipe_file):
    with pytest.raises(ModaliftError, match=r"optim\.lr = '\.inf': is not a finite number"):
        load_recipe(recipe_file("single"), ["optim.lr=.inf"])


def test_without_its_graph_mgcam_makes_no_projection_and_compares_no_clips():
    whole, alone = build("mgcam_dkd"), build("mgcam_dkd", graph_weight=0.0, sigma=0.3)
    assert whole.training_only_modules
    assert whole.relates_batch
    assert not alone.training_only_modules
    assert not alone.relates_batch
    with pytest.raises(ModaliftError, match=r"scheme\.student_stages: "):
        build("mgcam_dkd", graph_weight=0.0, student_stages=["layer9"])


def test_a_word_or_a_number():
    assert check_settings("mgcam_dkd", {"sigma": "median"}) == {"sigma": "median"}
    assert check_settings("mgcam_dkd", {"sigma": 3}) == {"sigma": 3.0}
    with pytest.raises(ModaliftError, match=r"valid number.* - did you mean 'median'\?"):
        check_settings("mgcam_dkd", {"sigma": "medain"})


@pytest.mark.parametrize(("change", "told"), [
    ("scheme.loss=attention", "scheme.loss = 'attention'.* - did you mean 'attention_transfer'"),
    ("scheme.tckd_weight=2", "scheme.tckd_weight does nothing with loss=soft_target")])
def test_the_command_line_says_so_in_one_line(change, told, recipe_file, monkeypatch, capsys, teacher):
    cast = {"student": {"name": "small", "view": "depth", "width": 4}, "teacher": {"init": str(teacher)}}
    recipe = recipe_file("distill", networks=cast)
    monkeypatch.setattr(sys, "argv", ["modalift", "train", str(recipe), change])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error ")
    assert len(said.splitlines()) == 1
    assert re.search(told, said)
