"""Describes an experiment before training: its networks, their cost, which are trained and deployed, and the loss terms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text
from torch import nn

from modalift.engine.compute import epoch_macs, own_macs
from modalift.engine.experiment import Experiment
from modalift.engine.unused import augmentation, unused_settings, without_effect
from modalift.modalities import Batch
from modalift.networks import Recognizer, cost
from modalift.report.numbers import quantity
from modalift.schemes import Progress, Terms


@dataclass(frozen=True)
class NetworkSummary:
    """One network of a scheme."""

    role: str
    network: str
    view: str
    clip: str
    trained: bool
    deployed: bool
    parameters: int
    macs: int


def networks_of(experiment: Experiment) -> list[NetworkSummary]:
    """Every network of a scheme with its view and its cost."""
    scheme, members = experiment.scheme, []
    frozen = {id(n) for n in scheme.frozen()}
    for role, net in scheme.roles.items():
        spent = cost(net, frames=net.frames, size=net.size)
        clip = f"{net.channels} x {net.frames} x {net.size} x {net.size}"
        members.append(NetworkSummary(role, describe(net), net.view, clip, id(net) not in frozen, role in scheme.students,
                                      spent.parameters, spent.macs))
    return members


def describe(net: Recognizer) -> str:
    """A network's family and its most important options."""
    shown = [str(net.config[k]) for k in ("backbone", "width") if k in net.config]
    extra = ["causal"] if net.config.get("causal") else []
    return " ".join([net.config.get("name", "?"), *shown, *extra])


@dataclass(frozen=True)
class TrainingModule:
    """A module that is used in training only and never deployed."""

    name: str
    made_of: str
    parameters: int


def training_modules(experiment: Experiment) -> list[TrainingModule]:
    """Decoders, projections, discriminators, and the fusion head that several networks share."""
    scheme, found = experiment.scheme, []
    for name, module in scheme.training_only_modules.items():
        parameters = sum(p.numel() for p in module.parameters())
        if parameters:
            found.append(TrainingModule(name, made_of(module), parameters))
    return found


def made_of(module: nn.Module) -> str:
    """A module's type, or the types of the trainable modules in a list.

    Example:
        >>> made_of(nn.ModuleList([nn.ModuleList([nn.Linear(1, 1)]), nn.Linear(1, 1), nn.Identity()]))
        '2 Linear'
    """
    def inside(m: nn.Module) -> list[nn.Module]:
        return [leaf for child in m for leaf in inside(child)] if isinstance(m, nn.ModuleList) else [m]

    if not isinstance(module, nn.ModuleList):
        return type(module).__name__
    counts = Counter(type(leaf).__name__ for leaf in inside(module) if next(leaf.parameters(), None) is not None)
    return ", ".join(f"{n} {kind}" for kind, n in counts.items())


def example_terms(experiment: Experiment) -> Terms:
    """Computes the scheme's loss terms on two random clips, to get their names and weights."""
    views = sorted(experiment.scheme.required_views())
    framed = {v: experiment.framings[v] for v in views}  # for views that no network reads; networks declare their own
    shape = {v: (2, experiment.table.modality(v).channels, f.frames, f.size, f.size) for v, f in framed.items()}
    shape |= {n.view: (2, n.channels, n.frames, n.size, n.size) for n in experiment.scheme.roles.values()}
    generator = torch.Generator().manual_seed(0)
    yes = torch.ones(2, dtype=torch.bool)
    batch = Batch({v: torch.rand(s, generator=generator) for v, s in shape.items()}, {}, dict.fromkeys(views, yes),
                  torch.tensor([0, min(1, len(experiment.table.classes) - 1)]), yes, torch.arange(2))
    epochs = experiment.recipe.optim.epochs
    was = experiment.scheme.training
    with torch.no_grad():
        terms = experiment.scheme.eval()(batch, Progress(epochs, epochs))  # at the end of training, every term has its weight
    experiment.scheme.train(was)
    return terms


