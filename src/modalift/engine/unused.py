"""Settings of a recipe that have no effect beside its other settings, its views and its clips."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modalift import datasets
from modalift.engine.experiment import Experiment
from modalift.loading.framing import Augment, Framing
from modalift.modalities import Modality, Table
from modalift.recipe import OptimSection, Recipe
from modalift.settings import Settings


@dataclass(frozen=True)
class Effect:
    """What a setting that differs from its default does.

    Attributes:
        key: its key in the recipe.
        value: its value.
        on: what it changes: views, or classes.
        reason: why it changes nothing; empty if it has an effect.
    """

    key: str
    value: Any
    on: str = ""
    reason: str = ""


def unused_settings(experiment: Experiment) -> dict[str, str]:
    """Key -> why the setting has no effect, for those that differ from their defaults.

    A setting of the scheme without effect is an error (:attr:`modalift.schemes.Scheme.unused_settings`). These are not, since
    a recipe may share its base with recipes of other views.
    """
    recipe, table, scheme = experiment.recipe, experiment.table, experiment.scheme
    read = {view: experiment.framings[view] for view in sorted(scheme.required_views())}
    kinds = {view: table.modality(view) for view in read}
    found = {effect.key: effect.reason for effect in augmentation(experiment) if effect.reason}
    found |= dict(_of_data(recipe, read, kinds))
    for name in ("", *recipe.optim.updates):
        section, where = recipe.optim, "optim"
        if name:
            given = recipe.optim.updates[name]
            section, where = OptimSection(**{**dict(section), "updates": {}, **given}), f"optim.updates.{name}"
        reasons = dict(_of_optim(section))
        found |= {f"{where}.{key}": reason for key, reason in reasons.items() if not name or key in given}
    deployed = {view for role in scheme.models() for view in scheme.evaluation_views(role)}
    found |= dict(_of_protocol(recipe, table, {view: read[view] for view in deployed & read.keys()}, kinds))
    for role, network in recipe.networks.items():
        if network.role and not (network.init or network.recipe):
            found[f"networks.{role}.role"] = f"networks.{role}.init is empty, so no network of a run is chosen"
    return found


def without_effect(unused: Mapping[str, str]) -> list[str]:
    """A line for each reason.

    Example:
        >>> without_effect({"data.augment.hue": "no view has 8-bit images in color"})
        ['data.augment.hue has no effect: no view has 8-bit images in color']
    """
    keys: dict[str, list[str]] = {}
    for key, reason in unused.items():
        keys.setdefault(reason, []).append(key)
    return [f"{', '.join(of)} {'has' if len(of) == 1 else 'have'} no effect: {reason}" for reason, of in keys.items()]


def augmentation(experiment: Experiment) -> list[Effect]:
    """What each key of ``data.augment`` that differs from its default changes."""
    augment, table = experiment.recipe.data.augment, experiment.table
    kinds = {view: table.modality(view) for view in sorted(experiment.scheme.required_views())}
    framings = {view: experiment.framings[view] for view in kinds}
    effects = []
    for key in changed(augment):
        if key == "flip":
            on, reason = _of_flip(experiment, kinds)
        else:
            views, reason = _of_augment(augment, key, kinds, framings)
            on = ", ".join(views)
        effects.append(Effect(f"data.augment.{key}", getattr(augment, key), on, "" if on else reason))
    return effects


def changed(section: Settings) -> list[str]:
    """The keys of a section whose values differ from their defaults."""
    fields = type(section).model_fields
    return [key for key, field in fields.items() if getattr(section, key) != field.get_default(call_default_factory=True)]


def _of_flip(experiment: Experiment, kinds: Mapping[str, Modality]) -> tuple[str, str]:
    table, dataset = experiment.table, experiment.recipe.data.dataset
    fixed = [view for view, kind in kinds.items() if kind.mirror == "never"]
    if fixed:
        return "", f"'{fixed[0]}' ({kinds[fixed[0]].name}) cannot be mirrored, and all views of a clip are mirrored together"
    if not table.mirrored:
        advice = " - name them in data.options.mirrored" if "mirrored" in datasets.options_of(dataset) else ""
        return "", f"no class has a mirrored counterpart{advice}"
    labels = {row.label for row in table.split("train")}
    mirrored = labels & table.mirrored.keys()
    if not mirrored and not (None in labels and len(table.mirrored) == len(table.classes)):
        return "", "no class of the training clips has a mirrored counterpart"
    return "all classes" if len(table.mirrored) == len(table.classes) else \
        f"{len(table.mirrored)} of {len(table.classes)} classes, which have a mirrored counterpart", ""


#: Keys of ``data.augment`` that change images only, and whose randomness lies in time.
_GEOMETRY = ("crop", "scale", "scales", "aspect", "rotate", "shift")
_TEMPORAL = ("speed", "warp")
#: Photometric key -> what a modality must allow, and the keys that `photometric` switches.
_LIGHT = {"brightness": "brightness", "contrast": "contrast", "saturation": "saturation", "hue": "saturation", "noise": "noise"}
_SWITCHED = ("brightness", "contrast", "saturation", "hue")


def _of_augment(augment: Augment, key: str, kinds: Mapping[str, Modality],
                framings: Mapping[str, Framing]) -> tuple[list[str], str]:
    """The views that a key changes, and why it is none."""
    images = {view: kind for view, kind in kinds.items() if kind.kind == "video"}
    signals = {view: kind for view, kind in kinds.items() if kind.kind == "signal"}
    if key == "scale" and augment.scales:
        return [], "data.augment.scales is used instead"
    if key in _GEOMETRY:
        return list(images), "no view is a video"
    if key in _TEMPORAL:
        return [view for view in kinds if framings[view].sampler != "whole"], "data.sampler=whole takes every frame"
    if key in ("depth_scale", "depth_offset"):
        return [view for view, kind in images.items() if "range" in kind.photometric], "no view is depth in millimeters"
    if key == "photometric":
        views = [view for other in _SWITCHED if getattr(augment, other) for view in _lit(other, images)]
        return list(dict.fromkeys(views)), f"none of {', '.join(_SWITCHED)} changes a view"
    if key in _LIGHT:
        if key in _SWITCHED and not augment.photometric:
            return [], "data.augment.photometric is 0"
        return _lit(key, images), ("no view has 8-bit images in color" if _LIGHT[key] == "saturation" else
                                   "no view has 8-bit images of light (rgb, gray, nir, thermal)")
    turned = [view for view, kind in signals.items() if kind.unit == "m" and kind.channels % 3 == 0]
    if key == "signal_rotate":
        return turned, "no view is joints"
    if key == "vertical":
        return turned if augment.signal_rotate else [], "data.augment.signal_rotate turns no joints"
    return list(signals), "no view is a signal"


def _lit(key: str, images: Mapping[str, Modality]) -> list[str]:
    color = _LIGHT[key] == "saturation"
    return [view for view, kind in images.items() if kind.dtype == "uint8" and _LIGHT[key] in kind.photometric
            and (kind.channels == 3 or not color)]


def _of_data(recipe: Recipe, framings: Mapping[str, Framing], kinds: Mapping[str, Modality]) -> Iterator[tuple[str, str]]:
    data = recipe.data
    for view in data.per_view:
        if view not in framings:
            yield f"data.per_view.{view}", "the scheme and its networks do not read this view"
    sections = [("data", data, framings)] + [
        (f"data.per_view.{view}", own, {view: framings[view]}) for view, own in data.per_view.items() if view in framings]
    for where, section, of in sections:
        given = [key for key in changed(section) if key in Framing.model_fields and (
            section is data or key in section.model_fields_set)]
        for key in given:
            if reason := _of_framing(key, of.values(), [kinds[view] for view in of]):
                yield f"{where}.{key}", reason
    if data.label_seed and data.labeled >= 1:
        yield "data.label_seed", "data.labeled is 1, so no labels are chosen"


def _of_framing(key: str, framings: Collection[Framing], kinds: Collection[Modality]) -> str:
    """Why a framing key changes none of some views; empty if it changes one."""
    samplers, images = {f.sampler for f in framings}, any(kind.kind == "video" for kind in kinds)
    if key == "stride" and "dense" not in samplers:
        return "data.sampler is not dense"
    if key == "pad" and samplers == {"segments"}:
        return "data.sampler=segments pads no clip"
    if key == "margin" and all(f.region != "valid" for f in framings):
        return "data.region is not valid"
    if key == "low_light_strength" and all(f.low_light == "none" for f in framings):
        return "data.low_light is none"
    if key in ("region", "fit", "crop_ratio") and not images:  # a size is given in most recipes
        return "no view is a video"
    return ""


def _of_optim(optim: OptimSection) -> Iterator[tuple[str, str]]:
    """Key -> why it has no effect, for the optimizer and the schedule of one update."""
    schedule, given = optim.schedule, changed(optim)
    used_by = {"momentum": ("name", "sgd"), "betas": ("name", "adamw"), "milestones": ("schedule", "step", "linear"),
               "gamma": ("schedule", "step", "plateau"), "patience": ("schedule", "plateau")}
    for key, (choice, *users) in used_by.items():
        if key in given and getattr(optim, choice) not in users:
            yield key, f"only {' and '.join(users)} use{'s' if len(users) == 1 else ''} it, and optim.{choice} is" \
                       f" {getattr(optim, choice)}"
    if optim.warmup and schedule == "onecycle":
        yield "warmup", "optim.schedule=onecycle has its own rise"
    reached = [m for m in optim.milestones if m < optim.epochs]
    if schedule == "step" and not reached:
        yield "schedule", f"step needs optim.milestones below optim.epochs ({optim.epochs})"
        if "gamma" in given:
            yield "gamma", "no milestone is reached"
    elif schedule == "step" and len(reached) < len(optim.milestones):
        yield "milestones", f"those from epoch {optim.epochs} on are not reached"
    elif schedule == "linear" and len(optim.milestones) > 1:
        yield "milestones", "optim.schedule=linear uses the first one only"


def _of_protocol(recipe: Recipe, table: Table, framings: Mapping[str, Framing],
                 kinds: Mapping[str, Modality]) -> Iterator[tuple[str, str]]:
    protocol = recipe.protocol
    if protocol.eval_every > 1 and not len(table.split("val")):
        yield "protocol.eval_every", "there are no validation clips"
    if protocol.spatial_crops > 1 and framings and all(kinds[view].kind == "signal" for view in framings):
        yield "protocol.spatial_crops", "no view of the networks that are evaluated is a video"
    if protocol.temporal_crops > 1 and framings and all(f.sampler == "whole" for f in framings.values()):
        yield "protocol.temporal_crops", "data.sampler=whole takes every frame"
