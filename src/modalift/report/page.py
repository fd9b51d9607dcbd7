"""The page of one run: the deployed network and its results, its teachers, the training, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modalift.engine.run import Run
from modalift.engine.tables import open_table
from modalift.errors import ModaliftError
from modalift.files import write_text
from modalift.modalities import Table
from modalift.recipe import load_recipe
from modalift.report import html, scope
from modalift.report import results as tables
from modalift.report.charts import curves
from modalift.report.clips import CHANGED, Sample, choose_clips, gallery, same_recordings, sample_clips
from modalift.report.explain import who
from modalift.report.extras import extras_of
from modalift.report.html import Raw, esc, fold, missing, pairs
from modalift.report.numbers import duration, figure_of, percent, quantity, shown
from modalift.report.record import DeployableNetwork, Record, read_record

CLIPS = 8


def write_report(run: str | Path, *, table: Table | None = None, samples: Sequence[Sample] | None = None) -> Path:
    """Writes ``report.html`` into a run folder: one file that loads nothing from other hosts.

    The run may be unfinished, without a validation split, or not evaluated; the page then says what is missing and which
    command creates it.

    Args:
        run: the run folder.
        table: the clips to choose from; by default the recipe's, if its data still exist.
        samples: clips to show instead, from :func:`modalift.report.clips.sample_clips`.

    Raises:
        ModaliftError: not a run folder, or the page cannot be written.
    """
    record = read_record(run)
    shown, why = (list(samples), "") if samples is not None else _samples(record, table)
    page = render(record, shown, why)
    return write_text(Run(record.folder).report_path, page)


def render(record: Record, samples: Sequence[Sample], why: str = "") -> str:
    """Renders the page as HTML; ``why`` tells the reason if there are no samples."""
    top = record.headline()
    note = ("Selected at random, one from each interval of brightness if it is known, without regard to the predictions."
            " All sensors recorded the same moment.")
    clips = gallery(samples, note) or missing(why or "There are no clips to show.")
    return html.document(record.name, "run report", _summary(record, top), [
        ("results", "Results", "Results", _results(record, top)),
        ("networks", "Networks, and which teaches which", "Networks", _networks(record)),
        ("clips", "Sample clips and their predictions", "Clips", clips),
        ("training", "Training", "Training", curves(record)),
        ("details", "Evaluation in detail", "Details", _details(record, top)),
        ("recipe", "Recipe", "Recipe", _recipe(record)),
        ("ledger", "Evaluations on the test split", "Ledger", _ledger(record)),
        ("environment", "Software and hardware", "Environment", _environment(record)),
    ], _tiles(record, top))


def _samples(record: Record, table: Table | None) -> tuple[list[Sample], str]:
    """The clips to show, or the reason why there are none."""
    try:
        table = table or open_table(load_recipe(record.folder))
        split = (record.headline() or ("", "test"))[1]
        part = table.split(split) if len(table.split(split)) else table
        predictions = {r: p for r in record.networks if (p := record.predictions(r, split)) is not None}
        if not same_recordings(part, predictions.values()):
            return [], CHANGED
        return sample_clips(part, choose_clips(part, CLIPS), predictions=predictions), ""
    except ModaliftError as error:
        return [], f"No clips are shown, because the data could not be opened: {error}"


# ---- the head -------------------------------------------------------------------------------------------------------


def _summary(record: Record, top: tuple[str, str] | None) -> str:
    state = _state(record)
    if top is None:
        return f"{state} {'No clip could be scored.' if record.results else 'No network of this run has been evaluated yet.'}"
    role, split = top
    shipped = record.networks.get(role)
    reads = f"reads one sensor, <b>{esc(shipped.view)}</b>" if shipped else "was evaluated"
    metrics = record.results[role][split]
    warned = f"{html.warning(text)} " if (text := scope.warning(metrics)) else ""
    return f"{warned}{state} <b>{esc(role)}</b> {reads}. {tables.sentence(metrics, split)}"


def _state(record: Record) -> str:
    done, planned = len(record.epochs), record.planned
    if record.networks:
        return '<span class="badge good">finished</span>'
    if not done and not record.steps:
        return '<span class="badge soft">not started</span> No epoch has been logged.'
    last = 1 + max((e.get("epoch") or 0 for e in record.epochs), default=-1)
    of = f" of {planned}" if planned else ""
    return (f'<span class="badge bad">not finished</span> The last complete epoch is {last}{of}; run the'
            " same <code>modalift train</code> command again to resume from the last checkpoint.")


def _tiles(record: Record, top: tuple[str, str] | None) -> str:
    entries: list[tuple[str, str]] = []
    if top:
        role, split = top
        entries += tables.tiles(record.results[role][split], split)
        shipped = record.networks.get(role)
        if shipped and shipped.parameters is not None:
            entries.append((quantity(shipped.parameters), f"parameters of {role}"))
            entries.append((quantity(shipped.macs), "multiply-accumulates per clip"))
    if seconds := record.compute.get("seconds") or (record.epochs[-1].get("seconds") if record.epochs else None):
        entries.append((duration(seconds), f"training, {len(record.epochs)} epoch{'s' * (len(record.epochs) != 1)}"))
    return html.tiles(entries) if entries else ""


# ---- sections -------------------------------------------------------------------------------------------------------


def _results(record: Record, top: tuple[str, str] | None) -> str:
    notes = "".join(missing(p) for p in record.problems)
    if not record.results:
        todo = "modalift eval" if record.networks else "modalift train, then modalift eval"
        return missing(f"There are no results yet: run {todo} first.") + notes
    body = ""
    for members in tables.grouped(((role, split), m) for role, splits in record.results.items() for split, m in splits.items()):
        rows = [(", ".join(names), m) for names, m in members]
        body += html.warnings(scope.warnings(rows))
        body += tables.page_table(members) + "".join(f"<p>{esc(line)}</p>" for line in scope.notes(rows))
        if said := extras_of(members[0][1]).note([m for _, m in members]):
            body += f'<p class="note">{esc(said)}</p>'
    return body + notes


def _details(record: Record, top: tuple[str, str] | None) -> str:
    """The charts of the first network, and those of the others in expandable sections."""
    if top is None:
        return ""
    role, split = top
    body = extras_of(record.results[role][split]).charts(record.results[role][split])
    for other, splits in record.results.items():
        if other != role and (found := splits.get(split)) and found["n"] and (more := extras_of(found).charts(found)):
            body += fold(f"the same for {other}", more)
    return body


def _networks(record: Record) -> str:
    sections = record.section("networks")
    if not sections:
        return missing("The recipe could not be read, so the networks are unknown.")
    terms, weights = _terms(record)
    learners = {_roles(t)[1] for t in terms}
    cards = []
    for role, section in sections.items():
        section = section if isinstance(section, dict) else {}
        shipped = record.networks.get(role)
        tags = [("deployed", "good")] if shipped else [("training only", "soft")] if record.networks else []
        tags += [("trained", "soft") if role in learners else ("frozen", "soft")] if learners else []
        badges = " ".join(f'<span class="badge {c}">{t}</span>' for t, c in tags)
        shipped = shipped or _from_run(section)
        view, family = section.get("view"), section.get("name")
        if shipped:
            view, family = shipped.view, str(shipped.config.get("name"))
        facts = [(k, v) for k, v in (("view", view), ("network", family), ("initialized from", section.get("init"))) if v]
        if shipped and shipped.parameters is not None:
            facts.append(("cost", f"{shipped.parameters:,} parameters, {quantity(shipped.macs)} MACs per clip"))
        cards.append(f'<div class="card"><h3>{esc(role)}</h3>{badges}{pairs(facts)}</div>')
    return f'<div class="grid">{"".join(cards)}</div>' + _terms_card(terms, weights)


def _from_run(section: Mapping[str, Any]) -> DeployableNetwork | None:
    """A teacher's network, from the run that trained it, if that still exists."""
    init = Path(str(section.get("init") or ""))
    try:
        found = read_record(init).networks if section.get("init") and init.is_dir() else {}
    except ModaliftError:
        return None
    return found.get(str(section.get("role") or "student")) or next(iter(found.values()), None)


