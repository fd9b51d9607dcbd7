"""A trained model: a network and all that is needed to use it, in one file.

The file holds the weights, the description that rebuilds the network, how a recording becomes a clip (framing), how many
crops of a recording are averaged (protocol), the class names, the properties of the sensors that it reads, and its
provenance. The models of a run's folder and the bundle that ``modalift ship`` writes are the same kind of file. Opening
one never executes anything: weights are safetensors, the rest is JSON, and the description may only name registered
networks with options of plain types. See :mod:`modalift.models.container` for the file itself.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from modalift import networks
from modalift.errors import ModaliftError, nearest
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Framing, Protocol
from modalift.modalities import MODALITIES, Modality, Table
from modalift.models import container
from modalift.models.result import Column, Evaluation
from modalift.networks import NETWORKS
from modalift.registry import Registry
from modalift.version import __version__

#: Largest integer in a description, and largest frames x height x width of a clip: beyond them the file is damaged.
_MAX_INTEGER = 1_000_000
_MAX_CLIP = 2**31
_DOCUMENT_KEYS = {"format", "kind", "network", "framings", "protocol", "classes", "modalities", "provenance"}


class Model(ABC):
    """A trained network with its preprocessing. Each subclass is one kind of model, in a file of its own.

    Args:
        network: the network; it is put into evaluation mode.
        framings: view -> how recordings of that sensor become clips, for every view that evaluation reads.
        classes: class names, in the order of the logits; empty for a network without classes.
        protocol: temporal and spatial crops whose probabilities are averaged; one of each by default.
        provenance: recipe, run, data, versions and measured accuracy, as plain values.
        sha256: 64 hex digits, the hash of weights and description; empty before it is saved.
        path: the file that it was loaded from, or None.

    Raises:
        ModaliftError: a view of the network without a framing.
    """

    #: The kind's name, in files and results; a network's class attribute ``kind`` names its kind of model.
    kind: ClassVar[str]
    #: Whether it can be deployed: only a model of one sensor can.
    deployable: ClassVar[bool] = False
    #: For error messages where only a recognizer will do: what to use this kind with instead.
    advice: ClassVar[str] = "evaluate it with `modalift eval RUN`"
    #: The headline metric of an evaluation, and the columns of tables of results.
    headline: ClassVar[Column]
    columns: ClassVar[tuple[Column, ...]]

    def __init__(self, network: Any, framings: Mapping[str, Framing], classes: Sequence[str] = (),
                 protocol: Protocol | None = None, provenance: Mapping[str, Any] | None = None, sha256: str = "",
                 path: Path | None = None) -> None:
        self.network: Any = network.eval()
        missing = [view for view in self.views if view not in framings]
        if missing:
            raise ModaliftError(f"the {self.kind} has no framing for its view '{missing[0]}' - give framings['{missing[0]}']")
        # The network's own views first: dense windows are placed by the frames of the first one.
        self.framings = {view: framings[view] for view in dict.fromkeys((*self.views, *framings))}
        self.classes = tuple(classes)
        self.protocol = protocol or Protocol()
        self.provenance = dict(provenance or {})
        self.sha256 = sha256
        self.path = path

    def __repr__(self) -> str:
        return (f"{type(self).__name__}({', '.join(self.views)}, {len(self.classes)} classes,"
                f" sha256 {self.sha256[:12] or 'none yet'})")

    @property
    def name(self) -> str:
        """Its name in messages: its path, or its kind."""
        return str(self.path or self.kind)

    @property
    @abstractmethod
    def views(self) -> tuple[str, ...]:
        """The views that the network reads."""

    @property
    @abstractmethod
    def modalities(self) -> dict[str, Modality]:
        """View -> modality, for the views that the network reads."""

    @property
    def evaluation_views(self) -> tuple[str, ...]:
        """The views that an evaluation reads: those of the network, and the target where there is one."""
        return tuple(self.framings)

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def evaluable(self, table: Table) -> Table:
        """The clips of a table that have all of :attr:`evaluation_views`; may be empty."""
        return table.where(lambda row: set(self.evaluation_views) <= set(row.tracks))

    def validation_clips(self, table: Table) -> Table:
        """The clips of a table that :meth:`validate` uses; may be empty."""
        return self.evaluable(table)

    def check_table(self, table: Table) -> None:
        """Checks that the model can be evaluated on a table.

        Raises:
            ModaliftError: the table has other classes.
        """
        if self.network.classes and self.classes != table.classes:
            raise ModaliftError(f"{self.name}: has {len(self.classes)} classes, the table has {len(table.classes)} - evaluate"
                                " it on the table that it was trained on")

    @abstractmethod
    def validate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> dict[str, float]:
        """The few metrics that are logged during training; ``loss`` is among them (lower is better)."""

    @abstractmethod
    def evaluate(self, clips: ClipSet, *, workers: int = 0, device: torch.device | str = "cpu") -> Evaluation:
        """All metrics of a report, on clips with :attr:`evaluation_views`."""

    @classmethod
    def selection_score(cls, figures: Mapping[str, float]) -> float:
        """The score that selects the best checkpoint, from the metrics of :meth:`validate`: higher is better."""
        value = float(figures[cls.headline.key])
        return value if cls.headline.better == "higher" else -value

    # ---- the file ---------------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def describe(cls, network: Any) -> dict[str, Any]:
        """Plain values from which :meth:`rebuild` builds the network, without its weights."""

    @classmethod
    @abstractmethod
    def rebuild(cls, description: Mapping[str, Any], classes: int) -> nn.Module:
        """Builds the network of a description, with random weights.

        Raises:
            ModaliftError: an invalid description, or one that names an unregistered network.
        """

    def save(self, path: str | Path, state: Mapping[str, Tensor] | None = None) -> Path:
        """Writes the model's file; an older model of that name is replaced, any other file is not overwritten.

        The same model gives the same bytes: no time stamp is written.

        Args:
            path: the file, by convention ``x.modalift``.
            state: weights to write instead of the network's own (a moving average).

        Returns:
            The path.

        Raises:
            ModaliftError: a network that its description does not rebuild, weights that are not finite, a wrong number of
                class names, or a file that cannot be written.
        """
        path = Path(path)
        weights = dict(state if state is not None else self.network.state_dict())
        _check_finite(weights, path)
        description = self.check_saveable(path, weights)
        made_by = {"modalift": __version__, "torch": torch.__version__, "python": platform.python_version()}
        document = {"kind": self.kind, "network": description,
                    "framings": {view: framing.model_dump() for view, framing in self.framings.items()},
                    "protocol": self.protocol.model_dump(), "classes": list(self.classes),
                    "modalities": {view: vars(modality) for view, modality in self.modalities.items()},
                    "provenance": {"versions": made_by, **self.provenance}}
        container.write(path, weights, document)
        return path


    def check_saveable(self, path: Path, state: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Checks that :meth:`save` will be able to write the model, for example before it is trained.

        Args:
            path: the file, for messages.
            state: the weights, instead of the network's own.

        Returns:
            The network's description.

        Raises:
            ModaliftError: a network that its description does not rebuild, or a wrong number of class names.
        """
        if len(self.classes) != self.network.classes:
            raise ModaliftError(f"{path}: {len(self.classes)} class names for a network of {self.network.classes} classes -"
                                " give one per class")
        description = self.describe(self.network)
        weights = state if state is not None else self.network.state_dict()
        _check_weights(_expected_weights(type(self), description, self.network.classes, path), weights, path)
        return description