def as_json(experiment: Experiment) -> dict[str, Any]:
    return {
        "scheme": experiment.recipe.scheme.name,
        "networks": [vars(m) for m in networks_of(experiment)],
        "training_only_modules": [vars(p) for p in training_modules(experiment)],
        "notes": experiment.scheme.notes,
        "augmentation": [vars(effect) for effect in augmentation(experiment)],
        "unused_settings": unused_settings(experiment),
        "terms": {k: w for k, (w, _) in example_terms(experiment).items()},
        "training_clips": len(experiment.train),
        "labeled": sum(r.label is not None for r in experiment.train),
        "macs_per_epoch": epoch_macs(experiment), "training_macs": own_macs(experiment),
    }


def render(experiment: Experiment) -> Group:
    """The experiment as tables for the terminal."""
    recipe, summary = experiment.recipe, as_json(experiment)
    members = RichTable(title=f"{recipe.scheme.name} on {experiment.table.name}", title_justify="left")
    for name in ("role", "network", "view", "clip (C x T x H x W)", "weights", "deployed", "parameters", "MACs per clip"):
        members.add_column(name, justify="right" if name in ("parameters", "MACs per clip") else "left")
    for m in networks_of(experiment):
        members.add_row(Text(m.role), m.network, Text(m.view), m.clip, "trained" if m.trained else "frozen",
                        Text("yes", "green") if m.deployed else "training only", f"{m.parameters:,}", f"{m.macs:,}")
    shown: list[RenderableType] = [members]
    if summary["training_only_modules"]:
        modules = RichTable(title="modules for training only", title_justify="left")
        for name in ("module", "made of", "parameters"):
            modules.add_column(name, justify="right" if name == "parameters" else "left")
        for p in summary["training_only_modules"]:
            modules.add_row(Text(p["name"]), Text(p["made_of"]), f"{p['parameters']:,}")
        shown.append(modules)
    terms = RichTable(title="loss terms", title_justify="left")
    for name in ("term", "weight", "who teaches whom"):
        terms.add_column(name)
    for name, weight in summary["terms"].items():
        terms.add_row(Text(name), f"{weight:g}" if weight else "logged only", who(name))
    text = Text(f"{summary['training_clips']} training clips, {summary['labeled']} of them labeled; {recipe.optim.epochs}"
                f" epochs cost {quantity(summary['training_macs'])} multiply-accumulates (a backward pass counts as two forward"
                " passes)")
    if summary["augmentation"]:
        shown.append(_augmentation(summary["augmentation"]))
    return Group(*shown, terms, *(Text(f"note: {note}") for note in summary["notes"]),
                 *(Text(line, "yellow") for line in without_effect(summary["unused_settings"])), text)


def _augmentation(effects: list[dict[str, Any]]) -> RichTable:
    """What each key of ``data.augment`` changes."""
    table = RichTable(title="augmentation", title_justify="left")
    for name in ("key", "value", "changes"):
        table.add_column(name)
    for effect in effects:
        value = effect["value"]
        shown = ", ".join(f"{x:g}" for x in value) if isinstance(value, tuple) else str(value)
        table.add_row(Text(effect["key"]), shown, Text(effect["on"] or "nothing", "" if effect["on"] else "yellow"))
    return table


def who(term: str) -> str:
    """Describes a loss term's name in words.

    Example:
        >>> who("mgcam/teacher>student")
        'teacher teaches student'
        >>> who("kd/teacher+assistant>student")
        'teacher and assistant teach student'
        >>> who("ce/student")
        'labels teach student'
    """
    _, _, roles = term.partition("/")
    teacher, arrow, learner = roles.partition(">")
    if not arrow:
        return f"labels teach {teacher.replace('+', ' and ')}"
    return f"{teacher.replace('+', ' and ')} teach{'' if '+' in teacher else 'es'} {learner.replace('+', ' and ')}"