def _terms_card(terms: Mapping[str, float], weights: Mapping[str, Sequence[float]]) -> str:
    if not terms:
        return missing("No loss term has been logged yet, so which network teaches which is not known from this run.")
    lines = []
    for term, value in terms.items():
        used = [w for w in weights.get(term, ()) if w]
        weight = "logged only" if not used else f"weight {used[-1]:g}"
        teacher, learner = _roles(term)
        arrow = f"<b>{esc(teacher)}</b> <i>→</i> <b>{esc(learner)}</b>"
        lines.append(f'<div class="arrow" title="{esc(who(term))}"><span>{arrow}</span><span class="soft">{esc(term)}'
                     f" · {weight} · value at the end {value:.3g}</span></div>")
    return f'<div class="card">{"".join(lines)}</div>'


def _terms(record: Record) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The last raw value of each term, and its weights over time."""
    entries = record.epochs or record.steps
    weights: dict[str, list[float]] = {}
    for entry in entries:
        for term, weight in (entry.get("weights") or {}).items():
            weights.setdefault(term, []).append(float(weight))
    last = entries[-1].get("terms") if entries else None
    return {k: float(v) for k, v in (last or {}).items()}, weights


def _roles(term: str) -> tuple[str, str]:
    """The teacher and the learner in a term's name: ``mgcam/teacher>student``, ``ce/student``."""
    teacher, arrow, learner = term.partition("/")[2].partition(">")
    return (teacher.replace("+", " and "), learner) if arrow else ("labels", teacher or term)


