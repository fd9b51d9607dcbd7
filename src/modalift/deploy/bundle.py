"""The bundle: one file with everything that one sensor's network needs to answer, and nothing else.

It holds the weights, the configuration that rebuilds the network, the framing (how a recording becomes a clip), the
protocol (how many looks at a recording are averaged), the class names, the facts of the sensor, and where it all came
from. Opening one never executes anything: weights are safetensors, the rest is JSON, and the configuration may only
name registered networks with options of plain types. See :mod:`modalift.deploy.container` for the file itself.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import modalift
from modalift import networks
from modalift.deploy import container
from modalift.deploy.framed import framed
from modalift.errors import ModaliftError, nearest
from modalift.loading.framing import Framing
from modalift.modalities import MODALITIES, Modality, Track
from modalift.networks import NETWORKS, Network, Translator

#: Largest whole number that a configuration may hold: sizes beyond it are damage, and would only exhaust the memory.
_LARGEST = 1_000_000
_LARGEST_CLIP = 2**31


@dataclass(frozen=True)
class Protocol:
    """How often a recording is looked at: evenly spread ``time_views`` times ``crops``; probabilities are averaged."""

    time_views: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        for name in ("time_views", "crops"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
                raise ModaliftError(f"protocol.{name} is {value!r} - it must be a whole number of 1 or more")


@dataclass(frozen=True)
class Prediction:
    """A network's answer about one recording.

    Attributes:
        clip: what was asked about.
        label: name of the most probable class; ``index`` its number, ``probability`` its probability.
        top: the most probable classes with their probabilities, best first.
        classes: all class names; ``probabilities`` ``(K,)`` float32 belong to them and sum to 1.
    """

    clip: str
    label: str
    index: int
    probability: float
    top: tuple[tuple[str, float], ...]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"clip": self.clip, "label": self.label, "index": self.index, "probability": self.probability,
                "top": [{"label": name, "probability": p} for name, p in self.top],
                "probabilities": [float(p) for p in self.probabilities]}


def answer(clip: str, probabilities: NDArray[np.float32], classes: Sequence[str], top: int = 5) -> Prediction:
    """A Prediction of probabilities ``(K,)``; among equals the first class wins.

    Example:
        >>> answer("a.mp4", np.array([.25, .75], np.float32), ["stop", "go"]).label
        'go'
    """
    if not np.isfinite(probabilities).all():
        raise ModaliftError(f"{clip}: the network's answer is not a number - are its readings in the sensor's unit?")
    order = np.argsort(-probabilities, kind="stable")
    best = int(order[0])
    ranked = tuple((classes[int(i)], float(probabilities[i])) for i in order[: max(1, top)])
    return Prediction(clip, classes[best], best, float(probabilities[best]), ranked, probabilities, tuple(classes))


class Bundle:
    """A network that came home, ready to answer. :func:`load` opens one.

    Attributes:
        net: the network, in evaluation mode: a Recognizer, or a Translator, which has no classes.
        framing, protocol: what happens to a recording before and after the network.
        classes: class names.
        modality: the sensor that it reads.
        provenance: recipe, run, data, versions and measured accuracy, as they were told to :func:`save_bundle`.
        sha256: 64 hex digits that name this network, its weights and its description; empty before it is saved.
        path: the file it came from, or None.
    """

    def __init__(self, net: Any, framing: Framing, classes: Sequence[str], protocol: Protocol | None = None,
                 provenance: Mapping[str, Any] | None = None, sha256: str = "", path: Path | None = None) -> None:
        self.net = net.eval()
        self.framing = framing
        self.classes = tuple(classes)
        self.protocol = protocol or Protocol()
        self.provenance = dict(provenance or {})
        self.sha256 = sha256
        self.path = path
        self.modality: Modality = MODALITIES[net.modality].with_channels(net.channels)

    def __repr__(self) -> str:
        return (f"Bundle({self.net.config.get('name', '?')} of {self.modality.name}, {len(self.classes)} classes,"
                f" sha256 {self.sha256[:12] or 'none yet'})")

    def clips(self, recording: str | Path | Track | NDArray[Any]) -> Tensor:
        """The clips ``(V, C, T, H, W)`` that the network sees of a recording: V = time views x crops, no chance.

        Args:
            recording: a file or folder (the whole of it is read), a Track (its window is read), or frames
                ``(T, H, W, C)`` in the sensor's unit; a signal's are ``(T, C)``.
        """
        return framed(recording, self.modality, self.framing, self.protocol)

    @torch.inference_mode()
    def logits(self, clip: Tensor | NDArray[Any]) -> Tensor:
        """Logits ``(B, K)`` of clips ``(B, C, T, H, W)`` that are framed already, in the sensor's unit."""
        device = next(self.net.parameters()).device
        return self.net(torch.as_tensor(clip).to(device, torch.float32)).cpu()

    def predict(self, clip: str | Path | Track | NDArray[Any], top: int = 5) -> Prediction:
        """The classes of a recording: the mean of the probabilities over the protocol's views.

        Args:
            clip: see :meth:`clips`.
            top: how many classes :attr:`Prediction.top` lists.

        Raises:
            ModaliftError: a recording that is missing, damaged, or of another kind of sensor.
        """
        if isinstance(self.net, Translator):
            raise ModaliftError(f"{self.path or 'bundle'}: holds a translator, which gives pictures - use `modalift derive"
                                " pseudo_ir DATA OUT bundle=...`")
        views = self.clips(clip)
        # One view at a time: the same arithmetic whatever the number of views, and no more memory than one needs.
        probabilities = torch.stack([self.logits(view[None])[0].softmax(0) for view in views]).mean(0)
        return answer(_name(clip), probabilities.numpy(), self.classes, top)


