"""The parts of pages that are made from the code: every function without arguments is a part, `<!-- generated: NAME -->`."""

from __future__ import annotations

import ast
import inspect
import json
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from docstrings import PACKAGES, SOURCE, as_markdown, public
from typer.models import ArgumentInfo

from modalift.report.listing import listing

# ---- recipes ----------------------------------------------------------------------------------------------------------


def recipe_keys() -> str:
    """Every key of a recipe, a heading per section: type, range, default, meaning."""
    sections: dict[str, list[str]] = {}
    for row in listing("keys")[0]:
        key = row["key"]
        section = "data.augment" if key.startswith("data.augment.") else key.split(".")[0]
        required = row["default"] == "required"
        facts = ", ".join(filter(None, (row["type"], row["range"], "" if required else f"default `{row['default']}`")))
        needed = " **required**" if required else ""
        sections.setdefault(section, []).append(f"`{key}`{{ #{key.lower()} }} *{facts}*{needed}\n:   {row['description']}\n")
    return "\n".join(f"## {section}\n\n" + "\n".join(entries) for section, entries in sections.items())


def recipe_files() -> str:
    """The recipes that come with the package: a table per dataset."""
    rows = listing("recipes")[0]
    tables: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        dataset, _, name = named(str(row["recipe"])).partition("/")
        result = row["paper's result"]
        tables.setdefault(dataset, []).append((f"`{dataset}/{name}`", f"[`{row['scheme']}`](schemes/{row['scheme']}.md)",
                                               row["row"], f"{result:g} %" if isinstance(result, float) else result))
    heads = ("recipe", "scheme", "row of the paper", "its result")
    return "\n\n".join(f"### {dataset}\n\n{table(heads, found)}" for dataset, found in tables.items())


def named(recipe: str) -> str:
    """The name of a recipe, `dataset/row`, of its path."""
    return "/".join(Path(recipe).with_suffix("").parts[-2:])


# ---- the command line ---------------------------------------------------------------------------------------------------


def verbs() -> str:
    """Every verb: what it does, how it is called, its arguments and options, an example."""
    from modalift.cli import app

    groups: dict[str, list[Any]] = {}
    for verb in app.registered_commands:
        groups.setdefault(str(verb.rich_help_panel), []).append(verb)
    return "\n\n".join(f"## {group}\n\n" + "\n\n".join(map(one_verb, found)) for group, found in groups.items())


def one_verb(verb: Any) -> str:
    """A verb as a section, read from the signature of its function."""
    name = verb.name or verb.callback.__name__
    called, entries = [f"modalift {name}"], []
    for key, (hint, given) in parameters(verb.callback).items():
        parameter = inspect.signature(verb.callback).parameters[key]
        needed = parameter.default is parameter.empty
        many = typing.get_origin(plain_type(hint)) is list
        if isinstance(given, ArgumentInfo):
            shown = given.metavar or key.upper()
            called.append((shown if needed else f"[{shown}]") + ("..." if many else ""))
            facts = [] if needed else ["optional"]
        else:
            shown = ", ".join(given.param_decls or [f"--{key.replace('_', '-')}"])
            if plain_type(hint) is bool:
                shown += f" / --no-{key.replace('_', '-')}" if not given.param_decls else ""
                facts = ["on by default"] if parameter.default is True else []
            else:
                shown += f" {given.metavar or type_of(hint)}"
                facts = ["required"] if needed else [default_of(parameter.default)]
            if needed:
                called.append(shown.split(", ")[-1])  # the shortest form
        entries.append(f"`{shown}`{f' *{facts[0]}*' if facts and facts[0] else ''}\n:   {given.help or ''}\n")
    usage = " ".join([*called, "[OPTIONS]"])
    parts = [f"### {name}", plain(inspect.getdoc(verb.callback) or ""), f"```text\n{usage}\n```", "\n".join(entries)]
    if verb.epilog:
        parts.append("```bash\n" + "\n".join(re.findall(r"`(.+?)`", plain(verb.epilog))) + "\n```")
    return "\n\n".join(parts)


def parameters(function: Any) -> dict[str, tuple[Any, Any]]:
    """The type, and Typer's description, of every parameter that has one."""
    found = {}
    for key, hint in typing.get_type_hints(function, include_extras=True).items():
        if isinstance(hint, UnionType):  # `Annotated[...] | None`
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        if typing.get_origin(hint) is typing.Annotated:
            found[key] = typing.get_args(hint)[:2]
    return found


def plain_type(hint: Any) -> Any:
    """A type without None."""
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return parts[0] if isinstance(hint, UnionType) and len(parts) == 1 else hint


