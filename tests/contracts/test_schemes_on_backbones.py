"""Every scheme with every family of recognizers: as student, and as teacher of another sensor's network."""

from __future__ import annotations

import copy
import functools
import math
import sys
from pathlib import Path

import pytest
import torch

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.networks import CARDS, Recognizer, has_classes
from modalift.schemes import Scheme, optional_roles_of, roles_of, total

sys.path.insert(0, str(Path(__file__).parent))
from test_networks import SIGNALS, VARIANTS
from test_schemes import CASES, END, moments

CLASSES, CLIPS, FRAMES, SIZE = 4, 6, 4, 32
FAMILIES = [name for name in CARDS if has_classes(name)]
#: What stands at each side: view of a picture, view of a signal (with its channels).
STUDENT, TEACHER, ASSISTANT = ("depth", "pose"), ("thermal", "pose"), ("nir", "imu")
CHANNELS = {"pose": 9, "imu": 6}
#: (scheme, who, family): what its error says.
UNDEFINED = {
    # The translator's encoders read the pictures that it makes, and joints are none.
    ("translator", "student", "signal"): "networks.source_encoder reads 'pose'",
    ("translator", "teacher", "signal"): "networks.target_encoder reads 'pose'",
}


#: Narrower than what is looked at alone: every scheme runs on it.
NARROW = {"tea": {"width": 0.25}, "action_net": {"width": 0.25}}


@functools.cache
def built(family: str, view: str, frames: int, size: int) -> tuple[Recognizer, dict[str, torch.Tensor]]:
    """The family's smallest variant, dropout off, and what it began with; built once."""
    options = {"frames": frames, "size": size, **VARIANTS.get(family, [{}])[0], **NARROW.get(family, {})}
    with torch.random.fork_rng():
        torch.manual_seed(len(family) + len(view))
        net = networks.build(family, classes=CLASSES, view=view, channels=CHANNELS.get(view), **options)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return net, copy.deepcopy(net.state_dict())


def recognizer(family: str, side: tuple[str, str], smallest: bool) -> Recognizer:
    """A network as it was built: putting its weights back takes a tenth of the time of a copy."""
    view = side[family in SIGNALS]
    frames, size = built(family, view, FRAMES, SIZE)[0].backbone.smallest if smallest else (FRAMES, SIZE)
    net, begun = built(family, view, frames, size)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            value.copy_(begun[key])
    net.zero_grad(set_to_none=True)
    return net.requires_grad_(True)


def translator(view: str, target: str, size: int) -> networks.Network:
    return networks.build("translator", view=view, target=target, frames=FRAMES, size=size, backbone="resnet_4", ngf=4)


def teacher_of(case: int, family: str) -> str:
    """Another family: over the cases every pair comes up, and within a case every family teaches once."""
    return FAMILIES[(FAMILIES.index(family) + 1 + case % (len(FAMILIES) - 1)) % len(FAMILIES)]


def assembled(number: int, family: str, smallest: bool = False) -> Scheme:
    """The case over a student of this family, a teacher of another one and another sensor, an assistant of the student's."""
    name, settings = CASES[number]
    other = teacher_of(number, family)
    named, more = roles_of(name)
    cast = {}
    for role in (*named, *optional_roles_of(name), *(("one", "other") if more else ())):
        if role == "generator":
            cast[role] = translator("depth", "thermal", SIZE)
        elif role == "back":
            cast[role] = translator("thermal", "depth", SIZE)
        elif role == "assistant":
            cast[role] = recognizer(family, ASSISTANT, smallest)
        elif name == "translator":  # its judges set how small a picture may be
            cast[role] = recognizer(*((family, STUDENT) if role == "source_encoder" else (other, TEACHER)), smallest=False)
        else:
            learns = role in ("student", "one")
            cast[role] = recognizer(family if learns else other, STUDENT if learns else TEACHER, smallest)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return schemes.build(name, cast, settings).train()


#: Cases in which a recognizer takes part: all but the paired translator, whose networks are of another kind.
TAUGHT = [i for i, (name, settings) in enumerate(CASES) if name != "translator" or settings.get("mode") == "unpaired"]


def clips(made: Scheme) -> Batch:
    """Clips of every view that the scheme reads, each with the extents of the network that reads it; a picture to draw, which
    no network reads, with the frames of the student's."""
    g = torch.Generator().manual_seed(3)
    ranges = {"depth": (2000, 500), "thermal": (20, 10), "nir": (40, 80), "pose": (0, 1), "imu": (-1, 2)}
    found, yes = {}, torch.ones(CLIPS, dtype=torch.bool)
    readers = {n.view: n for n in made.roles.values()}
    for view in sorted(made.needs()):
        net, (low, span) = readers.get(view), ranges[view]
        shape = (net.channels, net.frames, net.size, net.size) if net else (1, made.roles["student"].frames, SIZE, SIZE)
        found[view] = low + span * torch.rand(CLIPS, *shape, generator=g)
    valid = {"depth": found["depth"] > 0} if "depth" in found else {}
    return Batch(found, valid, {v: yes.clone() for v in found}, torch.arange(CLIPS) % CLASSES, yes.clone(), torch.arange(CLIPS))


