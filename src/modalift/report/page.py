"""The page of one run: what ships and how good it is, who taught it, how training went, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modalift.engine.experiment import open_table
from modalift.errors import ModaliftError
from modalift.files import write_text
from modalift.modalities import Table
from modalift.recipe import load_recipe
from modalift.report import html
from modalift.report.charts import curves, evaluation
from modalift.report.clips import Sample, gallery, pick, sample_clips
from modalift.report.explain import who
from modalift.report.html import Raw, duration, esc, figure_of, fold, missing, pairs, pct, quantity, span
from modalift.report.record import Record, Shipped, read_record

CLIPS = 8


def write_report(run: str | Path, *, table: Table | None = None, samples: Sequence[Sample] | None = None) -> Path:
    """Write ``report.html`` into a run folder: one file that asks no other host for anything.

    A run that is not finished, has no validation split or was never evaluated has a page too; it says what is missing
    and which command makes it.

    Args:
        run: the run folder.
        table: the clips to show; by default the recipe's, where its data are still there.
        samples: clips ready to be shown (see :func:`modalift.report.clips.sample_clips`) instead of some of the table.

    Raises:
        ModaliftError: not a run folder, or the page cannot be written.
    """
    record = read_record(run)
    shown, why = (list(samples), "") if samples is not None else _samples(record, table)
    page = render(record, shown, why)
    return write_text(record.folder / "report.html", page)


def render(record: Record, samples: Sequence[Sample], why: str = "") -> str:
    """The page as text; ``why`` there are no samples."""
    top = record.headline()
    note = ("Drawn at random, one from each band of brightness where that is known; not chosen by their answers."
            " Each picture is one sensor's recording of the same moment.")
    clips = gallery(samples, note) or missing(why or "No clips were given to show.")
    evaluated = evaluation(record.results[top[0]][top[1]]) if top else ""
    for role in record.results if top else ():
        if top and role != top[0] and (other := record.results[role].get(top[1])) and other["n"]:
            evaluated += fold(f"the same for {role}", evaluation(other))
    return html.document(record.name, "run report", _lede(record, top), [
        ("results", "Results", "Results", _results(record, top)),
        ("cast", "Who teaches whom", "Cast", _cast(record)),
        ("clips", "What it saw", "Clips", clips),
        ("curves", "How training went", "Training", curves(record)),
        ("mistakes", "Where it is right and wrong", "Mistakes", evaluated),
        ("recipe", "Recipe", "Recipe", _recipe(record)),
        ("ledger", "Looks at the test split", "Ledger", _ledger(record)),
        ("origin", "Where it was made", "Origin", _origin(record)),
    ], _tiles(record, top))


def _samples(record: Record, table: Table | None) -> tuple[list[Sample], str]:
    """Clips to show, or why there are none."""
    try:
        table = table or open_table(load_recipe(record.folder))
        split = (record.headline() or ("", "test"))[1]
        part = table.split(split) if len(table.split(split)) else table
        answers = {r: p for r in record.networks if (p := record.predictions(r, split)) is not None}
        return sample_clips(part, pick(part, CLIPS), answers=answers), ""
    except ModaliftError as error:
        return [], f"No clips are shown, because the data could not be opened: {error}"


# ---- the head -------------------------------------------------------------------------------------------------------


def _lede(record: Record, top: tuple[str, str] | None) -> str:
    state = _state(record)
    if top is None:
        return f"{state} No network of this run has been evaluated yet."
    role, split = top
    found, shipped = record.results[role][split], record.networks.get(role)
    sensor = f"one sensor, <b>{esc(shipped.view)}</b>" if shipped else "one sensor"
    if "psnr" in found:
        return (f"{state} <b>{esc(role)}</b> reads {sensor}, and draws what <b>{esc(found['target'])}</b> would have seen. Of"
                f" the {found['n']} clips in the {esc(split)} split its pictures have a structural similarity of"
                f" <b>{found['ssim']:.3f}</b> to the real ones.")
    over = found["intervals"]["top1"]
    people = len(found.get("by_subject") or [])
    interval = over["subjects"] or over["clips"]
    other, kind = ("people", "subjects") if over["subjects"] else ("clips of theirs", "clips")
    said = f" For other {other}, expect {esc(span(interval))} (95&nbsp;% interval over {kind})." if interval else ""
    of = f" of {people} people" if people > 1 else " of one person" if people else ""
    return (f"{state} <b>{esc(role)}</b> needs {sensor}, and names one of {len(found['classes'])} classes. Its first answer"
            f" was right for <b>{esc(pct(found['top1']))}</b> of the {found['n']} clips{of} in the {esc(split)} split.{said}")


def _state(record: Record) -> str:
    done, planned = len(record.epochs), record.planned
    if record.networks:
        return '<span class="badge good">finished</span>'
    if not done and not record.steps:
        return '<span class="badge soft">not started</span> No epoch has been logged.'
    last = 1 + max((e.get("epoch") or 0 for e in record.epochs), default=-1)
    of = f" of {planned}" if planned else ""
    return (f'<span class="badge bad">not finished</span> Training stands after epoch {last}{of}; the same'
            " <code>modalift train</code> command goes on from the last checkpoint.")


def _tiles(record: Record, top: tuple[str, str] | None) -> str:
    entries: list[tuple[str, str]] = []
    if top:
        found = record.results[top[0]][top[1]]
        if "psnr" in found:
            entries += [(f"{found['ssim']:.3f}", f"structural similarity, {top[1]}"), (f"{found['psnr']:.1f} dB", "PSNR")]
        else:
            over = found["intervals"]["top1"]
            entries.append((pct(found["top1"]), f"top-1, {top[1]}; {span(over['clips'])} over clips"))
            entries.append((pct(found["mean_class"]), "mean class accuracy"))
        shipped = record.networks.get(top[0])
        if shipped and shipped.parameters is not None:
            entries.append((quantity(shipped.parameters), f"parameters of the {top[0]}"))
            entries.append((quantity(shipped.macs), "multiply-accumulates a clip"))
    if seconds := record.compute.get("seconds") or (record.epochs[-1].get("seconds") if record.epochs else None):
        entries.append((duration(seconds), f"training, {len(record.epochs)} epochs"))
    return html.tiles(entries) if entries else ""


# ---- sections -------------------------------------------------------------------------------------------------------


def _results(record: Record, top: tuple[str, str] | None) -> str:
    notes = "".join(missing(p) for p in record.problems)
    if top is None:
        todo = "modalift eval" if record.networks else "modalift train, then modalift eval,"
        return missing(f"There are no results yet: {todo} makes them.") + notes
    if "psnr" in record.results[top[0]][top[1]]:
        drawn = [(role, m["target"], split, m["n"], f"{m['psnr']:.1f}", f"{m['ssim']:.3f}", f"{m['edges']:.3f}",
                  "–" if m["flicker"] is None else f"{m['flicker']:.2f}")
                 for role, splits in record.results.items() for split, m in splits.items()]
        head = ("network", "draws", "split", "clips", "PSNR, dB", "SSIM", "edges", "flicker")
        return html.table(head, drawn, range(3, 8)) + (
            '<p class="note">Means over clips. Edges: correlation of Sobel magnitudes, deaf to brightness and contrast.'
            " Flicker: change from frame to frame over that of the real recording.</p>") + notes
    rows = []
    for role, splits in record.results.items():
        for split, m in splits.items():
            over = m.get("intervals", {}).get("top1", {})
            rows.append((role, split, m["n"], pct(m["top1"]), span(over.get("clips")), span(over.get("subjects")),
                         pct(m.get("top5")), pct(m.get("mean_class")), pct(m.get("ece")), figure_of(m.get("nll"))))
    unlabeled = sum(m.get("unlabeled", 0) for s in record.results.values() for m in s.values())
    left = f" {unlabeled} clips without a label were left out." if unlabeled else ""
    few = ("" if record.results[top[0]][top[1]]["intervals"]["top1"]["subjects"] else
           " All clips are of one subject, so nothing can be said about other people.")
    return html.table(("network", "split", "clips", "top-1", "over clips", "over subjects", "top-5", "mean class",
                       "calibration error", "log loss"), rows, range(2, 10)) + (
        f'<p class="note">Intervals are 95 % percentile bootstraps of top-1: over clips (were other clips of the same'
        f" people recorded) and over subjects (were other people recorded).{left}{few}</p>") + notes


def _cast(record: Record) -> str:
    sections = record.section("networks")
    if not sections:
        return missing("The recipe could not be read, so the networks are unknown.")
    terms, weights = _terms(record)
    learners = {_roles(t)[1] for t in terms}
    cards = []
    for role, section in sections.items():
        section = section if isinstance(section, dict) else {}
        shipped = record.networks.get(role)
        tags = [("ships", "good")] if shipped else [("stays home", "soft")] if record.networks else []
        tags += [("learns", "soft") if role in learners else ("frozen", "soft")] if learners else []
        badges = " ".join(f'<span class="badge {c}">{t}</span>' for t, c in tags)
        shipped = shipped or _from_run(section)
        view, family = section.get("view"), section.get("name")
        if shipped:
            view, family = shipped.view, str(shipped.config.get("name"))
        facts = [(k, v) for k, v in (("sees", view), ("network", family), ("starts from", section.get("init"))) if v]
        if shipped and shipped.parameters is not None:
            facts.append(("cost", f"{shipped.parameters:,} parameters, {quantity(shipped.macs)} MACs a clip"))
        cards.append(f'<div class="card"><h3>{esc(role)}</h3>{badges}{pairs(facts)}</div>')
    return f'<div class="grid">{"".join(cards)}</div>' + _lessons(terms, weights)


def _from_run(section: Mapping[str, Any]) -> Shipped | None:
    """A teacher's network, from the run that trained it, where that is still there."""
    init = Path(str(section.get("init") or ""))
    try:
        found = read_record(init).networks if section.get("init") and init.is_dir() else {}
    except ModaliftError:
        return None
    return found.get(str(section.get("role") or "student")) or next(iter(found.values()), None)


