"""The Recipe: the typed description of an experiment. An unknown key is an error that suggests the right one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator

from modalift import yaml_text
from modalift.errors import ModaliftError, nearest
from modalift.files import check_part, exists, expanded, read_text
from modalift.loading.framing import Augment, Framing, Protocol
from modalift.modalities import Modality
from modalift.overrides import key_values
from modalift.recipe_files import RecipeFile, find_recipe
from modalift.settings import Settings, explain
from modalift.signatures import Share
from modalift.values import FALSE

#: How far a recipe has been verified against its paper.
Level = Literal["builds", "equals the reference's forward pass", "trained on real data",
                "the paper's protocol reproduced"]


#: Words for none in a text that is empty for none, and those of a choice that can be switched off.
_NONE = ("none", "null", "~")
_OFF = (*_NONE, *FALSE)


def _or_none(given: Any, words: Collection[str]) -> Any:
    return "" if given is None or str(given).strip().lower() in words else given


class FramingChanges(Framing):
    """Different framing for one view; keys that are not given are those of ``data``."""

    @model_serializer
    def given(self) -> dict[str, Any]:
        """Only the keys that were given."""
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}


class DataSection(Framing):
    """The clips, and how they become a network's input."""

    dataset: str = Field("", description="a registered dataset, see `modalift list datasets`; empty: recognized by the files in"
                                         " `root`")
    root: Path = Field(description="folder of the dataset, or its manifest file")
    options: dict[str, Any] = Field(default_factory=dict, description="the dataset's own options, by name")
    modalities: list[str] = Field(default_factory=list, description="views that training may read; empty: all")
    per_view: dict[str, FramingChanges] = Field(default_factory=dict, description="per view, framing keys that differ")
    augment: Augment = Field(default_factory=Augment, description="random changes of training clips")
    labeled: float = Field(1.0, gt=0, le=1, description="share of the training clips whose labels are used, 0 to 1")
    label_seed: int = Field(0, description="seed of the choice of labeled clips")
    cache: str = Field("auto", description="where decoded frames are kept: `memory`; a folder that `modalift cache` writes;"
                                           " empty, `none` or `off`: nowhere, they are decoded at every read; `auto`: in memory"
                                           " if they fit into half of the free memory, else on the disk in `frames-*` beside"
                                           " `run.dir`")
    max_corrupt: float = Field(0.05, ge=0, le=1, description="a run stops if more than this share of clips is corrupt, 0 to 1")
    limit: int = Field(0, ge=0, description="largest number of clips per split; 0: all")

    @field_validator("cache", mode="before")
    @classmethod
    def _cache_or_none(cls, given: Any) -> Any:
        return _or_none(given, _OFF)

    def framing(self, view: str, modality: Modality) -> Framing:
        """The framing of a view of this modality."""
        own = self.per_view.get(view)
        keys = {key: getattr(self, key) for key in Framing.model_fields} | (own.given() if own else {})
        if modality.kind == "signal":
            keys |= {"size": 1, "region": "whole"}  # a signal has no image to crop
        return Framing(**keys)


class NetworkSection(Settings):
    """The network of one role: a family with its options, or the network of an earlier run."""

    model_config = ConfigDict(extra="allow")  # a family's own options; checked against its signature
    name: str = Field("", description="network family, see `modalift list networks`; empty: that of `init`")
    view: str = Field("", description="view of the data that it reads; empty: the only view")
    init: str = Field("", description="initial weights: a run folder, or a file of weights (with `name` and `view`); empty: the"
                                      " run of `recipe`, or without it random. `{seed}` and `{fold}` are replaced by the run's")
    role: str = Field("", description="which network of the run `init`, by its role there; empty: its only one, or `student`")
    recipe: str = Field("", description="the recipe that trains `init`, by name or file; without `init` its default run with"
                                        " this run's seed and fold")

    @field_validator("name", "view", "init", "role", "recipe", mode="before")
    @classmethod
    def _name_or_none(cls, given: Any) -> Any:
        return _or_none(given, _NONE)


class SchemeSection(Settings):
    """The scheme; its other keys are the arguments of its constructor."""

    model_config = ConfigDict(extra="allow")
    name: str = Field("single", description="training scheme, see `modalift list schemes`")


