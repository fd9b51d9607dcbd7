"""Every registered scheme over small networks, read off its constructor's signature: settings, roles, and who reads what."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from modalift import networks, schemes
from modalift.errors import ModaliftError
from modalift.modalities import Batch, modality
from modalift.networks import Translator
from modalift.schemes import SCHEMES, Progress, Scheme, kind_of, optional_roles_of, roles_of, settings_of
from modalift.settings import choices
from modalift.signatures import parameters

CLASSES, FRAMES, SIZE = 4, 8, 32
END = Progress(epoch=9, epochs=10)
#: Views of the clips that schemes are tried on, with their channels, in the order in which networks are given them.
VIEWS = {"depth": 1, "pose": 9, "thermal": 1, "imu": 6, "nir": 1}


class Case(NamedTuple):
    """A scheme, its settings, and its networks: role -> the view that it reads, and the one that it gives or nothing."""

    name: str
    settings: Mapping[str, Any]
    cast: Mapping[str, tuple[str, str]]

    def __str__(self) -> str:
        fewer = "" if set(self.cast) >= {*optional_roles_of(self.name)} else "-fewer"
        return f"{self.name}-{'-'.join(f'{k}={v}' for k, v in self.settings.items()) or 'plain'}{fewer}"


def is_signal(view: str) -> bool:
    return modality(view).kind == "signal"


def named_views(name: str, settings: Mapping[str, Any], views: typing.Iterable[str] = VIEWS) -> set[str]:
    """The views that a scheme reads itself, because a setting names them: no network reads those."""
    values = {v for v in (settings_of(name) | dict(settings)).values() if isinstance(v, str)}
    return {view for view in views if view in values}


def declared(name: str) -> list[Mapping[str, Any]]:
    """The settings that a scheme gives as examples, or its defaults and each other choice of a ``Literal``."""
    return list(SCHEMES[name].examples) or [{}, *({key: word} for key, word in other_choices(name))]


def other_choices(name: str) -> Iterator[tuple[str, str]]:
    """Settings of a ``Literal`` and their words, but for the defaults."""
    defaults = settings_of(name)
    for key, (hint, _) in parameters(SCHEMES[name].__init__).items():
        if key in defaults:
            yield from ((key, word) for word in choices(hint) if word != defaults[key])


def tried(name: str) -> list[Mapping[str, Any]]:
    """All settings that a scheme is tried under: what is declared, and choices that none of these makes."""
    shown = declared(name)
    return shown + [{key: word} for key, word in other_choices(name) if not any(s.get(key) == word for s in shown)]


def cast_of(name: str, settings: Mapping[str, Any], optional: bool, third: str) -> dict[str, tuple[str, str]]:
    """Who plays the roles: the first reads a camera, the second a signal, the third a camera again.

    A translator gives images of one camera as another would see it, a second one the way back; beside translators,
    recognizers read the one and the other.
    """
    named, more = roles_of(name)
    roles = (*named, *(optional_roles_of(name) if optional else ()), *(("first", "second") if more else ()))
    gives = [role for role in roles if kind_of(name, role) is Translator]
    if gives:
        pairs = [("depth", "thermal"), ("thermal", "depth")]
        rest = [role for role in roles if role not in gives]
        return {r: pairs[i % 2] for i, r in enumerate(gives)} | {r: (pairs[i % 2][0], "") for i, r in enumerate(rest)}
    taken = named_views(name, settings)
    free = [("imu" if is_signal(view) else "nir") if view in taken else view for view in ("depth", "pose", third)]
    return {role: (free[i % len(free)], "") for i, role in enumerate(roles)}


def network(role: str, reads: str, gives: str = "", seed: int = 0) -> networks.Network:
    """A small network, dropout off, so that equal weights answer alike."""
    with torch.random.fork_rng():
        torch.manual_seed(seed + len(role))
        if gives:
            return networks.build("translator", view=reads, target=gives, frames=FRAMES, size=SIZE, backbone="resnet_4", ngf=4)
        if is_signal(reads):
            return networks.build("tcn", classes=CLASSES, view=reads, channels=VIEWS[reads], frames=FRAMES, dropout=0.0)
        return networks.build("small", classes=CLASSES, view=reads, frames=FRAMES, size=SIZE, width=8, dropout=0.0)


def scheme(case: Case, seed: int = 0) -> Scheme:
    """The case's scheme over its networks, ready to train."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cast = {role: network(role, reads, gives, seed) for role, (reads, gives) in case.cast.items()}
        return schemes.build(case.name, cast, case.settings).train()


def cases_of(name: str, settings: Mapping[str, Any]) -> list[Case]:
    """The cases of a scheme under some settings: with all optional roles and with none, where it takes them so.

    A third network that must be like the second reads a signal, as the second does.
    """
    found: list[Case] = []
    for optional in (True, False) if optional_roles_of(name) else (True,):
        for third in ("thermal", "imu"):
            case = Case(name, settings, cast_of(name, settings, optional, third))
            try:
                scheme(case)
            except ModaliftError:
                continue
            found.append(case)
            break
    return found


CASES = [case for name in SCHEMES for settings in tried(name) for case in cases_of(name, settings)]


def batch(n: int = 6, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    depth = 2000 + 500 * torch.rand(n, 1, FRAMES, SIZE, SIZE, generator=g)
    pose = torch.rand(n, VIEWS["pose"], FRAMES, 1, 1, generator=g)
    thermal = 20 + 10 * torch.rand(n, 1, FRAMES, SIZE, SIZE, generator=g)
    imu = torch.rand(n, VIEWS["imu"], FRAMES, 1, 1, generator=g)
    nir = 40 + 80 * torch.rand(n, 1, FRAMES, SIZE, SIZE, generator=g)
    yes = torch.ones(n, dtype=torch.bool)
    clips = {"depth": depth, "pose": pose, "thermal": thermal, "imu": imu, "nir": nir}
    return Batch(clips, {"depth": depth > 0}, {view: yes.clone() for view in clips}, torch.arange(n) % CLASSES, yes.clone(),
                 torch.arange(n))


def moments(made: Scheme) -> list[Progress]:
    """When to look at a scheme: near the end of its training; where parameters rest in phases, in each of them."""
    return [Progress(epoch=e, epochs=10) for e in (0, 5, 9)] if made.has_phases else [END]
