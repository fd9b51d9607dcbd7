"""The registry of schemes: registration, the roles and settings in a constructor's signature, and construction."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from modalift.errors import ModaliftError, nearest
from modalift.networks import Network
from modalift.registry import Registry
from modalift.schemes.scheme import Scheme, is_optional, network_in, settings_in
from modalift.signatures import checked, parameters

SCHEMES: Registry[type[Scheme]] = Registry("scheme")
S = TypeVar("S", bound=type[Scheme])


def scheme(name: str) -> Callable[[S], S]:
    """Class decorator: registers a scheme under the name that recipes use."""

    def decorate(cls: S) -> S:
        SCHEMES.add(name, cls)
        return cls

    return decorate


def arguments_of(name: str) -> dict[str, tuple[Any, Any]]:
    """Constructor argument -> (resolved annotation, default)."""
    return parameters(SCHEMES[name].__init__)


def kind_of(name: str, role: str) -> type[Network]:
    """The kind of network that a role takes."""
    return network_in(arguments_of(name).get(role, (Network, None))[0]) or Network


def roles_of(name: str) -> tuple[tuple[str, ...], bool]:
    """The required roles of a scheme, and whether it takes any number of networks under names of the recipe."""
    found = arguments_of(name)
    named = tuple(k for k, (hint, _) in found.items() if network_in(hint) and not is_optional(hint))
    return named, any(typing.get_origin(hint) is Mapping for hint, _ in found.values())


def optional_roles_of(name: str) -> tuple[str, ...]:
    """The optional roles of a scheme."""
    return tuple(k for k, (hint, _) in arguments_of(name).items() if network_in(hint) and is_optional(hint))


def settings_of(name: str) -> dict[str, Any]:
    """Setting -> default, from the constructor's signature: the schema of the recipe's ``scheme`` section."""
    return settings_in(SCHEMES[name].__init__)


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, checked against the constructor's signature.

    Raises:
        ModaliftError: an unknown setting (with the nearest known one), or a value of the wrong type or out of range.
    """
    return checked(SCHEMES[name].__init__, settings, settings_of(name), "scheme", f"scheme '{name}'")


def build(name: str, networks: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Scheme:
    """A scheme over networks by role.

    Raises:
        ModaliftError: a role without a network, a network without a role, a wrong setting, or one without effect.
    """
    named, more = roles_of(name)
    missing = [r for r in named if r not in networks]
    if missing:
        raise ModaliftError(f"scheme '{name}' needs a network in the role '{missing[0]}' - add networks.{missing[0]}")
    known = (*named, *optional_roles_of(name))
    rest = {k: n for k, n in networks.items() if k not in known}
    if rest and not more:
        extra = sorted(rest)[0]
        raise ModaliftError(f"scheme '{name}' has no role '{extra}' - {nearest(extra, known)}")
    for role, net in networks.items():
        if not isinstance(net, kind_of(name, role)):
            needed, given = kind_of(name, role).__name__.lower(), type(net).__name__.lower()
            raise ModaliftError(f"scheme '{name}' needs a {needed} in the role '{role}', not a {given} - change"
                                f" networks.{role}.name")
    arguments: dict[str, Any] = {k: networks[k] for k in known if k in networks}
    if more:
        slot = next(k for k, (hint, _) in arguments_of(name).items() if typing.get_origin(hint) is Mapping)
        arguments[slot] = rest
    known_classes = {role: net.classes for role, net in networks.items() if getattr(net, "classes", 0)}
    if len(set(known_classes.values())) > 1:
        counts = ", ".join(f"{role} {count}" for role, count in known_classes.items())
        raise ModaliftError(f"scheme '{name}': its networks know different numbers of classes ({counts}) - train them on the"
                            " same classes")
    asked = check_settings(name, settings or {})
    made = SCHEMES[name](**arguments, **asked)
    for key in asked:
        if key in made.unused_settings:
            raise ModaliftError(f"scheme.{key} does nothing {made.unused_settings[key]} - remove it")
    return made