class OptimSection(Settings):
    """Optimizer, learning-rate schedule, batches and epochs."""

    name: Literal["adamw", "sgd"] = Field("adamw", description="optimizer")
    lr: float = Field(1e-3, gt=0, le=1e6, description="learning rate; with a schedule, its highest value")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of all parameters: decoupled with `adamw`, as an L2"
                                                       " penalty's gradient with `sgd`; 0: none")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of `sgd`; 0: none")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="decay rates of the two moments of `adamw`")
    epochs: int = Field(20, ge=1, description="number of passes over the training clips")
    batch: int = Field(16, ge=1, description="clips per batch and process")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged for one optimizer step")
    per_class: int = Field(1, ge=1, description="K of P x K sampling: that many clips of one class follow each other in a"
                                                " batch; 1: plain shuffling")
    schedule: Literal["constant", "step", "cosine", "linear", "onecycle", "plateau"] = Field(
        "cosine", description="learning rate over training: `constant`; `step` (times `gamma` at each milestone); `cosine` and"
                              " `linear` (down to 0); `onecycle` (up from 1/25 in the first 30 %, then down to 1e-4 of `lr`);"
                              " `plateau` (times `gamma` when the validation loss stops falling)")
    warmup: float = Field(0.0, ge=0, description="epochs of linear warm-up from 0, not with `onecycle`; 0: none")
    milestones: list[float] = Field(default_factory=list, description="epochs at which `step` multiplies by `gamma`; the"
                                                                      " first is where `linear` starts to fall")
    gamma: float = Field(0.1, gt=0, le=1, description="factor on the learning rate, with `step` and `plateau`")
    patience: int = Field(5, ge=1, description="epochs without a lower validation loss that `plateau` waits")
    clip_grad_norm: float = Field(0.0, ge=0, description="largest L2 norm of each network's gradient; larger ones are scaled"
                                                        " down; 0: no clipping")
    ema: float = Field(0.0, ge=0, lt=1, description="decay per step of the moving average of the students' weights,"
                                                   " which is what is evaluated and shipped; 0: no average")
    updates: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="per update, for schemes with several per step: keys of `optim` that differ")

    @model_validator(mode="after")
    def _updates_are_settings(self) -> OptimSection:
        shared = {"epochs", "batch", "accumulate", "per_class", "ema", "updates"}  # of the whole step, not of one update
        for name, given in self.updates.items():
            known = [k for k in type(self).model_fields if k not in shared]
            for key in given:
                if key not in known:
                    raise ModaliftError(f"unknown key 'optim.updates.{name}.{key}' - {nearest(key, known)}")
            own = OptimSection.parse({**self.model_dump(exclude={"updates"}), **given}, f"optim.updates.{name}")
            self.updates[name] = {k: getattr(own, k) for k in given}
        return self


class ProtocolSection(Protocol):
    """How models are evaluated and selected, and which clips are held out."""

    select: Literal["last", "best"] = Field("last", description="the checkpoint to ship: last, or best on validation")
    val_subjects: list[str] = Field(default_factory=list, description="training subjects whose clips are used for validation")
    folds: int = Field(0, ge=0, description="number of subject-disjoint folds of all clips, for cross-validation; 0: the"
                                             " dataset's splits")
    fold: int | None = Field(None, ge=0, description="run this fold only, counted from 0; by default all, one after the other")
    eval_every: int = Field(1, ge=1, description="epochs between evaluations on the validation split")

    def crops_only(self) -> Protocol:
        """The part that a trained model keeps: the crops that are averaged."""
        return Protocol(temporal_crops=self.temporal_crops, spatial_crops=self.spatial_crops)


