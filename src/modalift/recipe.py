"""The Recipe: what an experiment is, typed; a wrong key is answered with the right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_serializer, model_validator

from modalift.errors import ModaliftError, nearest
from modalift.loading.framing import Augment, Framing, Protocol
from modalift.modalities import Modality
from modalift.overrides import key_values
from modalift.settings import Settings, explain

#: How far a recipe's claim to its paper has been shown.
Level = Literal["builds", "equals the reference's forward pass", "trained on real data",
                "the paper's protocol reproduced"]


class FramingChanges(Framing):
    """Other framing for one view: only the keys that are given count, the others are those of ``data``."""

    @model_serializer
    def given(self) -> dict[str, Any]:
        """The keys that were given."""
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}


class DataSection(Framing):
    """Which clips, and how they become a network's input."""

    dataset: str = Field("folder", description="a registered dataset; `modalift list datasets`")
    root: Path = Field(description="folder or manifest that the dataset reads")
    options: dict[str, Any] = Field(default_factory=dict, description="the dataset's own options")
    modalities: list[str] = Field(default_factory=list, description="views that training may read; empty: all")
    per_view: dict[str, FramingChanges] = Field(default_factory=dict, description="other framing for a view")
    augment: Augment = Field(default_factory=Augment, description="random changes of training clips")
    labeled: float = Field(1.0, gt=0, le=1, description="share of the training clips whose labels are used")
    label_seed: int = Field(0, description="which clips these are")
    cache: str = Field("memory", description="`memory`, a folder for decoded frames, or empty to decode at every read")
    max_corrupt: float = Field(0.05, ge=0, le=1, description="largest share of corrupt clips before a run stops")
    limit: int = Field(0, ge=0, description="largest number of clips per split (0: all)")

    def framing(self, view: str, modality: Modality) -> Framing:
        """How a view of this modality is framed."""
        own = self.per_view.get(view)
        keys = {key: getattr(self, key) for key in Framing.model_fields} | (own.given() if own else {})
        if modality.kind == "signal":
            keys |= {"size": 1, "region": "whole"}  # a signal has no picture to crop
        return Framing(**keys)


class NetworkSection(Settings):
    """The network of one role: a family with its options, or the network of an earlier run."""

    model_config = ConfigDict(extra="allow")  # a family's own options; checked against its signature
    name: str = Field("", description="a registered network; `modalift list networks`")
    view: str = Field("", description="the view that it reads")
    init: str = Field("", description="a run folder or a weights file to start from")
    role: str = Field("", description="the role in that run, where it trained several")
    recipe: str = Field("", description="the recipe that makes `init`")


class SchemeSection(Settings):
    """Which scheme; its other keys are its constructor's arguments."""

    model_config = ConfigDict(extra="allow")
    name: str = Field("single", description="a registered scheme; `modalift list schemes`")


class OptimSection(Settings):
    """Optimization."""

    name: Literal["adamw", "sgd"] = Field("adamw", description="optimizer")
    lr: float = Field(1e-3, gt=0, description="learning rate; the largest one of a schedule")
    weight_decay: float = Field(0.0, ge=0, description="of `adamw` decoupled, of `sgd` added to the gradient")
    momentum: float = Field(0.9, ge=0, lt=1, description="of `sgd`")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of `adamw`")
    epochs: int = Field(20, ge=1, description="passes over the training clips")
    batch: int = Field(16, ge=1, description="clips per batch, in each process")
    accumulate: int = Field(1, ge=1, description="batches per step")
    per_class: int = Field(1, ge=1, description="clips of one class that come together in a batch (P x K sampling)")
    schedule: Literal["constant", "step", "cosine", "linear", "onecycle", "plateau"] = Field(
        "cosine", description="learning rate over training")
    warmup: float = Field(0.0, ge=0, description="epochs of linear warm-up")
    milestones: list[float] = Field(default_factory=list, description="epochs at which `step` multiplies by gamma; where"
                                                                      " `linear` begins to fall")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of `step` and `plateau`")
    patience: int = Field(5, ge=1, description="epochs without progress before `plateau` multiplies by gamma")
    clip: float = Field(0.0, ge=0, description="largest gradient norm of each network; 0: none")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the students' moving average; 0: none")
    updates: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="other settings for one of several updates per step")

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
    """How it is evaluated, and which clips are held out for validation and test."""

    select: Literal["last", "best"] = Field("last", description="which checkpoint ships; best: on validation")
    val_subjects: list[str] = Field(default_factory=list, description="training subjects held out for validation")
    folds: int = Field(0, ge=0, description="cross-validation: subject-disjoint folds of all clips")
    fold: int | None = Field(None, ge=0, description="one fold only; by default all of them, one after the other")
    eval_every: int = Field(1, ge=1, description="epochs between evaluations on the validation split")

    def crops_only(self) -> Protocol:
        """The part that a trained model keeps: which crops are averaged."""
        return Protocol(temporal_crops=self.temporal_crops, spatial_crops=self.spatial_crops)