def _lessons(terms: Mapping[str, float], weights: Mapping[str, Sequence[float]]) -> str:
    if not terms:
        return missing("No term has been logged yet, so who teaches whom is not known from this run.")
    lines = []
    for term, value in terms.items():
        used = [w for w in weights.get(term, ()) if w]
        weight = "logged only" if not used else f"weight {used[-1]:g}"
        teacher, learner = _roles(term)
        arrow = f"<b>{esc(teacher)}</b> <i>→</i> <b>{esc(learner)}</b>"
        lines.append(f'<div class="arrow" title="{esc(who(term))}"><span>{arrow}</span><span class="soft">{esc(term)}'
                     f" · {weight} · {value:.3g} at the end</span></div>")
    return f'<div class="card">{"".join(lines)}</div>'


def _terms(record: Record) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Last raw value, and weights over time, of each term."""
    entries = record.epochs or record.steps
    weights: dict[str, list[float]] = {}
    for entry in entries:
        for term, weight in (entry.get("weights") or {}).items():
            weights.setdefault(term, []).append(float(weight))
    last = entries[-1].get("terms") if entries else None
    return {k: float(v) for k, v in (last or {}).items()}, weights


def _roles(term: str) -> tuple[str, str]:
    """Who teaches and who learns, from a term's name: ``graph/teacher>student``, ``ce/student``."""
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
        ("clip", f"{data.get('frames', '?')} frames of {data.get('size', '?')} px, {data.get('sampler', '?')}"),
        ("optimizer", f"{optim.get('name', '?')}, rate {figure_of(optim.get('lr'))}, {optim.get('schedule', '?')}, batch"
                      f" {optim.get('batch', '?')}, {optim.get('epochs', '?')} epochs"),
        ("evaluation", f"views in time: {protocol.get('time_views', 1)}, crops: {protocol.get('crops', 1)}; the"
                       f" {protocol.get('select', 'last')} checkpoint ships"),
    ]
    if (share := data.get("labeled", 1)) != 1:
        entries.insert(2, ("labels", f"of {pct(share)} of the training clips"))
    if paper.get("title"):
        aim = f", which reports {figure_of(paper['value'])}" if paper.get("value") is not None else ""
        entries.append(("aims at", f"{paper['title']}, {paper.get('table', '')} {paper.get('row', '')}{aim}"
                                   f" (level reached: {paper.get('level', '?')})"))
    return pairs(entries) + fold("the whole recipe", f"<pre>{esc(record.recipe_text)}</pre>")


def _ledger(record: Record) -> str:
    if not record.ledger:
        return missing("The test split has not been looked at.")
    keys = list(dict.fromkeys(k for e in record.ledger for k in e))
    rows = [[pct(e[k]) if k in ("top1", "mean_class") and isinstance(e.get(k), float) else figure_of(e.get(k)) for k in keys]
            for e in record.ledger]
    times = len({e.get("when") for e in record.ledger})
    often = "once" if times == 1 else f"{times} times"
    return (f"<p>The test split was looked at {often}. A figure that was looked at often, and chosen by it, is worth less"
            f" than one that was looked at once.</p>{html.table(keys, rows)}")


def _origin(record: Record) -> str:
    entries = [(k, figure_of(v)) for k, v in record.environment.items()]
    if macs := record.compute.get("training_macs"):
        entries.append(("training cost", f"{quantity(macs)} multiply-accumulates, teachers included"))
    body = pairs(entries) if entries else missing("environment.json is missing, so versions and hardware are unknown.")
    left = record.compute.get("left_out") or {}
    if left:
        rows = html.table(("clip", "why"), [(k, Raw(esc(v))) for k, v in left.items()])
        body += fold(f"corrupt clips that were left out: {len(left)}", rows)
    return body
