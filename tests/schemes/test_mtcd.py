"""MTCD beyond what every scheme promises: its equations by hand, its rows of Table 4, its converter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.schemes import Progress, total

END = Progress(epoch=9, epochs=10)


def net(view: str, **options) -> networks.Recognizer:
    torch.manual_seed(len(view))
    return networks.build("small", classes=4, view=view, frames=4, size=32, width=8, dropout=0.0, **options)


def batch(n: int = 5) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    clips = {v: 20 + 10 * torch.rand(n, c, 4, 32, 32, generator=g) for v, c in (("rgb", 3), ("thermal", 1), ("nir", 1))}
    return Batch(clips, {}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes, torch.arange(n))


def cast(neck: str = "none", **settings):
    roles = {"student": net("rgb", neck=neck), "teacher": net("thermal", neck=neck), "assistant": net("nir", neck=neck)}
    return schemes.build("mtcd", roles, settings).train()


@pytest.mark.parametrize("neck", ["none", "converter"])
def test_the_terms_are_equations_5_to_10(neck):
    made, given = cast(neck), batch()
    terms = made(given, END)
    made.eval()  # statistics of the batch in training: compare by hand in training mode for the learners
    stage = "neck" if neck == "converter" else "layer3"
    assert made.student.last_stage == stage
    made.train()
    seen = {k: made.roles[k].observe(given.clips[made.roles[k].view], [stage]) for k in ("student", "assistant")}
    with torch.no_grad():
        shown = made.teacher.observe(given.clips["thermal"], [stage])
    s, a, t = (o.maps[stage] for o in (seen["student"], seen["assistant"], shown))

    def half(x, y):
        return 0.5 * (x - y).square().mean()

    expected = {"ce/student": (1.0, F.cross_entropy(seen["student"].logits, given.labels)),
                "ce/assistant": (1.0, F.cross_entropy(seen["assistant"].logits, given.labels)),
                "feature/teacher>student": (0.3, half(s, t)), "feature/teacher>assistant": (1.0, half(a, t)),
                "feature/teacher+assistant>student": (0.9, half(s, (t + a) / 2))}
    assert terms.keys() == expected.keys()
    for key, (weight, raw) in expected.items():
        assert terms[key][0] == weight
        torch.testing.assert_close(terms[key][1], raw, rtol=1e-4, atol=1e-6)


def test_rows_two_and_three_of_the_ablation():
    alone = schemes.build("mtcd", {"student": net("rgb"), "teacher": net("thermal")}).train()
    assert set(alone(batch(), END)) == {"ce/student", "feature/teacher>student"}
    assert "feature/assistant>student" in cast(guide="assistant")(batch(), END)


def test_the_sum_of_both_maps_is_an_option():
    mean, both = cast(), cast(guide="sum")
    given = batch()
    s, a, t = (mean.roles[k].observe(given.clips[mean.roles[k].view], ["layer3"]).maps["layer3"]
               for k in ("student", "assistant", "teacher"))
    found = both(given, END)["feature/teacher+assistant>student"]
    assert found[0] == 0.9
    torch.testing.assert_close(found[1], 0.5 * (s - t - a).square().mean(), rtol=1e-4, atol=1e-6)


def test_transforms_may_stand_where_channels_agree_and_never_on_a_targets_side():
    assert not cast().training_only_modules["project_student"].state_dict()
    made = cast(transform="always")
    modules = made.training_only_modules
    assert {k: len(list(m.parameters())) for k, m in modules.items()} == {"project_student": 3, "project_assistant": 3}
    total(made(batch(), END)).backward()
    assert all(p.grad.abs().max() > 0 for m in modules.values() for p in m.parameters())
    staged = cast(transform="always", order="staged")
    modules = staged.training_only_modules
    assert {k: len(list(m.parameters())) for k, m in modules.items()} == {"project_student": 3, "project_assistant": 0}


def test_a_staged_assistant_is_frozen_like_the_teacher():
    made = cast(order="staged")
    assert {k for k, n in made.roles.items() if any(p.requires_grad for p in n.parameters())} == {"student"}
    terms = made(batch(), END)
    assert "feature/teacher+assistant>student" in terms
    assert not any(key.endswith("assistant") for key in terms)
    with pytest.raises(ModaliftError, match="staged needs an assistant"):
        schemes.build("mtcd", {"student": net("rgb"), "teacher": net("thermal")}, {"order": "staged"})


def test_what_ships_keeps_its_converter_and_single_with_that_neck_costs_the_same():
    made = cast("converter")
    assert list(made.students) == ["student"]
    control = schemes.build("single", {"student": net("rgb", neck="converter")})
    assert networks.cost(made.student, 4, 32) == networks.cost(control.roles["student"], 4, 32)
    assert networks.cost(made.student, 4, 32).macs > networks.cost(net("rgb"), 4, 32).macs


def test_wrong_necks_are_told():
    with pytest.raises(ModaliftError, match=r"network\.neck = 'converterr'|neck"):
        net("rgb", neck="converterr")
    with pytest.raises(ModaliftError, match="neck_reduction = 99"):
        net("rgb", neck="converter", neck_reduction=99)
