"""What every registered scheme promises."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from casting import (
    CASES,
    CLASSES,
    END,
    FRAMES,
    SIZE,
    VIEWS,
    batch,
    is_signal,
    moments,
    network,
    other_choices,
    scheme,
)

from modalift import datasets, networks, schemes
from modalift.darkroom import simulate
from modalift.engine.distributed import Ranks
from modalift.engine.precision import relative_step_time
from modalift.loading.clips import ClipSet
from modalift.loading.collation import loader
from modalift.loading.framing import Framing
from modalift.modalities import Batch
from modalift.models import load
from modalift.schemes import SCHEMES, Progress, Scheme, settings_of, total
from small_models import save_model


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: p.grad.clone() for k, p in module.named_parameters() if p.grad is not None}


every = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_every_scheme_is_tried_under_every_choice_of_its_settings(name):
    mine = [case for case in CASES if case.name == name]
    assert mine, f"{name} takes none of the casts"
    for key, word in other_choices(name):
        assert any(case.settings.get(key) == word for case in mine), f"no case has {key}={word}"


@every
def test_terms_are_finite_scalars_and_named_by_who_teaches_whom(case):
    made = scheme(case)
    terms = made(batch(), END)
    assert terms
    for key, (weight, raw) in terms.items():
        assert raw.shape == ()
        assert torch.isfinite(raw), key
        assert weight >= 0
        what, slash, roles = key.partition("/")
        assert what
        assert slash
        known = set(made.roles) | set(made.training_only_modules) | made.required_views()
        assert set(re.split("[>+]", roles)) <= known, f"{key}: roles are {list(made.roles)}"


@every
def test_only_the_learner_that_a_term_names_gets_its_gradient(case):
    made = scheme(case)
    for key in made(batch(), END):
        made.zero_grad(set_to_none=True)
        weight, raw = made(batch(), END)[key]
        if not raw.requires_grad:
            assert weight == 0, f"{key} has a weight but no gradient"
            continue
        raw.backward()
        learners = key.split("/")[1].split(">")[-1].split("+")
        for role, net in made.roles.items():
            moved = any(g.abs().max() > 0 for g in gradients(net).values())
            assert moved == (role in learners), f"{key} {'moves' if moved else 'does not move'} {role}"


@every
def test_every_learnable_parameter_gets_a_gradient_and_no_frozen_one_does(case):
    made = scheme(case)
    for moment in moments(made):
        total(made(batch(), moment)).backward()
    frozen = {id(p) for net in made.frozen() for p in net.parameters()}
    for key, p in made.named_parameters():
        if id(p) in frozen:
            assert not p.requires_grad
            assert p.grad is None
        else:
            assert p.grad is not None, key
            assert torch.isfinite(p.grad).all()


@every
def test_statistics_of_frozen_networks_do_not_drift(case):
    made = scheme(case)
    before = [copy.deepcopy(n.state_dict()) for n in made.frozen()]
    for _ in range(2):
        made.train()(batch(), END)
    for net, old in zip(made.frozen(), before, strict=True):
        assert not net.training
        for key, value in net.state_dict().items():
            assert torch.equal(value, old[key]), key


@every
def test_reads_only_the_views_that_it_names(case):
    made, given = scheme(case), batch()
    given.clips = {k: v for k, v in given.clips.items() if k in made.required_views()}
    made(given, END)


@every
def test_without_teaching_a_student_learns_as_single_does(case):
    made = scheme(case)
    if not made.trains_on_labels:
        pytest.skip(f"{case.name} does not teach its student by labels alone")
    shared = settings_of("single").keys() & settings_of(case.name).keys()  # label smoothing, where a scheme has it
    own = {key: case.settings.get(key, settings_of(case.name)[key]) for key in shared}
    terms = made(batch(), END)
    labels = {k: (w, r) for k, (w, r) in terms.items() if k.startswith("ce/")}
    total({k: (0.0 if k not in labels else w, r) for k, (w, r) in terms.items()}).backward()
    for role, student in made.students.items():
        alone = schemes.build("single", {"student": network(role, student.view)}, own).train()
        total(alone(batch(), END)).backward()
        mine, theirs = gradients(student), gradients(alone.roles["student"])
        assert mine.keys() == theirs.keys()
        for key in mine:
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("labeled", [True, False])
@every
def test_absent_sensors_equal_the_clips_that_are_there(case, labeled):
    """A clip that no sensor saw must not matter; neither must its label. One that cannot be read has neither."""
    whole, part = batch(8), batch(8)
    gone = torch.tensor([1, 5])
    for view in part.clips:
        part.clips[view][gone] = 0
        part.present[view][gone] = False
    if not labeled:
        part.labels[gone], part.labeled[gone] = -1, False
    kept = whole.take(torch.tensor([0, 2, 3, 4, 6, 7]))
    a, b = scheme(case), scheme(case)
    first, second = a(part, END), b(kept, END)
    for key in first:
        torch.testing.assert_close(first[key][1], second[key][1])
    total(first).backward()
    total(second).backward()
    for key, grad in gradients(a).items():
        torch.testing.assert_close(grad, gradients(b)[key], rtol=1e-4, atol=1e-6)


def shown_in(key: str, made: Scheme) -> set[str]:
    """The views that a term compares: those of the networks that it names (a translator has two), or that it names itself."""
    named = re.split("[>+]", key.split("/")[1])
    images = {made.target_view for n in named if isinstance(made.roles.get(n), networks.Translator)}
    known = made.roles.keys() | made.required_views()
    return images | {made.roles[n].view if n in made.roles else n for n in named if n in known}


@every
def test_a_sensor_that_some_clips_lack_still_teaches_the_others(case):
    """What sensors teach each other on a batch is what they teach on its clips that have them."""
    made, given = scheme(case), batch(8)
    for view in made.required_views():  # as many of either, but not the same ones
        lacking = torch.tensor([1, 5] if view == min(made.required_views()) else [0, 4])
        given.present[view][lacking], given.clips[view][lacking] = False, float("nan")
    taught = 0
    for moment in moments(made):
        terms = made(given, moment)
        for key, (weight, raw) in terms.items():
            if ">" not in key or weight == 0 or raw == 0:
                continue
            made.zero_grad(set_to_none=True)
            raw.backward(retain_graph=True)
            names = {**made.roles, **made.training_only_modules}
            for learner in key.split(">")[1].split("+"):
                assert any(g.any() for g in gradients(names[learner]).values()), f"{key} teaches {learner} nothing"
            taught += 1
    assert taught or not any(">" in key for key in terms), "nothing is taught"
    if not getattr(made, "paired", True):
        return  # each sensor's images count whether or not the other was there
    made.eval()  # otherwise statistics of the batch differ as clips do
    for moment in moments(made):
        for key, (_, raw) in made(given, moment).items():
            if key.startswith(("joint_ce/", "win_rate/")):
                continue  # a joint answer is that of the sensors there are, and against nobody a network wins
            there = torch.stack([given.present[v] for v in shown_in(key, made)]).all(0)
            alone = made(given.take(there), moment)[key][1]
            torch.testing.assert_close(raw, alone, msg=lambda m, key=key: f"{key}: {m}")


@every
def test_no_clip_with_a_sensor_leaves_zero_gradients(case):
    made, given = scheme(case), batch()
    for view in given.present:
        given.present[view][:] = False
    for moment in moments(made):
        total(made(given, moment)).backward()
    for key, p in made.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, key
            assert p.grad.abs().max() == 0, key


@every
def test_clips_without_labels_have_no_term_of_labels(case):
    made, given = scheme(case), batch()
    given.labels[:] = -1
    given.labeled[:] = False
    for key, (_, raw) in made(given, END).items():
        assert torch.isfinite(raw), key
        if key.startswith("ce/"):
            assert raw.item() == 0


@every
def test_saved_and_loaded_it_has_the_same_loss(case, tmp_path):
    made = scheme(case).eval()
    torch.save(made.state_dict(), tmp_path / "s.pt")
    other = scheme(case, seed=5).eval()
    other.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True))
    for key, (_, raw) in made(batch(), END).items():
        torch.testing.assert_close(other(batch(), END)[key][1], raw)


@every
def test_what_ships_has_the_same_weights_and_cost_under_every_scheme(case):
    for role, student in scheme(case).students.items():
        alone, size = network(role, *case.cast[role]), 1 if is_signal(student.view) else SIZE
        assert student.state_dict().keys() == alone.state_dict().keys(), role
        assert networks.cost(student, FRAMES, size) == networks.cost(alone, FRAMES, size)


@every
def test_what_ships_reads_one_sensor_and_answers_the_same_after_shipping(case, tmp_path):
    given = batch(2)
    for role, student in scheme(case).students.items():
        framing = Framing(frames=FRAMES, size=1 if is_signal(student.view) else SIZE)
        path = save_model(tmp_path / f"{role}.modalift", student.eval(), framing=framing,
                           classes=list("abcd")[: student.classes])
        home = load(path).network
        with torch.no_grad():
            assert torch.equal(home(given.clips[student.view]), student(given.clips[student.view]))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> list[Batch]:
    """Simulated people who make one of four gestures: two batches of eight clips, with three of each person's joints."""
    folder = simulate(tmp_path_factory.mktemp("dark") / "clips", clips=40, size=SIZE, frames=FRAMES, train_subjects=4,
                      test_share=0.0, modalities=("rgb", "depth", "thermal", "nir", "pose"))
    table = datasets.open("darkroom", folder).where(lambda r: r.label < CLASSES)
    framings = {view: Framing(frames=FRAMES, size=1 if view == "pose" else SIZE)
                for view in ("depth", "thermal", "nir", "pose")}
    clips = ClipSet(table, framings, augment=None, seed=0)
    found = list(loader(clips, batch=8, shuffle=True, seed=0, epoch=0))
    for given in found:
        for view in ("pose", "imu"):
            given.clips[view] = given.clips["pose"][:, : VIEWS[view]]
            given.present[view] = given.present["pose"]
    return found