class RunSection(Settings):
    """Output folder, seed and hardware."""

    dir: Path = Field(Path("runs/{recipe}/seed{seed}"), description="output folder of the run; `{recipe}`, `{seed}` and"
                                                                    " `{fold}` are replaced. With `protocol.fold` the default"
                                                                    " ends in `/fold{fold}`")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of initial weights, clip order and augmentation")
    device: str = Field("auto", description="`cpu`, `cuda`, `cuda:N`, or `auto`: a GPU if there is one")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="number format of training; `auto`: bf16 if the hardware supports it and a measured step is faster,"
                            " else fp32")
    workers: int = Field(0, ge=0, le=1024, description="processes that read clips, per training process; 0: the training"
                                                       " process itself")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads per process; 0: PyTorch's choice")
    sync_batchnorm: bool = Field(True, description="with several processes: BatchNorm statistics over the batches of all")
    checkpoint_every_s: float = Field(30.0, gt=0, description="seconds between checkpoints for resuming")
    tensorboard: bool = Field(False, description="also write the log for TensorBoard")


class PaperSection(Settings):
    """The row of a paper's table that a recipe reproduces."""

    title: str = Field("", description="the paper")
    table: str = Field("", description="number of the table")
    row: str = Field("", description="name of the row")
    metric: str = Field("", description="what the value measures, e.g. top-1")
    value: float | None = Field(None, description="the published value (accuracies in percent); null: none")
    level: Level = Field("builds", description="what has been shown so far")


class Recipe(Settings):
    """One experiment: a YAML file of these sections; overrides on the command line are ``section.key=value``."""

    data: DataSection
    networks: dict[str, NetworkSection]
    scheme: SchemeSection = Field(default_factory=SchemeSection)
    optim: OptimSection = OptimSection()
    protocol: ProtocolSection = ProtocolSection()
    run: RunSection = RunSection()
    paper: PaperSection = Field(default_factory=PaperSection)

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """A copy with some keys changed, e.g. ``{"run.dir": folder, "protocol.fold": 2}``, and validated again."""
        tree = self.model_dump()
        for key, value in changes.items():
            _set(tree, key.split("."), value)
        return parse_recipe(tree)

    def to_yaml(self) -> str:
        return yaml_text.dump(self.model_dump(mode="json"))


#: Overrides that shrink any recipe to a few seconds, to test that it runs.
TINY = ("optim.epochs=1", "protocol.eval_every=1", "optim.batch=4", "data.limit=8", "data.size=32", "data.frames=4",
        "run.workers=0", "run.precision=fp32")


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe: its ``base`` first, then the file, then overrides ``a.b=value``.

    Args:
        recipe: the name of a recipe of the package (``utd_mhad/distill_pose``), a YAML file, or a run folder, whose recipe's
            ``run.dir`` is that folder.
        overrides: changes, ``section.key=value``.

    Raises:
        ModaliftError: there is no such recipe, it is not YAML, a key is unknown (the message suggests the nearest one), or a
            value has the wrong type.
    """
    found = find_recipe(recipe)
    tree = _read(found)
    if found.run:
        _set(tree, ("run", "dir"), found.run)
    for key, value in key_values(overrides, "override", "section.key=value"):
        _set(tree, key.split("."), value)
    return parse_recipe(tree, str(recipe), found.name)


def parse_recipe(tree: Mapping[str, Any], source: str = "recipe", name: str = "recipe") -> Recipe:
    """Validates nested dictionaries as a Recipe.

    Args:
        tree: the sections.
        source: where they come from; named in errors.
        name: what ``{recipe}`` in ``run.dir`` stands for.
    """
    try:
        recipe = _checked(_filled(Recipe.model_validate(tree), name))
    except ValidationError as error:
        advice = "add it to the recipe or give {}=... on the command line"
        raise ModaliftError(f"{source}: {explain(error, Recipe, missing=advice)}") from None
    except ModaliftError as error:
        raise ModaliftError(f"{source}: {error}") from None
    return recipe


def _filled(recipe: Recipe, name: str) -> Recipe:
    """Replaces ``{recipe}``, ``{seed}`` and ``{fold}`` in paths, and fills in the runs of networks that name only a recipe.

    A student is so initialized from the teacher of its own seed and fold.
    """
    values = {"{recipe}": name, "{seed}": str(recipe.run.seed)}
    if recipe.protocol.fold is not None:
        values["{fold}"] = str(recipe.protocol.fold)

    def filled(text: str) -> str:
        for mark, value in values.items():
            text = text.replace(mark, value)
        return text

    networks = {}
    for role, section in recipe.networks.items():
        init = section.init
        if section.recipe and not init:
            try:
                init = _default_run(section.recipe, each_fold=recipe.protocol.folds > 0)
            except ModaliftError as error:
                raise ModaliftError(f"networks.{role}.recipe: {error}") from None
        networks[role] = section.replace(init=filled(init))
    folder = recipe.run.dir
    if "dir" not in recipe.run.model_fields_set and recipe.protocol.fold is not None:
        folder /= "fold{fold}"
    return recipe.model_copy(update={"run": recipe.run.replace(dir=Path(filled(str(folder)))), "networks": networks})


def _default_run(recipe: str, each_fold: bool) -> str:
    """The run folder of another recipe without overrides; ``{seed}`` and ``{fold}`` stand for those of the run."""
    found = find_recipe(recipe)
    if found.run:
        return str(found.run)
    run = _read(found).get("run")
    given = run.get("dir") if isinstance(run, dict) else None
    folder = str(given or RunSection.model_fields["dir"].default).replace("{recipe}", found.name)
    return f"{folder}/fold{{fold}}" if each_fold and "{fold}" not in folder else folder


def _read(recipe: RecipeFile, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The sections of a recipe's file, over those of its base."""
    path = recipe.path
    text = read_text(path)
    try:
        tree = yaml_text.parse(text)
    except ModaliftError as error:
        raise ModaliftError(f"{path}: is not valid YAML - {error}") from None
    if not isinstance(tree, dict):
        raise ModaliftError(f"{path}: a recipe is a mapping with the sections data, networks, scheme, optim, ...")
    base = tree.pop("base", None)
    if base in (None, *yaml_text.NULLS):
        return tree
    if path.resolve() in seen:
        raise ModaliftError(f"{path}: its base files form a circle - remove one base")
    try:
        under = find_recipe(str(base), beside=path.parent)
    except ModaliftError as error:
        raise ModaliftError(f"{path}: base: {error}") from None
    return _merge(_read(under, (*seen, path.resolve())), tree)


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and value == "":
            continue  # a section without keys changes none
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    if len(keys) > yaml_text.DEPTH:
        raise ModaliftError(f"unknown key '{'.'.join(keys[:3])}. ...' - keys have at most {yaml_text.DEPTH} parts")
    for key in keys[:-1]:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    tree[keys[-1]] = value