def _name(clip: str | Path | Track | NDArray[Any]) -> str:
    if isinstance(clip, np.ndarray):
        return "array"
    if isinstance(clip, Track):
        return f"{clip.path}:{clip.key}" if clip.key else str(clip.path)
    return str(clip)


def save_bundle(path: str | Path, net: Network, *, framing: Framing, classes: Sequence[str],
                protocol: Protocol | Mapping[str, int] | None = None,
                provenance: Mapping[str, Any] | None = None) -> Path:
    """Writes a bundle; an older bundle of that name is replaced whole, any other file is left alone.

    Args:
        path: the file, by custom ``x.modalift``.
        net: the network to ship, as :func:`modalift.networks.build` made it (its parameters may have moved).
        framing: what happens to a recording before the network.
        classes: class names, in the order of the logits.
        protocol: ``time_views`` and ``crops``; one of each by default.
        provenance: anything plain: ``recipe``, ``run``, ``data`` (the table's fingerprint), ``accuracy`` (with its
            interval), ``date``. Versions are added. Nothing else depends on the clock: same input, same bytes.

    Raises:
        ModaliftError: a network that its configuration does not rebuild, weights that are not finite, class names
            that do not fit, or a file that cannot be written.
    """
    path = Path(path)
    if not isinstance(net, Network) or not net.config:
        raise ModaliftError(f"{path}: only a network of one sensor made by networks.build can ship, not"
                            f" {type(net).__name__}")
    names = [str(c) for c in classes]
    if len(names) != net.classes:
        raise ModaliftError(f"{path}: {len(names)} class names for a network of {net.classes} classes - give one each")
    state = net.state_dict()
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModaliftError(f"{path}: the weight '{key}' holds values that are not finite - ship an earlier"
                                " checkpoint")
    protocol = protocol if isinstance(protocol, Protocol) else _protocol(protocol or {}, str(path))
    sensor = MODALITIES[net.modality].with_channels(net.channels)
    made_by = {"modalift": modalift.__version__, "torch": torch.__version__, "python": platform.python_version()}
    document = {"network": net.config, "framing": asdict(framing), "protocol": asdict(protocol), "classes": names,
                "modality": asdict(sensor), "provenance": {"versions": made_by, **(provenance or {})}}
    _rebuild(document["network"], state, str(path))
    container.write(path, state, document)
    return path


def load(path: str | Path, device: torch.device | str = "cpu") -> Bundle:
    """Opens a bundle. Nothing in it is executed.

    Raises:
        ModaliftError: a file that is missing, truncated, changed, of another kind, or that needs something that this
            Modalift does not have; the line names it and says what to do.
    """
    path = Path(path)
    contents = container.read(path)
    document = contents.document
    known = {"format", "network", "framing", "protocol", "classes", "modality", "provenance"}
    if set(document) != known:
        odd = sorted(set(document) ^ known)[0]
        raise ModaliftError(f"{path}: its description has a wrong or missing part '{odd}' - ship the network again")
    framing = _framing(document["framing"], str(path))
    protocol = _protocol(document["protocol"], str(path))
    _check_modality(document["network"], document["modality"], str(path))
    net = _rebuild(document["network"], contents.tensors, str(path))
    classes = document["classes"]
    if not isinstance(classes, list) or len(classes) != net.classes or not all(isinstance(c, str) for c in classes):
        raise ModaliftError(f"{path}: its class names do not fit its network of {net.classes} classes - ship it again")
    return Bundle(net.to(device), framing, classes, protocol, document["provenance"], contents.sha256, path)