#: Kind -> class. One file of this package, or of a plugin, adds one.
KINDS: Registry[type[Model]] = Registry("kind of model")
M = TypeVar("M", bound=type[Model])


def model_kind(cls: M) -> M:
    """Class decorator: registers a kind of model under its ``kind``."""
    KINDS.add(cls.kind, cls)
    return cls


def kind_of(network: Any) -> type[Model]:
    """The kind of model of a network, by its class attribute ``kind``.

    Raises:
        ModaliftError: a network without a registered kind.
    """
    kind = getattr(network, "kind", "")
    if kind not in KINDS:
        raise ModaliftError(f"no model can be made of a {type(network).__name__} - give its class a registered 'kind':"
                            f" {', '.join(KINDS)}")
    return KINDS[kind]


def model_of(network: Any, framings: Mapping[str, Framing], classes: Sequence[str] = (), protocol: Protocol | None = None,
             provenance: Mapping[str, Any] | None = None) -> Model:
    """Makes the model of a network; see :class:`Model` for the arguments. Classes are dropped for a network without them."""
    return kind_of(network)(network, framings, classes if network.classes else (), protocol, provenance)


def load(path: str | Path, device: torch.device | str = "cpu") -> Any:
    """Loads a model from its file. Nothing in it is executed.

    Args:
        path: a run's model or a bundle, ``x.modalift``.
        device: where to put the network.

    Returns:
        A :class:`Model` of the file's kind, in evaluation mode.

    Raises:
        ModaliftError: a file that is missing, truncated, changed, of another format, or that needs a network or modality
            that is not registered; the message says what to do.
    """
    path = Path(path)
    contents = container.read(path)
    kind, document = _checked(contents.document, path)
    classes = tuple(document["classes"])
    framings = {view: Framing.parse(given, f"{path}: framings.{view}", strict=True)
                for view, given in document["framings"].items()}
    protocol = Protocol.parse(document["protocol"], f"{path}: protocol", strict=True)
    for view, framing in framings.items():
        if not {"frames", "size"} <= framing.model_fields_set:
            raise ModaliftError(f"{path}: framings.{view} lacks frames or size - ship the network again")
        if framing.frames * framing.size**2 > _MAX_CLIP:
            raise ModaliftError(f"{path}: its framing of '{view}' has clips of {framing.frames} x {framing.size} x"
                                f" {framing.size}, larger than any network here reads - ship the network again")
    _check_weights(_expected_weights(kind, document["network"], len(classes), path), contents.tensors, path)
    _check_finite(contents.tensors, path)
    with torch.random.fork_rng(devices=[]):
        network: Any = _build_network(kind, document["network"], len(classes), path)
    network.load_state_dict(contents.tensors)
    if network.classes != len(classes):
        raise ModaliftError(f"{path}: {len(classes)} class names for a network of {network.classes} classes - ship it again")
    with _one_line_errors(path):
        model = kind(network.to(device), framings, classes, protocol, document["provenance"], contents.sha256, path)
    _check_modalities(model, document["modalities"], path)
    return model