def _recipe(record: Record) -> str:
    if not record.recipe:
        return missing("recipe.yaml is missing or could not be read.")
    data, optim, scheme = (record.section(s) for s in ("data", "optim", "scheme"))
    protocol, paper = record.section("protocol"), record.section("paper")
    settings = ", ".join(f"{k} = {figure_of(v)}" for k, v in scheme.items() if k != "name")
    entries: list[tuple[str, Any]] = [
        ("scheme", f"{scheme.get('name', '?')}{f' ({settings})' if settings else ''}"),
        ("data", f"{data.get('dataset', '?')}: {data.get('root', '?')}"),
        ("clip", f"{data.get('frames', '?')} frames of {data.get('size', '?')} pixels, sampler {data.get('sampler', '?')}"),
        ("optimizer", f"{optim.get('name', '?')}, learning rate {figure_of(optim.get('lr'))}, {optim.get('schedule', '?')},"
                      f" batch {optim.get('batch', '?')}, {optim.get('epochs', '?')} epochs"),
        ("evaluation", f"temporal crops: {protocol.get('temporal_crops', 1)},"
                       f" spatial crops: {protocol.get('spatial_crops', 1)};"
                       f" deployed: the {protocol.get('select', 'last')} checkpoint"),
    ]
    if (share := data.get("labeled", 1)) != 1:
        entries.insert(2, ("labels", f"used for {percent(share)} of the training clips"))
    if paper.get("title"):
        aim = f", which reports {figure_of(paper['value'])}" if paper.get("value") is not None else ""
        entries.append(("reproduces", f"{paper['title']}, {paper.get('table', '')} {paper.get('row', '')}{aim}"
                                   f" (level reached: {paper.get('level', '?')})"))
    return pairs(entries) + fold("the whole recipe", f"<pre>{esc(record.recipe_text)}</pre>")


def _ledger(record: Record) -> str:
    if not record.ledger:
        return missing("The test split has not been evaluated.")
    keys = list(dict.fromkeys(k for e in record.ledger for k in e))
    known = {k: column for k in keys if (column := tables.column_of(k))}
    titles = {"table": "data fingerprint", "left_out": "clips left out"}
    head = [known[k].title if k in known else titles.get(k, k) for k in keys]
    rows = [[shown(e.get(k), known[k].format) if k in known else figure_of(e.get(k)) for k in keys] for e in record.ledger]
    times = len({e.get("when") for e in record.ledger})
    often = "once" if times == 1 else f"{times} times"
    return (f"<p>The test split was evaluated {often}. If models are selected by their results on it, these results are too"
            f" optimistic.</p>{html.table(head, rows)}")


def _environment(record: Record) -> str:
    entries = [(k, figure_of(v)) for k, v in record.environment.items()]
    if macs := record.compute.get("training_macs"):
        entries.append(("training cost", f"{quantity(macs)} multiply-accumulates, including the training of its teachers"))
    body = pairs(entries) if entries else missing("environment.json is missing, so versions and hardware are unknown.")
    left = record.compute.get("left_out") or {}
    if left:
        rows = html.table(("clip", "why"), [(k, Raw(esc(v))) for k, v in left.items()])
        body += fold(f"unreadable clips of all splits, left out: {len(left)}", rows)
    return body
