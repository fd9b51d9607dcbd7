"""The cast of an experiment, before any training: who sees what, learns, ships, at what cost, and who teaches whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text
from torch import nn

from modalift.engine.experiment import Experiment
from modalift.engine.train import epoch_macs, own_macs
from modalift.modalities import Batch
from modalift.networks import Recognizer, cost
from modalift.schemes import Progress, Terms


@dataclass(frozen=True)
class Member:
    """One network of the cast."""

    role: str
    network: str
    view: str
    clip: str
    learns: bool
    ships: bool
    parameters: int
    macs: int


def cast(experiment: Experiment) -> list[Member]:
    """Every network of a scheme with what it sees and costs."""
    scheme, members = experiment.scheme, []
    frozen = {id(n) for n in scheme.frozen()}
    for role, net in scheme.roles.items():
        spent = cost(net, frames=net.frames, size=net.size)
        clip = f"{net.channels} x {net.frames} x {net.size} x {net.size}"
        members.append(Member(role, describe(net), net.view, clip, id(net) not in frozen, role in scheme.students,
                              spent.parameters, spent.macs))
    return members


def describe(net: Recognizer) -> str:
    """A network's family and the options that matter to a reader."""
    shown = [str(net.config[k]) for k in ("backbone", "width") if k in net.config]
    extra = ["causal"] if net.config.get("causal") else []
    return " ".join([net.config.get("name", "?"), *shown, *extra])


@dataclass(frozen=True)
class Part:
    """What learns beside the networks and never ships."""

    name: str
    made_of: str
    parameters: int


def parts(experiment: Experiment) -> list[Part]:
    """Decoders, projections, judges; and the head of a joint answer, which all of its networks share."""
    scheme, found = experiment.scheme, []
    for name, module in scheme.parts.items():
        parameters = sum(p.numel() for p in module.parameters())
        if scheme.fusion is not None and module is scheme.fusion.head:
            what = f"{scheme.fusion.head.mode} fusion, shared: the joint answer of {', '.join(scheme.fusion.networks)}"
            found.append(Part(name, what, parameters))
        elif parameters:
            found.append(Part(name, made_of(module), parameters))
    return found


def made_of(module: nn.Module) -> str:
    """A module's kind, or what of a list of modules learns.

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


def rehearse(experiment: Experiment) -> Terms:
    """The scheme's terms on two invented clips: the names are what the scheme really computes."""
    views = sorted(experiment.scheme.needs())
    framed = {v: experiment.framings[v] for v in views}  # of what teaches as a picture; a network says what it reads
    shape = {v: (2, experiment.table.modality(v).channels, f.frames, f.size, f.size) for v, f in framed.items()}
    shape |= {n.view: (2, n.channels, n.frames, n.size, n.size) for n in experiment.scheme.roles.values()}
    generator = torch.Generator().manual_seed(0)
    yes = torch.ones(2, dtype=torch.bool)
    batch = Batch({v: torch.rand(s, generator=generator) for v, s in shape.items()}, {}, dict.fromkeys(views, yes),
                  torch.tensor([0, min(1, len(experiment.table.classes) - 1)]), yes, torch.arange(2))
    epochs = experiment.recipe.optim.epochs
    was = experiment.scheme.training
    with torch.no_grad():
        terms = experiment.scheme.eval()(batch, Progress(epochs, epochs))  # the end of training: every term has begun
    experiment.scheme.train(was)
    return terms


def as_json(experiment: Experiment) -> dict[str, Any]:
    return {
        "scheme": experiment.recipe.scheme.name,
        "cast": [vars(m) for m in cast(experiment)],
        "parts": [vars(p) for p in parts(experiment)],
        "notes": experiment.scheme.notes,
        "terms": {k: w for k, (w, _) in rehearse(experiment).items()},
        "train_clips": len(experiment.train),
        "labeled": sum(r.label is not None for r in experiment.train),
        "macs_an_epoch": epoch_macs(experiment), "macs_in_all": own_macs(experiment),
    }


def render(experiment: Experiment) -> Group:
    """The cast as tables for the terminal."""
    recipe, facts = experiment.recipe, as_json(experiment)
    people = RichTable(title=f"{recipe.scheme.name} on {experiment.table.name}", title_justify="left")
    for name in ("role", "network", "sees", "clip (C x T x H x W)", "learns", "ships", "parameters", "MACs a clip"):
        people.add_column(name, justify="right" if name in ("parameters", "MACs a clip") else "left")
    for m in cast(experiment):
        people.add_row(Text(m.role), m.network, Text(m.view), m.clip, "yes" if m.learns else "frozen",
                       "[green]yes[/]" if m.ships else "stays home", f"{m.parameters:,}", f"{m.macs:,}")
    shown: list[RenderableType] = [people]
    if facts["parts"]:
        beside = RichTable(title="what learns beside them, and never ships", title_justify="left")
        for name in ("part", "made of", "parameters"):
            beside.add_column(name, justify="right" if name == "parameters" else "left")
        for p in facts["parts"]:
            beside.add_row(p["name"], Text(p["made_of"]), f"{p['parameters']:,}")
        shown.append(beside)
    lessons = RichTable(title="what is learned", title_justify="left")
    for name in ("term", "weight", "who teaches whom"):
        lessons.add_column(name)
    for name, weight in facts["terms"].items():
        lessons.add_row(Text(name), f"{weight:g}" if weight else "logged only", who(name))
    text = Text(f"{facts['train_clips']} training clips, {facts['labeled']} of them with a label; "
                f"{recipe.optim.epochs} epochs cost {facts['macs_in_all'] / 1e12:.3g} tera multiply-accumulates"
                " (a backward pass counted as two forward ones)")
    return Group(*shown, lessons, *(Text(f"note: {note}") for note in facts["notes"]), text)


def who(term: str) -> str:
    """A term's name in words.

    Example:
        >>> who("graph/teacher>student")
        'teacher teaches student'
        >>> who("imitate/teacher+assistant>student")
        'teacher and assistant teach student'
        >>> who("ce/student")
        'labels teach student'
    """
    _, _, roles = term.partition("/")
    teacher, arrow, learner = roles.partition(">")
    if not arrow:
        return f"labels teach {teacher.replace('+', ' and ')}"
    return f"{teacher.replace('+', ' and ')} teach{'' if '+' in teacher else 'es'} {learner.replace('+', ' and ')}"
