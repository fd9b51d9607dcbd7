"""Families of networks by name: what registers one, what is known of it, and how a network of it is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from modalift.errors import ModaliftError, nearest
from modalift.modalities import MODALITIES, modality
from modalift.networks.prepare import Motion
from modalift.networks.recognizer import Network
from modalift.networks.spec import Neck, NetworkSpec
from modalift.registry import Registry
from modalift.signatures import Count, checked

#: Family name -> function ``(spec: NetworkSpec, *, option=default, ...) -> Network``.
NETWORKS: Registry[Callable[..., Any]] = Registry("network")


@dataclass(frozen=True)
class FamilyInfo:
    """What a table of networks says of a family beside its cost.

    Attributes:
        papers: who uses it.
        view: the view that it is shown on.
        clip: channels, frames and pixels of a clip as its paper has it.
        classes: whether it tells classes apart (a translator does not).
    """

    papers: str
    view: str
    clip: tuple[int, int, int]
    classes: bool = True


#: Family name -> what is known of it.
FAMILIES: Registry[FamilyInfo] = Registry("network")


F = TypeVar("F", bound=Callable[..., Network])


def network(name: str, *, papers: str = "", view: str = "rgb", clip: tuple[int, int, int] = (3, 8, 224),
            classes: bool = True) -> Callable[[F], F]:
    """Registers a family: a decorator of its function. The arguments make its :class:`FamilyInfo`."""
    def register(family: F) -> F:
        NETWORKS.add(name, family)
        FAMILIES.add(name, FamilyInfo(papers, view, clip, classes))
        return family

    return register


def has_classes(name: str) -> bool:
    """Whether a family tells classes apart."""
    return FAMILIES[name].classes


#: Options of :func:`build` that every family takes.
COMMON_OPTIONS = ("channels", "frames", "size", "mean", "std", "motion", "motion_gain", "neck", "neck_reduction")


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options that a family takes beside the common ones (width, backbone, dropout, ...)."""
    return {k: p for k, p in inspect.signature(NETWORKS[name]).parameters.items() if k != "spec"}


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
          motion: Motion = "none", motion_gain: float = 2.0, neck: Neck = "none", neck_reduction: Count = 8,
          **options: Any) -> Any:
    """A network of a registered family, with random weights: a Recognizer, or a Translator where that is its kind.

    Args:
        name: family, e.g. ``tsm``, ``small``, ``signal``.
        classes: number of classes K; a translator has none, whatever is asked for.
        view: the view of a table that it reads; by default the modality's name.
        modality_name: the view's modality; by default the view's name where that is a modality, else ``rgb``.
        channels: channels of its clips; by default the modality's.
        frames, size: frames and pixels of its clips (``size`` is 1 for signals).
        mean, std: normalizing constants in the sensor's unit; by default the modality's.
        motion, motion_gain: see :class:`~modalift.networks.prepare.Prepare`.
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
            raise ModaliftError(f"network '{name}' tells no classes apart - it takes neither motion nor a neck")
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

    def fitting(values: tuple[float, ...]) -> tuple[float, ...]:
        # ImageNet's three constants on another number of channels: their mean serves them all.
        return values if len(values) in (1, channels) else (sum(values) / len(values),)

    spec = NetworkSpec(channels=channels, frames=frames, size=1 if sensor.kind == "signal" else size, classes=classes,
                       view=view or kind, modality=kind, mean=tuple(mean) if mean is not None else fitting(sensor.mean),
                       std=tuple(std) if std is not None else fitting(sensor.std), invalid=sensor.invalid, motion=motion,
                       motion_gain=motion_gain, neck=neck, neck_reduction=neck_reduction, name=name, options=options)
    try:
        return family(spec, **options)
    except (ValueError, RuntimeError) as error:  # of PyTorch: a probability outside 0 .. 1, more weights than memory
        raise ModaliftError(f"network '{name}': {str(error).splitlines()[0]}") from None