def type_of(hint: Any) -> str:
    """The placeholder of an option's value."""
    hint = plain_type(hint)
    if typing.get_origin(hint) is tuple:
        return " ".join(type_of(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return type_of(typing.get_args(hint)[0])
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(hint, "TEXT")


def plain(text: str) -> str:
    return " ".join(text.split())


def default_of(value: Any) -> str:
    if value is None or value == "":
        return ""
    return "default " + (" ".join(map(str, value)) if isinstance(value, tuple) else str(value))


# ---- what is registered -------------------------------------------------------------------------------------------------


def modalities() -> str:
    """Every modality: a section with its facts."""
    from modalift.derive import DERIVED
    from modalift.modalities import MODALITIES

    mirror = {"same": "the readings stay", "negate_x": "the sign of horizontal components changes", "never": "never"}
    rows, normal = [], []
    for name in MODALITIES:
        m = MODALITIES[name]
        made = f"`modalift derive {name}` from `{m.derived_from}`" if name in DERIVED else m.derived_from or ""
        rows.append((f"`{name}`", m.kind, m.channels or "as recorded", m.unit, f"{m.low:g} to {m.high:g}", m.dtype,
                     "" if m.invalid is None else f"{m.invalid:g}", made))
        normal.append((f"`{name}`", numbers(m.mean), numbers(m.std), ", ".join(m.photometric) or "none", mirror[m.mirror]))
    return (table(("modality", "kind", "channels", "unit", "range", "stored as", "invalid reading", "computed by"), rows)
            + "\n\n## Normalization and augmentation\n\n" + NORMALIZATION + "\n\n"
            + table(("modality", "mean", "standard deviation", "photometric augmentation", "when mirrored"), normal))


NORMALIZATION = """A network computes `(reading - mean) / std` itself, with constants that are saved beside its weights. These
are the defaults per channel, in the modality's unit. Photometric augmentation names the changes of
[`data.augment`](recipes.md#dataaugment) that make sense for the sensor."""


def numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def datasets() -> str:
    """Every dataset format: what it reads, its options."""
    from modalift.datasets import DATASETS

    return "\n\n".join(documented(name, DATASETS[name]) for name in DATASETS)


def derived_views() -> str:
    """Every derived view: what it computes, its options."""
    from modalift.derive import DERIVED

    return "\n\n".join(documented(name, DERIVED[name]) for name in DERIVED)


def documented(name: str, function: Any) -> str:
    """The docstring of a registered function and its options, as a section."""
    about, arguments = split_arguments(as_markdown(inspect.getdoc(function) or ""))
    parameters = inspect.signature(function).parameters
    given = {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY and key != "progress"}
    entries = []
    for names, meaning in arguments.items():
        options = [key for key in names if key in given]
        if options:
            defaults = list(dict.fromkeys(shown(given[key].default) for key in options))
            told = "" if defaults == ["null"] else f" *default {', '.join(f'`{d}`' for d in defaults)}*"
            entries.append(", ".join(f"`{key}`" for key in options) + f"{told}\n:   {meaning}\n")
    return f"### {name}\n\n{about}\n\n" + "\n".join(entries)


def split_arguments(text: str) -> tuple[str, dict[tuple[str, ...], str]]:
    """What a docstring says outside its sections, and what it says of arguments, by the names that it explains together."""
    blocks = re.split(r"^(?:Args|Raises|Returns|Examples|Attributes):\n(?: {4}.*\n|\n)+", text + "\n", flags=re.MULTILINE)
    about = "\n\n".join(filter(None, (block.strip() for block in blocks)))
    part = re.search(r"^Args:\n((?: {4}.*\n|\n)+)", text + "\n", re.MULTILINE)
    found: dict[tuple[str, ...], str] = {}
    for entry in re.finditer(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", part[1] if part else "", re.MULTILINE):
        found[tuple(entry[1].split(", "))] = " ".join(entry[2].split())
    return about, found


def shown(value: Any) -> str:
    return '""' if value == "" else json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


# ---- whole pages -----------------------------------------------------------------------------------------------------------


def api_page(package: str) -> str:
    """The page of a public package: what it holds, and everything in its `__all__`."""
    about = as_markdown(ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text())) or "")
    shown = "options: {show_root_heading: true, show_root_toc_entry: true}"
    parts = [f'<a id="modalift.{package}.{name}"></a>\n\n::: {path}\n    {shown}'
             for name, path in public(package).items()]
    return f"# modalift.{package}\n\n{about}\n\n" + "\n\n".join(parts) + "\n"


def packages() -> str:
    """The public packages with what each holds."""
    rows = [(f"[`modalift.{name}`]({name}.md)", ", ".join(f"`{each}`" for each in public(name))) for name in PACKAGES]
    return table(("package", "what it holds"), rows)


def notebook(path: Path) -> str:
    """A notebook as a page: its text and code, without outputs; lines that start with `!` are commands of a shell."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif all(line.startswith("!") for line in text.splitlines()):
            parts.append("```bash\n" + re.sub(r"^!", "", text, flags=re.MULTILINE) + "\n```")
        else:
            parts.append(f"```python\n{text}\n```")
    parts.insert(1, f"This page is the notebook `examples/{path.name}`.")
    return "\n\n".join(parts)
