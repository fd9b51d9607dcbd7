"""The joint answer of a run whose scheme fuses several sensors: written, read and evaluated beside what may ship."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch

from modalift import networks
from modalift.engine.run import read_described
from modalift.errors import ModaliftError
from modalift.files import write_beside
from modalift.loading.framing import Framing
from modalift.modalities import Table
from modalift.networks.fusion import Fusion, FusionHead

FORMAT = "modalift-fusion/1"


@dataclass(frozen=True)
class Joined:
    """A fusion with what belongs to it: how each view is framed, and the classes."""

    fusion: Fusion
    framings: dict[str, Framing]
    classes: tuple[str, ...]


def write(path: Path, fusion: Fusion, framings: Mapping[str, Framing], classes: tuple[str, ...]) -> Path:
    """All networks of a fusion and its head, with what rebuilds them in the header: weights and JSON, no code."""
    meta = {"format": FORMAT, "head": json.dumps(fusion.head.config), "classes": json.dumps(list(classes)),
            "members": json.dumps({role: net.config for role, net in fusion.networks.items()}),
            "framings": json.dumps({view: asdict(framings[view]) for view in fusion.views})}
    tensors = {k: v.detach().cpu().contiguous() for k, v in fusion.state_dict().items()}
    return write_beside(path, lambda p: safetensors.torch.save_file(tensors, p, metadata=meta))


def read(path: Path) -> Joined:
    """What :func:`write` wrote, in evaluation mode.

    Raises:
        ModaliftError: not such a file.
    """
    meta, tensors = read_described(path, FORMAT, "fusion")
    try:
        members = {role: networks.build(**config) for role, config in json.loads(meta["members"]).items()}
        classes = tuple(json.loads(meta["classes"]))
        channels = {role: net.stages[net.last_stage].channels for role, net in members.items()}
        fusion = Fusion(members, FusionHead(channels, len(classes), **json.loads(meta["head"])))
        fusion.load_state_dict(tensors)
        framings = {view: Framing(**given) for view, given in json.loads(meta["framings"]).items()}
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModaliftError(f"{path}: its weights and its description do not fit ({str(error).splitlines()[0][:80]})"
                            " - remove it and train again") from None
    return Joined(fusion.eval(), framings, classes)


def seen_by_all(table: Table, fusion: Fusion) -> Table:
    """The clips that every sensor of a fusion recorded."""
    seen = table.where(lambda r: set(fusion.views) <= set(r.tracks))
    if not len(seen):
        raise ModaliftError(f"{table.name}: no clip of this split has all of the views {', '.join(fusion.views)}"
                            " - `modalift check` counts them")
    return seen

