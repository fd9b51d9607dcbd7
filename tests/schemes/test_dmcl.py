"""DMCL beyond what every scheme promises: who wins a clip, and what losers learn, by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.schemes import Progress

END = Progress(epoch=9, epochs=10)
VIEWS = {"rgb": 3, "thermal": 1, "nir": 1}


def net(view: str) -> networks.Recognizer:
    torch.manual_seed(len(view))
    return networks.build("small", classes=4, view=view, frames=4, size=32, width=8, dropout=0.0)


def batch(n: int = 8) -> Batch:
    g = torch.Generator().manual_seed(0)
    yes = torch.ones(n, dtype=torch.bool)
    clips = {v: 20 + 10 * torch.rand(n, c, 4, 32, 32, generator=g) for v, c in VIEWS.items()}
    return Batch(clips, {}, {v: yes.clone() for v in clips}, torch.arange(n) % 4, yes.clone(), torch.arange(n))


def cast(views=tuple(VIEWS), **settings):
    # Statistics of the running kind: a network's answer about a clip does not depend on the others.
    return schemes.build("dmcl", {v: net(v) for v in views}, settings).eval()


def by_hand(made, given: Batch, T: float, losers: float):
    """A literal transcription: clip by clip, network by network."""
    names = list(made.roles)
    logits = {k: made.roles[k](given.clips[k]) for k in names}
    recognize, answers = dict.fromkeys(names, 0.0), {f"kd/{n}>{m}": 0.0 for m in names for n in names if n != m}
    for b in range(len(given)):
        there = [k for k in names if given.present[k][b]]
        loss = {k: F.cross_entropy(logits[k][b], given.labels[b]) for k in there}
        winner = min(there, key=lambda k: loss[k].item())
        for m in there:
            seen = given.present[m].sum()
            recognize[m] += (1.0 if m == winner else losers) * loss[m] / seen
            if m != winner:
                p = F.softmax(logits[winner][b].detach() / T, 0)
                q = F.log_softmax(logits[m][b] / T, 0)
                both = (given.present[m] & given.present[winner]).sum()
                answers[f"kd/{winner}>{m}"] += T * T * (p * (p.log() - q)).sum() / both
    return recognize, answers


@pytest.mark.parametrize("absent", [False, True])
def test_the_terms_are_the_equations_clip_by_clip(absent):
    made, given = cast(loser_ce_weight=0.25, kd_temperature=3.0), batch()
    if absent:
        given.present["rgb"][[0, 1]] = False
        given.present["nir"][[1, 5, 6]] = False
    terms = made(given, END)
    recognize, answers = by_hand(made, given, 3.0, 0.25)
    for m, value in recognize.items():
        torch.testing.assert_close(terms[f"ce/{m}"][1], torch.as_tensor(value), rtol=1e-4, atol=1e-6)
    for key, value in answers.items():
        torch.testing.assert_close(terms[key][1], torch.as_tensor(value), rtol=1e-4, atol=1e-6)
    wins = sum(terms[f"win_rate/{m}"][1] * given.present[m].sum() for m in VIEWS)
    assert wins.round().item() == 8, "each clip has one winner"


def test_a_clip_that_one_sensor_saw_teaches_nobody():
    made, given = cast(("rgb", "nir")), batch()
    given.present["rgb"][:] = False
    terms = made(given, END)
    assert terms["kd/nir>rgb"][1].item() == terms["kd/rgb>nir"][1].item() == 0
    assert terms["win_rate/nir"][1].item() == 1


def test_without_a_label_the_better_network_of_the_batch_teaches():
    made, given = cast(("rgb", "nir")), batch()
    given.labeled[4:], given.labels[4:] = False, -1
    terms = made(given, END)
    mean = {k: F.cross_entropy(made.roles[k](given.clips[k])[:4], given.labels[:4]).item() for k in ("rgb", "nir")}
    better, worse = sorted(mean, key=mean.get)
    whole = terms[f"kd/{better}>{worse}"][1]
    p, q = (made.roles[k](given.clips[k]) for k in (better, worse))
    each = schemes.dmcl.soft_target(q, p, 2.0, per_sample=True)
    assert whole.item() >= each[4:].sum().item() / 8 - 1e-6
    given.labeled[:], given.labels[:] = False, -1
    assert not any(raw.item() for key, (_, raw) in made(given, END).items() if key.startswith("kd/")), "nobody knows who"


@pytest.mark.parametrize(("change", "told"), [
    ({"kd_temperature": 0.0}, "kd_temperature = 0.0"), ({"loser_ce_weight": -1.0}, "loser_ce_weight = -1")])
def test_settings_that_make_no_sense_are_told(change, told):
    with pytest.raises(ModaliftError, match=told):
        cast(**change)


def test_one_network_has_nobody_to_choose():
    with pytest.raises(ModaliftError, match="there is 1"):
        cast(("rgb",))