def _checked(recipe: Recipe) -> Recipe:
    """Checks names and options that the registries define; the options get the types that they are defined with."""
    from modalift import datasets, networks, schemes

    data = recipe.data
    sections: dict[str, NetworkSection] = {}
    name = data.dataset or (datasets.guess(data.root) if exists(expanded(data.root)) else "")
    if name:
        data = data.model_copy(update={"dataset": name, "options": datasets.check_options(name, data.options)})
    for role, section in recipe.networks.items():
        check_part(role, f"networks.{role}")  # of models/<role>.modalift
        options = section.model_extra or {}
        if not section.name and not section.init:
            raise ModaliftError(f"networks.{role} has neither name nor init - add networks.{role}.name")
        for key in options if not section.name else ():
            raise ModaliftError(f"unknown key 'networks.{role}.{key}' for a network that comes from a run"
                                f" - {nearest(key, NetworkSection.model_fields)}")
        if section.name:
            options = networks.check_options(section.name, options, f"networks.{role}")
        sections[role] = section.replace(**options)
    settings = schemes.check_settings(recipe.scheme.name, recipe.scheme.model_extra or {})
    named, more = schemes.roles_of(recipe.scheme.name)
    for role in named:
        if role not in recipe.networks:
            raise ModaliftError(f"scheme '{recipe.scheme.name}' needs a network in the role '{role}'"
                                f" - add networks.{role}")
    known = (*named, *schemes.optional_roles_of(recipe.scheme.name))
    extra = set(recipe.networks) - set(known)
    if extra and not more:
        raise ModaliftError(f"scheme '{recipe.scheme.name}' has no role '{sorted(extra)[0]}'"
                            f" - {nearest(sorted(extra)[0], known)}")
    return recipe.model_copy(update={"data": data, "networks": sections, "scheme": recipe.scheme.replace(**settings)})
