"""Who learns: networks of one sensor, one family a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from modalift.errors import ModaliftError, nearest
from modalift.modalities import MODALITIES, modality
from modalift.networks.converter import FeatureConverter
from modalift.networks.recognizer import Backbone, Motion, Network, Observation, Prepare, Recognizer, Stage
from modalift.registry import Registry
from modalift.signatures import checked

#: Family name -> function ``(prepare, *, classes, frames, size, **options) -> Network``. A family whose function has
#: an argument ``sensor`` gets the Modality that it will read.
NETWORKS: Registry[Callable[..., Any]] = Registry("network")


@dataclass(frozen=True)
class Card:
    """What a table of networks says of a family beside its cost.

    Attributes:
        papers: who uses it.
        view: the view that it is shown on.
        clip: channels, frames and pixels of a clip as its paper has it.
        kind: whether it gives logits (``recognizer``) or pictures (``translator``, which has no classes).
    """

    papers: str
    view: str
    clip: tuple[int, int, int]
    kind: Literal["recognizer", "translator"] = "recognizer"


#: Family name -> its card.
CARDS: dict[str, Card] = {}


F = TypeVar("F", bound=Callable[..., Network])


def network(name: str, *, papers: str = "", view: str = "rgb", clip: tuple[int, int, int] = (3, 8, 224),
            kind: Literal["recognizer", "translator"] = "recognizer") -> Callable[[F], F]:
    """Registers a family: a decorator of its function. The arguments make its :class:`Card`."""
    def register(family: F) -> F:
        CARDS[name] = Card(papers, view, clip, kind)
        NETWORKS.add(name, family)
        return family

    return register


def has_classes(name: str) -> bool:
    """Whether a family tells classes apart, or gives pictures."""
    return name not in CARDS or CARDS[name].kind == "recognizer"


#: Options of :func:`build` that every family takes.
COMMON_OPTIONS = ("channels", "frames", "size", "mean", "std", "motion", "motion_gain", "neck", "neck_reduction")


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options that a family takes beside the common ones (width, backbone, dropout, ...)."""
    given = inspect.signature(NETWORKS[name]).parameters
    return {k: p for k, p in given.items() if k not in ("prepare", "classes", "frames", "size", "sensor")}


def check_options(name: str, given: Mapping[str, Any], where: str = "networks") -> dict[str, Any]:
    """The options of a network with their types checked: the family's own, and those of :data:`COMMON_OPTIONS`."""
    own = options_of(name)
    common = {k: v for k, v in given.items() if k in COMMON_OPTIONS}
    rest = {k: v for k, v in given.items() if k not in common}
    for key in rest:
        if key not in own:
            raise ModaliftError(f"unknown key '{where}.{key}' for network '{name}' - {nearest(key, [*own, *COMMON_OPTIONS])}")
    who = f"network '{name}'"
    return checked(build, common, dict.fromkeys(COMMON_OPTIONS), where, who) | checked(NETWORKS[name], rest, own, where, who)


