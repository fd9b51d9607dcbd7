"""Every scheme with every family of recognizers: as student, and as teacher of another sensor's network."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from casting import CASES, END, Case, declared, moments, named_views
from test_networks import SIGNALS, VARIANTS

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch
from modalift.networks import FAMILIES as KNOWN
from modalift.networks import Recognizer, has_classes
from modalift.schemes import Scheme, total

CLASSES, CLIPS, FRAMES, SIZE = 4, 6, 4, 32
FAMILIES = [name for name in KNOWN if has_classes(name)]
#: What the first, second and third network read: a camera, or a signal (with its channels) where the family reads signals.
CAMERAS, SIGNAL_VIEWS = ("depth", "thermal", "nir"), ("pose", "pose", "imu")
CHANNELS = {"pose": 9, "imu": 6}


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


def recognizer(family: str, camera: str, signal: str, smallest: bool) -> Recognizer:
    """A network as it was built: putting its weights back takes a tenth of the time of a copy."""
    view = signal if family in SIGNALS else camera
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
    """The case over a network of this family (its student), a teacher of another one and another sensor, and a third network
    of the first one's. Beside translators the first reads what is translated, the second what comes out."""
    case, other, cast = SHOWN[number], teacher_of(number, family), {}
    cameras = [view for view in CAMERAS if view not in named_views(case.name, case.settings, CAMERAS)]
    recognizers = [role for role, (_, gives) in case.cast.items() if not gives]
    for role, (reads, gives) in case.cast.items():
        if gives:
            cast[role] = translator(reads, gives, SIZE)
            continue
        place = recognizers.index(role)
        camera = reads if has_translator(case) else cameras[place % len(cameras)]
        cast[role] = recognizer(other if place % 2 else family, camera, SIGNAL_VIEWS[place % 3],
                                smallest and not has_translator(case))  # discriminators have a smallest size too
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return schemes.build(case.name, cast, case.settings).train()


def has_translator(case: Case) -> bool:
    return any(gives for _, gives in case.cast.values())


#: Cases that a scheme declares, and in which a recognizer takes part.
SHOWN = [case for case in CASES
         if case.settings in declared(case.name) and not all(gives for _, gives in case.cast.values())]


def clips(made: Scheme) -> Batch:
    """Clips of every view that the scheme reads, each with the extents of the network that reads it; an image to draw, which
    no network reads, with the frames of the student's."""
    g = torch.Generator().manual_seed(3)
    ranges = {"depth": (2000, 500), "thermal": (20, 10), "nir": (40, 80), "pose": (0, 1), "imu": (-1, 2)}
    found, yes = {}, torch.ones(CLIPS, dtype=torch.bool)
    readers = {n.view: n for n in made.roles.values()}
    for view in sorted(made.required_views()):
        net, (low, span), student = readers.get(view), ranges[view], next(iter(made.roles.values()))
        shape = (net.channels, net.frames, net.size, net.size) if net else (1, student.frames, SIZE, SIZE)
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
cases = pytest.mark.parametrize("number", range(len(SHOWN)), ids=map(str, SHOWN))


def refused(number: int, family: str) -> str:
    """What the error says where a case is not defined with this family: joints are no image that a translator makes."""
    if not has_translator(SHOWN[number]):
        return ""
    roles = [role for role, (_, gives) in SHOWN[number].cast.items() if not gives]
    sides = zip(roles, (family, teacher_of(number, family)), strict=False)
    return next((f"networks.{role} reads 'pose'" for role, member in sides if member in SIGNALS), "")


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
        # Float32 gives an alignment of deep maps to 2e-3: training and inference take other operations, and processors other
        # sums. One clip of eight counts far more.
        torch.testing.assert_close(part[key][1], raw.detach(), rtol=5e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
    for net, old in zip(made.frozen(), before, strict=True):
        for key, buffer in net.named_buffers():
            assert torch.equal(buffer, old[key]), f"{key} drifts"
    for row in range(CLIPS):
        without(given, row, *given.clips)
        unlabeled(given, row)
    total(made(given, moment)).backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in learnable(made).values() if p.grad is not None)
    assert made.has_phases or all(p.grad is not None for p in learnable(made).values())


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
        assert made.has_phases or p.grad is not None, key
        assert p.grad is None or torch.isfinite(p.grad).all(), key
