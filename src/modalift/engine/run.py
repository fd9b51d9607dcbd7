"""The run folder: what an experiment leaves, and how later ones read it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from modalift import networks
from modalift.errors import ModaliftError, nearest
from modalift.files import read_json, write_beside
from modalift.loading.framing import Framing
from modalift.networks import Network

FORMAT = "modalift-network/1"
#: What results and predictions call the joint answer of a scheme that fuses sensors; it is no network of one sensor.
FUSION = "fusion"


@dataclass(frozen=True)
class Trained:
    """A network of a run with what belongs to it."""

    net: Any  # a Recognizer or a Translator
    framing: Framing
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A folder: ``recipe.yaml``, ``log.jsonl``, ``metrics.csv``, ``checkpoints/``, ``networks/``, ``predictions/``,
    ``results.json``, ``test_ledger.jsonl``, ``environment.json``, ``report.html``."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.pt"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def environment(self) -> Path:
        """Versions, hardware and precision with which it began; written before the first step, and then left."""
        return self.folder / "environment.json"

    def network_file(self, role: str) -> Path:
        return self.folder / "networks" / f"{role}.safetensors"

    @property
    def fusion_file(self) -> Path:
        """The joint answer of several sensors, where the scheme has one: not among the networks, for it does not ship."""
        return self.folder / "fusion.safetensors"

    def fuses(self) -> bool:
        """Whether this run (each of its folds) has a joint answer of several sensors."""
        return all(r.fusion_file.is_file() for r in self.folds() or [self])

    def predictions(self, role: str, split: str) -> Path:
        return self.folder / "predictions" / f"{role}-{split}.npz"

    @property
    def finished(self) -> bool:
        return (self.folder / "compute.json").is_file()  # written last

    def folds(self) -> list[Run]:
        """The runs of a cross-validation's folds, in order; none for an ordinary run."""
        found = [Run(p) for p in self.folder.glob("fold*") if re.fullmatch(r"fold\d+", p.name)]
        return sorted(found, key=lambda r: int(r.folder.name.removeprefix("fold")))

    def roles(self) -> list[str]:
        return sorted(p.stem for p in (self.folder / "networks").glob("*.safetensors"))

    def role(self, wanted: str = "") -> str:
        """The role asked for, or the only one (or ``student``) where none is.

        Raises:
            ModaliftError: the run is not finished, or the role is not there or not unique.
        """
        roles = self.roles()
        if not roles or not (self.finished or self.folds()):
            raise ModaliftError(f"{self.folder}: no trained network - finish it with `modalift train {self.folder}`")
        if wanted:
            if wanted not in roles and not (wanted == FUSION and self.fuses()):
                raise ModaliftError(f"{self.folder}: no network in the role '{wanted}' - {nearest(wanted, roles)}")
            return wanted
        if len(roles) == 1 or "student" in roles:
            return "student" if "student" in roles else roles[0]
        raise ModaliftError(f"{self.folder} trained {', '.join(roles)} - say which, e.g. --student {roles[0]}")

    def trained(self, role: str = "") -> Trained:
        return read_network(self.network_file(self.role(role)))

    def compute(self) -> dict[str, Any]:
        path = self.folder / "compute.json"
        return read_json(path, dict, f"`modalift train {self.folder}` writes it again") if path.is_file() else {}

    def measured(self) -> dict[str, Any]:
        """``results.json``: role -> split -> metrics; empty where nothing was evaluated."""
        advice = f"`modalift eval {self.folder}` writes it again"
        return read_json(self.results, dict, advice) if self.results.is_file() else {}


def open_run(folder: str | Path) -> Run:
    """An existing run folder."""
    run = Run(Path(folder))
    if not run.recipe.is_file():
        raise ModaliftError(f"{folder}: not a run folder (it has no recipe.yaml) - give the run.dir of a training")
    return run


def write_network(path: Path, net: Network, framing: Framing, classes: Sequence[str],
                  state: Mapping[str, torch.Tensor] | None = None, recipe: str = "") -> Path:
    """A network as safetensors, with what rebuilds it in the header: weights and JSON, no code."""
    meta = {"format": FORMAT, "config": json.dumps(net.config), "framing": json.dumps(asdict(framing)),
            "classes": json.dumps(list(classes) if net.classes else []), "run": recipe}
    tensors = {k: v.detach().cpu().contiguous() for k, v in (state or net.state_dict()).items()}
    return write_beside(path, lambda p: safetensors.torch.save_file(tensors, p, metadata=meta))


def read_described(path: Path, form: str, what: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The header and the tensors of a safetensors file of this format.

    Raises:
        ModaliftError: an unreadable file, or one of another format.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModaliftError(f"{path}: not a readable safetensors file ({error}) - train or copy it again") from None
    if meta.get("format") != form:
        raise ModaliftError(f"{path}: not a {what} that Modalift wrote (format {meta.get('format')!r})")
    return meta, tensors


def read_network(path: Path) -> Trained:
    """The network that :func:`write_network` wrote, in evaluation mode.

    Raises:
        ModaliftError: no such file, or not such a file.
    """
    if not path.is_file():
        raise ModaliftError(f"{path}: no such network file")
    meta, tensors = read_described(path, FORMAT, "network")
    try:
        net = networks.build(**json.loads(meta["config"]))
        net.load_state_dict(tensors)
        return Trained(net.eval(), Framing(**json.loads(meta["framing"])), tuple(json.loads(meta["classes"])))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModaliftError(f"{path}: its weights and its description do not fit ({str(error).splitlines()[0][:80]})"
                            " - remove it and train again") from None
