"""Which network of each run is meant, where several runs are compared or fused.

Runs name their networks as they like: the network that reads depth is ``student`` in one and ``depth`` in another. They are
matched by what they read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modalift.engine.run import Run
from modalift.errors import ModaliftError, nearest


@dataclass(frozen=True)
class RoleChoice:
    """What ``--student`` options say.

    Attributes:
        general: roles for every run that has one of them.
        own: run -> role, from ``RUN=ROLE``; RUN is the run's folder as it was given, its name, or that of a recipe.

    Example:
        >>> RoleChoice.parse(["depth", "runs/a=rgb"])
        RoleChoice(general=('depth',), own={'runs/a': 'rgb'})
    """

    general: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def parse(texts: Sequence[str]) -> RoleChoice:
        """From ``ROLE`` and ``RUN=ROLE``.

        Raises:
            ModaliftError: an empty run or role, or two roles for one run.
        """
        general: list[str] = []
        own: dict[str, str] = {}
        for text in texts:
            run, equals, role = text.rpartition("=")
            if not role or (equals and not run):
                raise ModaliftError(f"--student {text}: is not of the form ROLE or RUN=ROLE")
            run = str(Path(run)) if equals else ""  # as folders are printed: without a slash at the end
            if equals and own.get(run, role) != role:
                raise ModaliftError(f"--student {text}: {run} has the role '{own[run]}', too - give one role per run")
            if equals:
                own[run] = role
            else:
                general.append(role)
        return RoleChoice(tuple(general), own)

    def of(self, names: Sequence[str]) -> str:
        """The role that is given for a run which has these names; empty if there is none."""
        return next((self.own[name] for name in names if name in self.own), "")

    def check(self, networks: Sequence[Mapping[str, str]], names: Sequence[Sequence[str]]) -> None:
        """Checks that every role and every run that is given exists.

        Raises:
            ModaliftError: a run that is not among them, a role that it does not have, or that none has.
        """
        for name, role in self.own.items():
            found = [known for known, also in zip(networks, names, strict=True) if name in also]
            if not found:
                raise ModaliftError(f"--student {name}={role}: '{name}' is not one of the runs -"
                                    f" {nearest(name, [also[0] for also in names])}")
            if role not in found[0]:
                raise ModaliftError(f"--student {name}={role}: it has no network in the role '{role}' -"
                                    f" {nearest(role, found[0])}")
        for role in self.general:
            known = {r for roles in networks for r in roles}
            if role not in known:
                raise ModaliftError(f"no run has a network in the role '{role}' - {nearest(role, known)}")


#: No role is given.
EVERY_RUN = RoleChoice()


def match_roles(networks: Sequence[Mapping[str, str]], names: Sequence[Sequence[str]], choice: RoleChoice) -> list[str]:
    """One role of each run: the given one, else its only one, else the one that reads what the others' networks read.

    Args:
        networks: per run, role -> view of its networks, see :func:`networks_of`; the first run is the baseline.
        names: per run, by which names it can be given; the first is shown.
        choice: the roles that were given.

    Raises:
        ModaliftError: a role or run that does not exist, or a choice that is not unique.

    Example:
        >>> match_roles([{"student": "depth"}, {"rgb": "rgb", "depth": "depth"}], [["a"], ["b"]], RoleChoice())
        ['student', 'depth']
    """
    choice.check(networks, names)
    fixed: list[str] = []
    for roles, also in zip(networks, names, strict=True):
        general = [role for role in choice.general if role in roles]
        if len(general) > 1 and not choice.of(also):
            raise ModaliftError(f"{also[0]} has networks in the roles {', '.join(general)} - name one:"
                                f" --student {also[0]}={general[0]}")
        only = deployable(roles)
        fixed.append(choice.of(also) or (general[0] if general else only[0] if len(only) == 1 else ""))
    read = [roles[role] for roles, role in zip(networks, fixed, strict=True) if role]  # views of the runs that are decided
    return [role or _reading(roles, read, also[0]) for roles, role, also in zip(networks, fixed, names, strict=True)]


def _reading(roles: Mapping[str, str], views: Sequence[str], name: str) -> str:
    """The role that reads the first of some views that only one does; else ``student``."""
    if roles.get("student") in views[:1]:
        return "student"
    for view in views:
        fitting = [role for role, own in roles.items() if own == view]
        if len(fitting) == 1:
            return fitting[0]
    if "student" in roles:
        return "student"
    each = ", ".join(f"{role} (reads {roles[role]})" for role in deployable(roles))
    raise ModaliftError(f"{name} trained {each} - name one, e.g. --student {name}={deployable(roles)[0]}")


def networks_of(run: Run) -> dict[str, str]:
    """Role -> view of a finished run's networks that predict classes; empty for a model of several sensors.

    Raises:
        ModaliftError: the run is not finished, or has no such network that can be deployed.
    """
    run.resolve_role(next(iter(run.roles()), ""))  # raises for an unfinished run
    found = {}
    for role in run.roles():
        document = run.describe(role)
        if document["classes"]:
            found[role] = str(document["network"].get("view", "")) if run.ships(role) else ""
    if not deployable(found):
        raise ModaliftError(f"{run.folder}: has no network that predicts classes and can be deployed")
    return found


def deployable(roles: Mapping[str, str]) -> list[str]:
    """The roles of networks that read one sensor; a model of several is an upper bound, taken only where it is named."""
    return [role for role, view in roles.items() if view]


def names_of(run: Run, *more: str) -> list[str]:
    """The names by which a run can be given, the one to show first."""
    folder = str(run.folder)
    return list(dict.fromkeys([*more, folder, run.short_name, run.folder.name, str(Path(folder).resolve())]))
