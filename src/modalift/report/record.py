"""Reads a run folder such that missing, partly written or damaged files do not prevent a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalift import networks, yaml_text
from modalift.engine.provenance import belongs
from modalift.engine.run import Run
from modalift.errors import ModaliftError
from modalift.files import is_file, is_folder, parse_json, read_text
from modalift.models import KINDS, Predictions, read_document
from modalift.networks import cost
from modalift.report.results import headline_value


@dataclass(frozen=True)
class DeployableNetwork:
    """A network that can be deployed: the header of its file, and its cost."""

    role: str
    config: dict[str, Any]
    classes: tuple[str, ...]
    parameters: int | None = None
    macs: int | None = None

    @property
    def view(self) -> str:
        return str(self.config.get("view", "?"))


@dataclass(frozen=True)
class Record:
    """The content of one run folder, as far as it exists.

    Attributes:
        folder: the run folder.
        recipe: nested dictionaries, empty if the file is missing; ``recipe_text`` is the text of the file.
        steps, epochs: entries of ``log.jsonl``.
        results: role -> split -> metrics.
        networks: role -> deployable network.
        ledger: evaluations on the test split.
        environment, compute: contents of these files.
        problems: messages about what could not be read.
    """

    folder: Path
    recipe: dict[str, Any]
    recipe_text: str
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    results: dict[str, dict[str, dict[str, Any]]]
    networks: dict[str, DeployableNetwork]
    ledger: list[dict[str, Any]]
    environment: dict[str, Any]
    compute: dict[str, Any]
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run's short name."""
        return Run(self.folder).short_name

    @property
    def planned(self) -> int | None:
        """Number of epochs in the recipe."""
        return self.section("optim").get("epochs")

    def section(self, name: str) -> dict[str, Any]:
        found = self.recipe.get(name)
        return found if isinstance(found, dict) else {}

    def headline(self, split: str = "", role: str = "") -> tuple[str, str] | None:
        """The (role, split) to show first: those given, else the student on test, else the best deployable network."""
        roles = [r for r in self.results if self.results[r] and (not role or r == role)]
        for wanted in ([split] if split else ["test", "val", "train"]):
            having = [r for r in roles if self.results[r].get(wanted, {}).get("n")]
            if having:
                best = max(having, key=lambda r: (r == "student", r in self.networks, headline_value(self.results[r][wanted])))
                return best, wanted
        return None

    def predictions(self, role: str, split: str) -> Predictions | None:
        path = Run(self.folder).predictions_path(role, split)
        if not path.is_file():
            return None
        try:
            found = Predictions.load(path)
            return found if belongs(Run(self.folder), role, found.evidence) else None
        except ModaliftError as error:
            self.problems.append(str(error))
            return None


def read_record(folder: str | Path) -> Record:
    """Reads everything in a run folder.

    Raises:
        ModaliftError: the folder does not exist, or is not a run folder.
    """
    folder = Path(folder)
    run = Run(folder)
    if not is_folder(folder):
        raise ModaliftError(f"{folder}: no such run folder")
    if not any(is_file(path) for path in (run.recipe_path, run.log_path, run.results_path)):
        raise ModaliftError(f"{folder}: not a run folder (no recipe.yaml, log.jsonl or results.json in it)")
    problems: list[str] = []
    text = _text(run.recipe_path)
    try:
        recipe = yaml_text.resolved(yaml_text.parse(text))
    except ModaliftError as error:
        recipe = {}
        problems.append(f"recipe.yaml is not valid YAML: {error}")
    entries = _lines(run.log_path, problems)
    steps = {(e.get("epoch"), e.get("step")): e for e in entries if e.get("kind") == "step"}
    epochs = {e.get("epoch"): e for e in entries if e.get("kind") == "epoch"}
    return Record(
        folder, recipe if isinstance(recipe, dict) else {}, text, list(steps.values()), list(epochs.values()),
        _results(run, problems), _networks(run, problems), _lines(run.ledger_path, problems),
        _object(run.environment_path, problems), _object(run.compute_path, problems), problems)


def _text(path: Path) -> str:
    try:
        return read_text(path, errors="replace")
    except ModaliftError:
        return ""


def _object(path: Path, problems: list[str]) -> dict[str, Any]:
    text = _text(path)
    if not text:
        return {}
    try:
        found = parse_json(text)
    except ValueError:
        problems.append(f"{path.name} is damaged; it was left out.")
        return {}
    return found if isinstance(found, dict) else {}


def _results(run: Run, problems: list[str]) -> dict[str, Any]:
    """``results.json`` without the figures of other weights than those of the run's models."""
    kept: dict[str, Any] = {}
    for role, splits in _object(run.results_path, problems).items():
        for key, metrics in splits.items() if isinstance(splits, dict) else ():
            try:
                own = not isinstance(metrics, dict) or belongs(run, role, metrics.get("evidence"))
            except ModaliftError:  # a model that is missing or damaged is reported with the networks
                own = False
            if own:
                kept.setdefault(role, {})[key] = metrics
            else:
                problems.append(f"The results of '{role}' on {key} are not those of its present weights; they are left out. Run"
                                f" modalift eval {run.folder} again.")
    return kept


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Reads JSON lines; an incomplete last line (of a killed run) is ignored, other damaged lines are counted."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    found, broken = [], 0
    for k, line in enumerate(lines):
        try:
            entry = parse_json(line)
            if not isinstance(entry, dict):
                raise ValueError
            found.append(entry)
        except ValueError:
            broken += k < len(lines) - 1
    if broken:
        problems.append(f"{path.name}: {broken} lines could not be read; they were left out.")
    return found


def _networks(run: Run, problems: list[str]) -> dict[str, DeployableNetwork]:
    found = {}
    for path in run.model_paths():
        role = path.stem
        try:
            document = read_document(path)
        except ModaliftError as error:
            problems.append(str(error))
            continue
        if not KINDS[document["kind"]].deployable:
            continue
        config, classes = document["network"], tuple(document["classes"])
        try:
            net = networks.build(**config)
            spent = cost(net, frames=net.frames, size=net.size)
            found[role] = DeployableNetwork(role, config, classes, spent.parameters, spent.macs)
        except (ModaliftError, TypeError):  # a network family of a plugin that is not loaded
            problems.append(f"The cost of '{role}' is unknown: no network '{config.get('name')}' is registered here.")
            found[role] = DeployableNetwork(role, config, classes)
    return found
