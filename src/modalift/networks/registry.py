"""Network families by name: how one is registered, what is known about it, and how one of its networks is built."""

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
    """What tables of networks say about a family besides its cost.

    Attributes:
        papers: which of the implemented papers use it.
        view: the view of its example clip.
        clip: channels, frames and pixels of its paper's clips.
        classes: whether it classifies (a translator does not).
    """

    papers: str
    view: str
    clip: tuple[int, int, int]
    classes: bool = True


#: Family name -> what is known about it.
FAMILIES: Registry[FamilyInfo] = Registry("network")


F = TypeVar("F", bound=Callable[..., Network])


def network(name: str, *, papers: str = "", view: str = "rgb", clip: tuple[int, int, int] = (3, 8, 224),
            classes: bool = True) -> Callable[[F], F]:
    """Registers a family: a decorator for its function. The arguments become its :class:`FamilyInfo`."""
    def register(family: F) -> F:
        NETWORKS.add(name, family)
        FAMILIES.add(name, FamilyInfo(papers, view, clip, classes))
        return family

    return register


def has_classes(name: str) -> bool:
    """Whether a family classifies."""
    return FAMILIES[name].classes


#: Options of :func:`build` that every family takes.
COMMON_OPTIONS = ("channels", "frames", "size", "mean", "std", "motion", "motion_gain", "neck", "neck_reduction")


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options that a family takes besides the common ones (width, backbone, dropout, ...)."""
    return {k: p for k, p in inspect.signature(NETWORKS[name]).parameters.items() if k != "spec"}


def check_options(name: str, given: Mapping[str, Any], where: str = "networks") -> dict[str, Any]:
    """The options of a network with types and ranges checked: the family's own, and those of :data:`COMMON_OPTIONS`."""
    own = options_of(name)
    common = {k: v for k, v in given.items() if k in COMMON_OPTIONS}
    rest = {k: v for k, v in given.items() if k not in common}
    for key in rest:
        if key not in own:
            raise ModaliftError(f"unknown key '{where}.{key}' for network '{name}' - {nearest(key, [*own, *COMMON_OPTIONS])}")
    who = f"network '{name}'"
    return checked(build, common, dict.fromkeys(COMMON_OPTIONS), where, who) | checked(NETWORKS[name], rest, own, where, who)


def build(name: str, *, classes: int = 0, view: str = "", modality_name: str = "", channels: Count | None = None,
          frames: Count = 8, size: Count = 224, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
          motion: Motion = "none", motion_gain: float = 2.0, neck: Neck = "none", neck_reduction: Count = 8,
          **options: Any) -> Any:
    """A network of a registered family, with random weights: a Recognizer, or a Translator if the family is one.

    Args:
        name: family, e.g. ``tsm``, ``small``, ``tcn``.
        classes: number of classes K; ignored by a translator, which has none.
        view: the view of a table that it reads; by default the modality's name.
        modality_name: the view's modality; by default the view's name if that is a modality, else ``rgb``.
        channels: channels of its clips; by default the modality's.
        frames, size: frames and pixels of its clips (``size`` is 1 for signals).
        mean, std: normalization constants in the sensor's unit, one per channel or one for all; by default the modality's.
        motion, motion_gain: see :class:`~modalift.networks.prepare.Prepare`.
        neck, neck_reduction: ``converter`` puts a :class:`~modalift.networks.converter.FeatureConverter` between the
            trunk and the classifier.
        **options: the family's own options.

    Raises:
        ModaliftError: an unknown family or option, or a value outside its range.

    Example:
        >>> net = build("small", classes=10, view="depth", frames=8, size=48)
        >>> net.channels, net.classes
        (1, 10)
    """
    family = NETWORKS[name]
    options = check_options(name, options, "network")
    common = check_options(name, {
        "channels": channels, "frames": frames, "size": size, "mean": mean, "std": std, "motion": motion,
        "motion_gain": motion_gain, "neck": neck, "neck_reduction": neck_reduction}, "network")
    channels, mean, std = (common.pop(key) for key in ("channels", "mean", "std"))
    if not has_classes(name):
        classes = 0
        if motion != "none" or neck != "none":
            raise ModaliftError(f"network '{name}' does not classify - it takes neither motion nor a neck")
    elif classes < 1:
        raise ModaliftError(f"network '{name}': classes = {classes} - must be 1 or more")
    kind = modality_name or (view if view in MODALITIES else "rgb")
    sensor = modality(kind)
    channels = channels or sensor.channels
    if not channels:
        raise ModaliftError(f"network '{name}': modality '{kind}' has no fixed number of channels - give channels=...")

    def fitting(values: tuple[float, ...]) -> tuple[float, ...]:
        # ImageNet's three constants with another number of channels: their mean, for all.
        return values if len(values) in (1, channels) else (sum(values) / len(values),)

    common["size"] = 1 if sensor.kind == "signal" else common["size"]
    spec = NetworkSpec(name=name, classes=classes, view=view or kind, modality=kind, channels=channels,
                       mean=tuple(mean) if mean is not None else fitting(sensor.mean),
                       std=tuple(std) if std is not None else fitting(sensor.std), invalid=sensor.invalid,
                       options=options, **common)
    try:
        return family(spec, **options)
    except (ValueError, RuntimeError, TypeError) as error:  # from PyTorch: a probability outside 0 .. 1, not enough memory
        if isinstance(error, TypeError) and "Overflow" not in str(error):
            raise  # a mistake in a family's code, not a number that is too large for PyTorch
        raise ModaliftError(f"network '{name}': {str(error).splitlines()[0]}") from None