def build(name: str, *, classes: int = 0, view: str = "", modality_name: str = "", channels: int | None = None,
          frames: int = 8, size: int = 224, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
          motion: Motion = "none", motion_gain: float = 2.0, neck: Literal["none", "converter"] = "none",
          neck_reduction: int = 8, **options: Any) -> Any:
    """A network of a registered family, with random weights: a Recognizer, or a Translator where that is its kind.

    Args:
        name: family, e.g. ``tsm``, ``small``, ``signal``.
        classes: number of classes K; a translator has none, whatever is asked for.
        view: the view of a table that it reads; by default the modality's name.
        modality_name: the view's modality; by default the view's name where that is a modality, else ``rgb``.
        channels: channels of its clips; by default the modality's.
        frames, size: frames and pixels of its clips (``size`` is 1 for signals).
        mean, std: normalizing constants in the sensor's unit; by default the modality's.
        motion, motion_gain: see :class:`Prepare`.
        neck, neck_reduction: ``converter`` puts a :class:`~modalift.networks.converter.FeatureConverter` between the
            trunk and the classifier.
        **options: the family's own options.

    Raises:
        ModaliftError: an unknown family or option, or a number that makes no sense.

    Example:
        >>> net = build("small", classes=10, view="depth", frames=8, size=48)
        >>> net.channels, net.classes
        (1, 10)
    """
    family = NETWORKS[name]
    options = check_options(name, options, "network")
    check_options(name, {"motion": motion, "motion_gain": motion_gain, "mean": mean, "std": std, "neck": neck,
                         "neck_reduction": neck_reduction}, "network")
    if not has_classes(name):
        classes = 0
        if motion != "none" or neck != "none":
            raise ModaliftError(f"network '{name}' gives pictures - it takes neither motion nor a neck")
    if classes < has_classes(name) or frames < 1 or size < 1:
        raise ModaliftError(f"network '{name}': classes={classes}, frames={frames}, size={size} - "
                            "each must be 1 or more")
    if channels is not None and channels < 1:
        raise ModaliftError(f"network '{name}': channels={channels} - must be 1 or more")
    kind = modality_name or (view if view in MODALITIES else "rgb")
    sensor = modality(kind)
    channels = channels or sensor.channels
    if not channels:
        raise ModaliftError(f"network '{name}': modality '{kind}' has no fixed number of channels - give channels=...")
    if sensor.kind == "signal":
        size = 1

    def fitting(values: Sequence[float]) -> Sequence[float]:
        # ImageNet's three constants on another number of channels: their mean serves them all.
        return values if len(values) in (1, channels) else (sum(values) / len(values),)

    mean = tuple(mean) if mean is not None else fitting(sensor.mean)
    std = tuple(std) if std is not None else fitting(sensor.std)
    prepare = Prepare(channels, mean, std, sensor.invalid, motion, motion_gain)
    asked = {"sensor": sensor} if "sensor" in inspect.signature(family).parameters else {}
    try:
        net = family(prepare, classes=classes, frames=frames, size=size, **asked, **options)
    except (ValueError, RuntimeError) as error:  # of PyTorch: a probability outside 0 .. 1, more weights than memory
        raise ModaliftError(f"network '{name}': {str(error).splitlines()[0]}") from None
    if neck == "converter":
        net.neck = FeatureConverter(net.stages[net.last_stage].channels, neck_reduction)
    net.view, net.modality = view or kind, kind
    net.classes, net.channels, net.frames, net.size = classes, channels, frames, size
    net.config = {"name": name, "classes": classes, "view": net.view, "modality_name": kind, "channels": channels,
                  "frames": frames, "size": size, "mean": list(mean), "std": list(std), "motion": motion,
                  "motion_gain": motion_gain, **({"neck": neck, "neck_reduction": neck_reduction} if neck != "none" else {}),
                  **options}
    return net


from modalift.networks import (  # noqa: E402  (families register themselves)
    action_net,  # noqa: F401
    c3d,  # noqa: F401
    cnn_lstm,  # noqa: F401
    conv_lstm,  # noqa: F401
    i3d,  # noqa: F401
    i3d_resnet50,  # noqa: F401
    r3d,  # noqa: F401
    resnext101_3d,  # noqa: F401
    signal,  # noqa: F401
    small,  # noqa: F401
    tea,  # noqa: F401
    translator,  # noqa: F401
    tsm,  # noqa: F401
    tsn,  # noqa: F401
    two_stream,  # noqa: F401
    vgg16,  # noqa: F401
)
from modalift.networks.cost import Cost, cost  # noqa: E402
from modalift.networks.translator import Translator  # noqa: E402
from modalift.networks.weights import load_weights  # noqa: E402

__all__ = ["CARDS", "COMMON_OPTIONS", "NETWORKS", "Backbone", "Card", "Cost", "Network", "Observation", "Prepare", "Recognizer",
           "Stage", "Translator", "build", "check_options", "cost", "has_classes", "load_weights", "network", "options_of"]