def _plain(value: Any) -> bool:
    """Numbers, text, and lists of them: what a network's option may be."""
    if isinstance(value, list):
        return len(value) <= 4096 and all(_plain(v) and not isinstance(v, list | dict) for v in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _LARGEST
    return value is None or isinstance(value, bool | float) or (isinstance(value, str) and len(value) <= 200)


def _rebuild(config: Any, state: Mapping[str, Tensor], path: str) -> Any:
    """The network of a configuration with the given weights; the global random state stays as it was."""
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise ModaliftError(f"{path}: it names no network - ship it again")
    if config["name"] not in NETWORKS:
        raise ModaliftError(f"{path}: needs the network '{config['name'][:60]}', which is not known here"
                            f" - {nearest(config['name'], NETWORKS)} (or give --plugin with the file that adds it)")
    for key, value in config.items():
        if not _plain(list(value) if isinstance(value, tuple) else value):
            raise ModaliftError(f"{path}: network option '{str(key)[:60]}' is not a plain value - ship it again")
    try:
        with torch.device("meta"):  # shapes only: weights of a wrong size are found before any memory is taken
            _same_weights(networks.build(**config).state_dict(), state, path)
        with torch.random.fork_rng(devices=[]):
            net = networks.build(**config)
        net.load_state_dict(dict(state))
    except ModaliftError as error:
        raise ModaliftError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, RuntimeError, AttributeError) as error:
        line = " ".join(str(error).split())[:160]
        raise ModaliftError(f"{path}: its network '{config['name']}' cannot be rebuilt ({line}) - is it from another"
                            " version of Modalift?") from None
    return net.eval()


def _same_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: str) -> None:
    for key in sorted(set(expected) | set(found)):
        if key not in found:
            raise ModaliftError(f"{path}: the weight '{key}' is missing - is it from another version of Modalift?")
        if key not in expected:
            raise ModaliftError(f"{path}: has a part that its configuration does not rebuild, '{key[:80]}' - ship only"
                                " networks that networks.build makes, without parts that serve training")
        ours, theirs = expected[key], found[key]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise ModaliftError(f"{path}: the weight '{key}' is {theirs.dtype} {tuple(theirs.shape)}, its configuration"
                                f" says {ours.dtype} {tuple(ours.shape)} - ship the network again")


def _framing(found: Any, path: str) -> Framing:
    kinds = {f.name: type(getattr(Framing(1, 1), f.name)) for f in fields(Framing)}
    if not isinstance(found, Mapping):
        raise ModaliftError(f"{path}: its framing is missing - ship the network again")
    for key, value in found.items():
        if key not in kinds:
            raise ModaliftError(f"{path}: its framing has an unknown key '{str(key)[:60]}' - install the Modalift that"
                                " made it")
        right = isinstance(value, (int, float) if kinds[key] is float else kinds[key]) and not isinstance(value, bool)
        if not right or (isinstance(value, int) and value > _LARGEST):
            raise ModaliftError(f"{path}: framing.{key} is {str(value)[:40]!r} - ship the network again")
    try:
        framing = Framing(**found)
    except (ModaliftError, TypeError) as error:
        raise ModaliftError(f"{path}: its framing is wrong: {error}") from None
    if framing.frames * framing.size**2 > _LARGEST_CLIP:
        raise ModaliftError(f"{path}: its framing asks for clips of {framing.frames} x {framing.size} x {framing.size},"
                            " beyond any network here - ship the network again")
    return framing


def _protocol(found: Any, path: str) -> Protocol:
    try:
        return Protocol(**found)
    except (ModaliftError, TypeError) as error:
        raise ModaliftError(f"{path}: its protocol is wrong ({error}) - it takes time_views and crops") from None


def _check_modality(config: Any, facts: Any, path: str) -> None:
    """The sensor must mean here what it meant where the network learned."""
    name = config.get("modality_name") if isinstance(config, Mapping) else None
    if not isinstance(facts, Mapping) or not isinstance(name, str) or facts.get("name") != name:
        raise ModaliftError(f"{path}: it does not say which sensor it reads - ship the network again")
    if name not in MODALITIES:
        raise ModaliftError(f"{path}: reads the modality '{name[:60]}', which is not known here"
                            f" - {nearest(name, MODALITIES)} (or give --plugin with the file that adds it)")
    here = asdict(MODALITIES[name])
    for key in ("kind", "unit", "dtype", "invalid"):
        if facts.get(key) != here[key]:
            raise ModaliftError(f"{path}: its modality '{name}' has {key} {str(facts.get(key))[:40]!r}, here it is"
                                f" {here[key]!r} - ship the network again, or use the plugin that it was made with")