def read_document(path: str | Path) -> dict[str, Any]:
    """The description in the file of a model (``kind``, ``network``, ``classes``, ...), checked, without its weights."""
    return _checked(container.read_document(Path(path)), Path(path))[1]


# ---- checks of a file ---------------------------------------------------------------------------------------------


def _checked(document: dict[str, Any], path: Path) -> tuple[type[Model], dict[str, Any]]:
    """The kind of a document, and the document itself, its keys and their types checked."""
    if set(document) != _DOCUMENT_KEYS:
        odd = sorted(set(document) ^ _DOCUMENT_KEYS)[0]
        raise ModaliftError(f"{path}: its description has a wrong or missing part '{odd}' - ship the network again")
    kind = document["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModaliftError(f"{path}: holds a model of the kind '{str(kind)[:60]}', which is not registered here"
                            f" - {nearest(str(kind)[:60], KINDS)} (or give --plugin with the file that adds it)")
    for part in ("network", "framings", "protocol", "modalities", "provenance"):
        if not isinstance(document[part], dict):
            raise ModaliftError(f"{path}: its description has a wrong or missing part '{part}' - ship the network again")
    classes = document["classes"]
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise ModaliftError(f"{path}: its class names are not a list of names - ship it again")
    return KINDS[kind], document