@every
def test_twenty_steps_lower_the_loss(case, simulated):
    made = scheme(case)
    few = torch.arange(3 if any(gives for _, gives in case.cast.values()) else 8)  # to a translator every frame is an image
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for step in range(20):
        loss = total(made(simulated[step % 2].take(few), END))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < sum(losses[:4])


@every
def test_in_half_precision_it_teaches_nearly_the_same(case):
    plain, half = scheme(case), scheme(case)
    for moment in moments(plain):
        wanted = plain(batch(), moment)
        with torch.autocast("cpu", torch.bfloat16):
            terms = half(batch(), moment)
        for key, (_, raw) in terms.items():
            assert torch.isfinite(raw), key
        loss = total(terms)
        assert abs(loss - total(wanted)) < 0.03 * abs(total(wanted)), "eight bits of mantissa and ten layers"
        loss.backward()
        total(wanted).backward()
    theirs = gradients(plain)
    for key, grad in gradients(half).items():
        assert torch.isfinite(grad).all(), key
    near = torch.cat([g.flatten() for g in gradients(half).values()])
    far = torch.cat([theirs[k].flatten() for k in gradients(half)])
    assert torch.cosine_similarity(near, far, 0) > 0.93


@every
def test_measuring_a_step_leaves_no_trace(case):
    """Weights, statistics, banks, pools and random state are as they were: the next step is that of a scheme not measured."""
    measured, twin = scheme(case), scheme(case)
    random = torch.get_rng_state()
    assert 0 < relative_step_time("bf16", measured, batch(), Ranks(0, 1, torch.device("cpu"))) < 1000
    assert torch.equal(torch.get_rng_state(), random)
    assert not gradients(measured)
    assert [p.requires_grad for p in measured.parameters()] == [p.requires_grad for p in twin.parameters()]
    for step in range(2):  # what a scheme remembers of one step shows in the next
        for update in twin.updates():
            terms, wanted = {}, {}
            for made, found in ((measured, terms), (twin, wanted)):
                torch.manual_seed(step)
                found |= made(batch(seed=step), Progress(step=step, update=update.name))
                total(found).backward()
            assert {k: r.item() for k, (_, r) in terms.items()} == {k: r.item() for k, (_, r) in wanted.items()}
    own = twin.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in measured.state_dict().items())


@every
def test_clips_in_half_precision_are_clips(case):
    """A cache may hand over float16; what a network makes of it is what it makes of the same numbers in float32."""
    a, b, given = scheme(case), scheme(case), batch()
    rounded = batch()
    for view in given.clips:
        given.clips[view] = given.clips[view].half()
        rounded.clips[view] = given.clips[view].float()
    for key, (_, raw) in a(given, END).items():
        torch.testing.assert_close(raw, b(rounded, END)[key][1], rtol=1e-3, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")
