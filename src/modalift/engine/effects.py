"""Settings that were changed and have no effect beside the others, with the reason: said before a training, not after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modalift.engine.experiment import Experiment
from modalift.loading.framing import Augment, Framing
from modalift.modalities import Modality, Table
from modalift.recipe import OptimSection, ProtocolSection

#: Key of ``data.augment`` -> which views it changes, and what these are called.
_CHANGES: dict[str, tuple[Callable[[Modality], bool], str]] = {
    **dict.fromkeys(("crop", "scale", "scales", "aspect", "rotate", "shift"), (lambda m: m.kind == "video", "has images")),
    "brightness": (lambda m: "brightness" in m.photometric, "has 8-bit images of light"),
    "contrast": (lambda m: "contrast" in m.photometric, "has 8-bit images of light"),
    "saturation": (lambda m: "saturation" in m.photometric and m.channels == 3, "has color"),
    "hue": (lambda m: "saturation" in m.photometric and m.channels == 3, "has color"),
    "noise": (lambda m: "noise" in m.photometric, "has 8-bit images"),
    "depth_scale": (lambda m: "range" in m.photometric, "measures depth"),
    "depth_offset": (lambda m: "range" in m.photometric, "measures depth"),
    "signal_scale": (lambda m: m.kind == "signal", "is a signal"),
    "signal_noise": (lambda m: m.kind == "signal", "is a signal"),
    "signal_rotate": (lambda m: m.kind == "signal" and m.unit == "m", "has joints"),
    "vertical": (lambda m: m.kind == "signal" and m.unit == "m", "has joints"),
}
#: Key of ``optim`` -> where it has an effect, and what that is called.
_OPTIM: dict[str, tuple[Callable[[OptimSection], bool], str]] = {
    "momentum": (lambda o: o.name == "sgd", "optim.name=sgd"),
    "betas": (lambda o: o.name == "adamw", "optim.name=adamw"),
    "milestones": (lambda o: o.schedule in ("step", "linear"), "optim.schedule=step or linear"),
    "gamma": (lambda o: o.schedule in ("step", "plateau"), "optim.schedule=step or plateau"),
    "patience": (lambda o: o.schedule == "plateau", "optim.schedule=plateau"),
    "warmup": (lambda o: o.schedule != "onecycle", "another optim.schedule than onecycle"),
}
#: Key of a framing -> where it has an effect, and what that is called.
_FRAMING: dict[str, tuple[Callable[[Framing], bool], str]] = {
    "stride": (lambda f: f.sampler == "dense", "sampler=dense"),
    "pad": (lambda f: f.sampler != "segments", "sampler=dense or whole"),
    "margin": (lambda f: f.region == "valid", "region=valid"),
    "low_light_strength": (lambda f: f.low_light != "none", "low_light=gamma or clahe"),
}


def without_effect(experiment: Experiment) -> list[str]:
    """The keys that differ from their defaults and change nothing, one line per key with the reason.

    Example:
        ``data.augment.flip = 0.5 has no effect: folder names no class whose mirror image is a class, so no clip may be
        mirrored - give such pairs, or set it to 0``
    """
    recipe, table = experiment.recipe, experiment.table
    return [*flip_without_effect(experiment), *_of_augment(recipe.data.augment, _views(experiment)), *_of_framing(experiment),
            *_of_optim(recipe.optim), *_of_protocol(recipe.protocol, table, recipe.data.labeled, recipe.data.label_seed)]


def flip_without_effect(experiment: Experiment) -> list[str]:
    """What keeps ``data.augment.flip`` from mirroring clips, in one line; training says it too.

    The other keys may well have no effect: recipes of one dataset share them, whatever views they read.
    """
    value = experiment.recipe.data.augment.flip
    return list(_of_flip(value, experiment.table, _views(experiment))) if value else []


def _views(experiment: Experiment) -> dict[str, Modality]:
    return {view: experiment.table.modality(view) for view in sorted(experiment.scheme.required_views())}


def _of_augment(augment: Augment, read: dict[str, Modality]) -> Iterator[str]:
    for key, value in _changed(augment):
        if key == "photometric":
            if not any((augment.brightness, augment.contrast, augment.saturation, augment.hue)):
                yield _line("data.augment.photometric", value, "it is the probability of brightness, contrast, saturation and"
                                                               " hue, and all of them are 0")
        elif key in _CHANGES and not any(map(_CHANGES[key][0], read.values())):
            yield _line(f"data.augment.{key}", value, f"no view that is read {_CHANGES[key][1]} ({', '.join(read)})")
        elif key == "scale" and augment.scales:
            yield _line("data.augment.scale", value, "data.augment.scales takes its place")
        elif key == "vertical" and not augment.signal_rotate:
            yield _line("data.augment.vertical", value, "it is the axis of data.augment.signal_rotate, which is 0")


def _of_flip(value: Any, table: Table, read: dict[str, Modality]) -> Iterator[str]:
    fixed = [view for view, kind in read.items() if kind.mirror == "never"]
    if fixed:
        yield _line("data.augment.flip", value, f"'{fixed[0]}' ({read[fixed[0]].name}) cannot be mirrored, and all views of a"
                                                " clip are mirrored together")
    elif not table.mirrored:
        yield _line("data.augment.flip", value, f"{table.name} does not say which class the mirror image of a class is, so no"
                                                " clip may be mirrored")
    elif len(table.mirrored) < len(table.classes):
        missing = next(name for k, name in enumerate(table.classes) if k not in table.mirrored)
        yield (f"data.augment.flip = {value} has an effect on {len(table.mirrored)} of {len(table.classes)} classes only: the"
               f" mirror image of '{missing}', for example, is not known to be a class")


def _of_framing(experiment: Experiment) -> Iterator[str]:
    for view, framing in experiment.framings.items():
        if experiment.table.modality(view).kind == "signal":
            continue
        for key, (works, where) in _FRAMING.items():
            value = getattr(framing, key)
            if value != Framing.model_fields[key].default and not works(framing):
                yield _line(f"data.{key}", value, f"it needs {where}, for the view '{view}'")


def _of_optim(optim: OptimSection) -> Iterator[str]:
    for key, value in _changed(optim):
        if key in _OPTIM and not _OPTIM[key][0](optim) and not any(key in own for own in optim.updates.values()):
            yield _line(f"optim.{key}", value, f"it needs {_OPTIM[key][1]}")


def _of_protocol(protocol: ProtocolSection, table: Table, labeled: float, label_seed: int) -> Iterator[str]:
    if protocol.eval_every != 1 and not len(table.split("val")):
        yield _line("protocol.eval_every", protocol.eval_every, "there are no validation clips")
    if label_seed and labeled == 1:
        yield _line("data.label_seed", label_seed, "all labels are used (data.labeled = 1)")


def _changed(section: Any) -> Iterator[tuple[str, Any]]:
    """The keys of a section that differ from their defaults, and their values."""
    for key, field in type(section).model_fields.items():
        if (value := getattr(section, key)) != field.get_default(call_default_factory=True):
            yield key, value


def _line(key: str, value: Any, why: str) -> str:
    return f"{key} = {value} has no effect: {why}"