def plain_options(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Checks that a description from a file holds arguments of :func:`modalift.networks.build`, each a plain value.

    Raises:
        ModaliftError: an unregistered network, or an option that is not a plain value.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise ModaliftError("its description names no network - ship it again")
    if config["name"] not in NETWORKS:
        raise ModaliftError(f"needs the network '{config['name'][:60]}', which is not registered here"
                            f" - {nearest(config['name'], NETWORKS)} (or give --plugin with the file that adds it)")
    for key, value in config.items():
        if not _plain(list(value) if isinstance(value, tuple) else value):
            raise ModaliftError(f"network option '{str(key)[:60]}' is not a plain value - ship it again")
    return config


def _plain(value: Any) -> bool:
    """Whether a value is a number, text or None, or a list of these."""
    if isinstance(value, list):
        return len(value) <= 4096 and all(_plain(v) and not isinstance(v, list | dict) for v in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _MAX_INTEGER
    return value is None or isinstance(value, bool | float) or (isinstance(value, str) and len(value) <= 200)


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Converts every error of building a model from a file into one line with the file's name."""
    try:
        yield
    except ModaliftError as error:
        raise ModaliftError(f"{path}: {error}") from None
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, RuntimeError, AttributeError) as error:
        line = " ".join(str(error).split())[:160]
        raise ModaliftError(f"{path}: its network cannot be rebuilt ({line}) - is it from another version of Modalift?"
                            ) from None


def _build_network(kind: type[Model], description: Any, classes: int, path: Path) -> nn.Module:
    """Builds the network of a description, with random weights."""
    with _one_line_errors(path):
        return kind.rebuild(description, classes)


def _expected_weights(kind: type[Model], description: Any, classes: int, path: Path) -> Mapping[str, Tensor]:
    """The state dict of a description on the meta device: a wrong size is found before memory is allocated."""
    with torch.device("meta"):
        return _build_network(kind, description, classes, path).state_dict()


def _check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    for key in sorted(set(expected) | set(found)):
        if key not in found:
            raise ModaliftError(f"{path}: the weight '{key}' is missing - is it from another version of Modalift?")
        if key not in expected:
            raise ModaliftError(f"{path}: has a weight that its configuration does not have, '{key[:80]}' - ship only"
                                " networks that networks.build makes, without training-only modules")
        ours, theirs = expected[key], found[key]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise ModaliftError(f"{path}: the weight '{key}' is {theirs.dtype} {tuple(theirs.shape)}, its configuration"
                                f" says {ours.dtype} {tuple(ours.shape)} - ship the network again")


def _check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    for key, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModaliftError(f"{path}: the weight '{key}' is not finite (NaN or Inf) - use an earlier checkpoint, or train"
                                " the network again")


def _check_modalities(model: Model, stored: Mapping[str, Any], path: Path) -> None:
    """Checks that each modality has the same kind, unit, dtype and invalid value as when the network was trained."""
    for view, modality in model.modalities.items():
        properties, name = stored.get(view), modality.name
        if not isinstance(properties, Mapping) or properties.get("name") != name:
            raise ModaliftError(f"{path}: it does not name the modality of '{view}' - ship the network again")
        here = vars(MODALITIES[name])
        for key in ("kind", "unit", "dtype", "invalid"):
            if properties.get(key) != here[key]:
                raise ModaliftError(f"{path}: its modality '{name}' has {key} {str(properties.get(key))[:40]!r}, here it is"
                                    f" {here[key]!r} - ship the network again, or use the plugin that it was made with")


# ---- one sensor -----------------------------------------------------------------------------------------------------


class SensorModel(Model):
    """A model of one sensor; such models can be deployed.

    Attributes:
        output: name of the output of an export.
        frame_by_frame: whether each frame of its output depends on that frame of the clip alone.
    """

    deployable = True
    output: ClassVar[str] = "logits"
    frame_by_frame: ClassVar[bool] = False

    @property
    def output_metadata(self) -> dict[str, Any]:
        """Metadata of an export about its output besides the class names, as plain values."""
        return {}

    @property
    def views(self) -> tuple[str, ...]:
        return (self.network.view,)

    @property
    def view(self) -> str:
        """The view that it reads."""
        return str(self.network.view)

    @property
    def framing(self) -> Framing:
        """The framing of its view: how recordings become clips."""
        return self.framings[self.view]

    @property
    def modality(self) -> Modality:
        """The modality of its view."""
        return MODALITIES[self.network.modality].with_channels(self.network.channels)

    @property
    def modalities(self) -> dict[str, Modality]:
        return {self.view: self.modality}

    @classmethod
    def describe(cls, network: Any) -> dict[str, Any]:
        if not isinstance(network, networks.Network) or not network.config:
            raise ModaliftError(f"only a network of one sensor made by networks.build can be saved, not"
                                f" {type(network).__name__}")
        return dict(network.config)

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], classes: int) -> nn.Module:
        network: nn.Module = networks.build(**plain_options(description))
        return network