class RunSection(Settings):
    """Where and on what it runs."""

    dir: Path = Path("runs/run")
    seed: int = Field(0, ge=0, lt=2**32)
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the hardware multiplies it and a step is measured to be faster, else fp32")
    workers: int = Field(0, ge=0)
    threads: int = Field(0, ge=0, description="CPU threads; 0: as torch decides")
    joint_norm: bool = Field(True, description="of several processes: batch statistics over the clips of all of them")
    save_s: float = Field(30.0, gt=0, description="seconds between checkpoints")
    tensorboard: bool = False


class PaperSection(Settings):
    """The row of a paper's table that a recipe aims at."""

    title: str = ""
    table: str = ""
    row: str = ""
    metric: str = ""
    value: float | None = None
    level: Level = "builds"


class Recipe(Settings):
    """One experiment. See README for the file form; overrides on the command line are ``section.key=value``."""

    data: DataSection
    networks: dict[str, NetworkSection]
    scheme: SchemeSection = Field(default_factory=SchemeSection)
    optim: OptimSection = OptimSection()
    protocol: ProtocolSection = ProtocolSection()
    run: RunSection = RunSection()
    paper: PaperSection = Field(default_factory=PaperSection)

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with some keys changed, e.g. ``{"run.dir": folder, "protocol.fold": 2}``, and checked again."""
        tree = self.model_dump()
        for key, value in changes.items():
            _set(tree, key.split("."), value)
        return parse_recipe(tree)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


#: Overrides that shrink any recipe to seconds, for tests of its wiring.
TINY = ("optim.epochs=1", "optim.batch=4", "data.limit=8", "data.size=32", "data.frames=4", "run.workers=0",
        "run.precision=fp32")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file (or a run folder), its ``base`` file first, then overrides ``a.b=value``.

    Raises:
        ModaliftError: no such file, not YAML, an unknown key (with the nearest known one), or a wrong type.
    """
    tree = _read(Path(path))
    for key, value in key_values(overrides, "override", "section.key=value"):
        _set(tree, key.split("."), value)
    return parse_recipe(tree, str(path))


def parse_recipe(tree: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A checked Recipe from nested dictionaries."""
    try:
        recipe = _filled(Recipe.model_validate(tree))
        _check_names(recipe)
    except ValidationError as error:
        advice = "add it to the recipe or give {}=... on the command line"
        raise ModaliftError(f"{source}: {explain(error, Recipe, missing=advice)}") from None
    except ModaliftError as error:
        raise ModaliftError(f"{source}: {error}") from None
    return recipe


def _filled(recipe: Recipe) -> Recipe:
    """``{seed}`` and ``{fold}`` in paths become the run's, so that a student finds the teacher of its own seed."""
    values = {"{seed}": str(recipe.run.seed)}
    if recipe.protocol.fold is not None:
        values["{fold}"] = str(recipe.protocol.fold)

    def filled(text: str) -> str:
        for mark, value in values.items():
            text = text.replace(mark, value)
        return text

    networks = {role: section.replace(init=filled(section.init)) for role, section in recipe.networks.items()}
    run = recipe.run.replace(dir=Path(filled(str(recipe.run.dir))))
    return recipe.model_copy(update={"run": run, "networks": networks})


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.is_dir():
        path = path / "recipe.yaml"
    if not path.is_file():
        raise ModaliftError(f"{path}: no such recipe - `modalift list recipes` shows those that come with Modalift")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ModaliftError(f"{path}: not YAML - {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise ModaliftError(f"{path}: a recipe is a mapping with the sections data, networks, scheme, optim, ...")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if path in seen:
        raise ModaliftError(f"{path}: its base leads back to itself")
    return _merge(_read(path.parent / str(base), (*seen, path)), tree)


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    tree[keys[-1]] = value


def _check_names(recipe: Recipe) -> None:
    """Names and options that only the registries know."""
    from modalift import networks, schemes
    from modalift.datasets import DATASETS

    DATASETS[recipe.data.dataset]
    for role, section in recipe.networks.items():
        if not section.name and not section.init:
            raise ModaliftError(f"networks.{role} has neither a name nor an init - add networks.{role}.name")
        if section.name:
            networks.check_options(section.name, section.model_extra or {}, f"networks.{role}")
        for key in section.model_extra or {} if not section.name else ():
            raise ModaliftError(f"unknown key 'networks.{role}.{key}' for a network that comes from a run"
                                f" - {nearest(key, NetworkSection.model_fields)}")
    schemes.check_settings(recipe.scheme.name, recipe.scheme.model_extra or {})
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


def find_recipes(folders: Iterable[Path]) -> list[Path]:
    """Recipe files below the folders, those that start with ``_`` (bases of others) left out."""
    return sorted(p for f in folders for p in Path(f).rglob("*.yaml") if not p.name.startswith("_"))