def without(given: Batch, row: int, *views: str) -> None:
    """These sensors miss the clip; what stands there instead must never be read."""
    for view in views:
        given.present[view][row] = False
        given.clips[view][row] = float("nan")


def unlabeled(given: Batch, *rows: int) -> None:
    for row in rows:
        given.labels[row], given.labeled[row] = -1, False


def learnable(made: Scheme) -> dict[str, torch.nn.Parameter]:
    return {k: p for k, p in made.named_parameters() if p.requires_grad}


def check(made: Scheme, terms: schemes.Terms) -> set[str]:
    """What must hold of any batch's terms, unweighted; the names of the parameters that they teach."""
    names, moves = zip(*learnable(made).items(), strict=True)
    whose = {role: {id(p) for p in net.parameters()} for role, net in made.roles.items()}
    taught: set[str] = set()
    for key, (weight, raw) in terms.items():
        assert raw.shape == ()
        assert torch.isfinite(raw), key
        if not raw.requires_grad:
            assert weight == 0, f"{key} has a weight but no gradient"
            continue
        grads = torch.autograd.grad(raw, moves, retain_graph=True, allow_unused=True)
        found = [(name, p, g) for name, p, g in zip(names, moves, grads, strict=True) if g is not None]
        largest = torch.stack([g.abs().amax() for _, _, g in found]).tolist()
        assert all(map(math.isfinite, largest)), key
        moved = {id(p) for (_, p, _), size in zip(found, largest, strict=True) if size > 0}
        learners = key.split("/")[1].split(">")[-1].split("+")
        for role, own in whose.items():
            if role not in learners:
                assert not moved & own, f"{key} moves {role}"
            elif raw > 0:
                assert moved & own, f"{key} is {raw:.3g} and does not move {role}"
        taught |= {name for name, _, _ in found}
    return taught


every = pytest.mark.parametrize("family", FAMILIES)
cases = pytest.mark.parametrize("number", TAUGHT, ids=[f"{n}-{'-'.join(map(str, s.values())) or 'plain'}"
                                                       for n, s in map(CASES.__getitem__, TAUGHT)])


def refused(number: int, family: str) -> str:
    """Why this case is not defined with this student, as its error says; empty where it is."""
    name = CASES[number][0]
    found = UNDEFINED.get((name, "student", family)), UNDEFINED.get((name, "teacher", teacher_of(number, family)))
    return found[0] or found[1] or ""


@cases
@every
def test_contracts_hold(number, family):
    """On clips of which some lack a sensor, one lacks all and some have no label; then on none at all."""
    if why := refused(number, family):
        with pytest.raises(ModaliftError, match=why) as told:
            assembled(number, family)
        assert "\n" not in str(told.value)
        return
    made = assembled(number, family)
    assert not any(p.requires_grad for net in made.frozen() for p in net.parameters())
    before = [{k: b.clone() for k, b in net.named_buffers()} for net in made.frozen()]
    given, views = clips(made), [n.view for n in made.roles.values()]
    without(given, 1, views[0])
    without(given, 2, views[-1])
    without(given, 3, *given.clips)
    unlabeled(given, 0, 4)
    taught: set[str] = set()
    for moment in moments(made):
        terms = made(given, moment)
        taught |= check(made, terms)
    assert not learnable(made).keys() - taught, "parameters without a gradient"
    with torch.no_grad():  # the clip that no sensor saw might as well not be there
        part = made(given.take(torch.tensor([0, 1, 2, 4, 5])), moment)
    for key, (_, raw) in terms.items():
        torch.testing.assert_close(part[key][1], raw.detach(), rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
    for net, old in zip(made.frozen(), before, strict=True):
        for key, buffer in net.named_buffers():
            assert torch.equal(buffer, old[key]), f"{key} drifts"
    for row in range(CLIPS):
        without(given, row, *given.clips)
        unlabeled(given, row)
    total(made(given, moment)).backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in learnable(made).values() if p.grad is not None)
    assert made.rests or all(p.grad is not None for p in learnable(made).values())


@pytest.mark.slow
@cases
@every
def test_the_smallest_clips_teach_finitely(number, family):
    if refused(number, family):
        pytest.skip("not defined: " + refused(number, family))
    made = assembled(number, family, smallest=True)
    terms = made(clips(made), END)
    assert all(torch.isfinite(raw) for _, raw in terms.values())
    total(terms).backward()
    for key, p in learnable(made).items():
        assert made.rests or p.grad is not None, key
        assert p.grad is None or torch.isfinite(p.grad).all(), key
