"""Comparison of runs on the same clips: as a dictionary and as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modalift.engine.provenance import Evidence, belongs
from modalift.engine.roles import EVERY_RUN, RoleChoice, match_roles, names_of, networks_of
from modalift.engine.run import Run
from modalift.engine.scope import joined_held_out
from modalift.engine.statistics import aligned, main_interval, mean_accuracy, paired, paired_seeds
from modalift.engine.tables import open_table
from modalift.errors import ModaliftError, nearest
from modalift.files import is_file, write_text
from modalift.modalities import SPLITS, Table
from modalift.models import Predictions
from modalift.models.metrics import score
from modalift.recipe import load_recipe
from modalift.report import html, scope
from modalift.report.charts import without
from modalift.report.clips import CHANGED, Sample, choose_clips, gallery, same_recordings, sample_clips
from modalift.report.figures import Mark, columns, diverging, forest
from modalift.report.html import card, esc, missing
from modalift.report.numbers import UNKNOWN, duration, percent, points, points_span, quantity, span
from modalift.report.record import Record, read_record

Runs = Mapping[str, Path | Sequence[Path]] | Sequence[Path]
CLIPS = 8


@dataclass(frozen=True)
class Candidate:
    """One compared method: its runs (one per seed), their predictions, the metrics of the first run, and what they are of."""

    name: str
    role: str
    records: tuple[Record, ...]
    predictions: tuple[Predictions, ...]
    score: dict[str, Any]
    scope: dict[str, Any]


def compare_runs(runs: Runs, *, split: str = "test", choice: RoleChoice = EVERY_RUN) -> dict[str, Any]:
    """Compares runs: metrics and intervals of each, and paired differences from the first, as plain JSON values.

    Args:
        runs: run folders, the baseline first; or name -> folder, or name -> folders of the same seeds.
        split: the split whose predictions are compared.
        choice: which network of runs that trained several; by default they are matched by the view that they read.

    Returns:
        ``{"split", "baseline", "rows": [...]}``; a row has ``name``, ``role``, ``view``, ``n``, ``seeds``, ``top1`` and its
        ``sd`` and ``intervals`` (see :func:`~modalift.engine.statistics.mean_accuracy`), ``mean_class``, ``ece``,
        ``unlabeled``, ``left_out``, ``coverage`` (of the first seed), ``held_out`` (see :mod:`modalift.engine.scope`),
        ``parameters``, ``macs``, ``epochs``, ``training_macs``, ``seconds`` and ``against_first``:
        :func:`~modalift.engine.statistics.paired` of the two, or :func:`~modalift.engine.statistics.paired_seeds` where both
        have as many seeds (two or more).

    Raises:
        ModaliftError: fewer than two runs, a run without predictions of its present weights, or runs on different clips or
            recordings.
    """
    return _summary(_candidates(runs, split, choice), split)


def write_comparison(runs: Runs, out: str | Path, *, split: str = "test", choice: RoleChoice = EVERY_RUN,
                     table: Table | None = None,
                     samples: Sequence[Sample] | None = None, title: str = "", summary: str = "", focus: str = "",
                     views: Sequence[str] = ()) -> Path:
    """Writes the page of a comparison: one HTML file that loads nothing from other hosts.

    Args:
        runs, split, choice: see :func:`compare_runs`.
        out: the file to write.
        table: clips to show; by default those of the first run's recipe, if its data still exist.
        samples: clips to show instead, from :func:`modalift.report.clips.sample_clips`.
        title, summary: plain text of the heading and of the first paragraph; by default made from the results.
        focus: the run whose classes are compared with the baseline's; by default the last one.
        views: views of the clips to show; by default all.
    """
    candidates = _candidates(runs, split, choice)
    found = _summary(candidates, split)
    chosen = next((c for c in candidates if c.name == focus), candidates[-1])
    if focus and chosen.name != focus:
        raise ModaliftError(f"focus '{focus}' is not one of the runs: {', '.join(c.name for c in candidates)}")
    shown, why = (list(samples), "") if samples is not None else _samples(candidates, split, table, views)
    note = ("What every sensor recorded at the same moment, and what each network predicted from its own sensor. Selected"
            " at random, one from each interval of brightness if it is known, without regard to the predictions.")
    tables, clips = _tables(found), gallery(shown, note)
    page = html.document(title or f"{chosen.name} against {found['baseline']}", "comparison",
                         esc(summary) if summary else _summary_text(found, chosen), [
        ("clips", "Sample clips and their predictions", "Clips", clips or missing(why or "No clips were given.")),
        ("results", "Results", "Results", tables[0] + _forests(found)),
        ("cost", "Cost", "Cost", tables[1]),
        ("light", "Accuracy by brightness", "Brightness", _by_light(candidates)),
        ("classes", "Recall per class", "Classes", _classes(candidates[0], chosen)),
        ("how", "How to read this", "How to read this", _how(found)),
    ])
    return write_text(Path(out), page)


# ---- what is compared -----------------------------------------------------------------------------------------------


def _candidates(runs: Runs, split: str, choice: RoleChoice) -> list[Candidate]:
    if split not in SPLITS:
        raise ModaliftError(f"unknown split '{split}' - {nearest(split, SPLITS)}")
    given = dict(runs) if isinstance(runs, Mapping) else _named([Path(r) for r in runs])
    named = {name: [Path(f) for f in folders] if isinstance(folders, Sequence) and not isinstance(folders, str)
             else [Path(folders)] for name, folders in given.items()}
    if len(named) < 2:
        raise ModaliftError("a comparison needs at least two different run folders")
    for name, folders in named.items():
        if not folders:
            raise ModaliftError(f"'{name}' has no run folder - give at least one")
        read_record(folders[0])  # refuses what is no run folder
    first = [Run(folders[0]) for folders in named.values()]
    roles = match_roles([networks_of(run) for run in first],
                        [names_of(run, name) for name, run in zip(named, first, strict=True)], choice)
    found = [_candidate(name, folders, split, role) for (name, folders), role in zip(named.items(), roles, strict=True)]
    _check_same_data(found)
    return found


def _check_same_data(candidates: Sequence[Candidate]) -> None:
    """Refuses predictions on other labels, windows or recordings than the baseline's."""
    first = candidates[0].predictions[0]
    base, ids = Evidence.parse(first.evidence), set(first.ids.tolist())
    for c in candidates:
        for record, predictions in zip(c.records, c.predictions, strict=True):
            own = Evidence.parse(predictions.evidence)
            same_clips = set(predictions.ids.tolist()) == ids  # else the missing clip is named when they are aligned
            if same_clips and base is not None and own is not None and not own.same_data(base):
                raise ModaliftError(f"{record.folder}: was evaluated on other recordings, windows or labels than"
                                    f" {candidates[0].records[0].folder} - evaluate both again with `modalift eval`")


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    short = [read_record(f).name for f in folders]
    return {(n if short.count(n) == 1 else str(f)): f for n, f in zip(short, folders, strict=True)}


def _candidate(name: str, folders: Sequence[Path], split: str, role: str) -> Candidate:
    records = tuple(read_record(f) for f in folders)
    predictions = []
    for folder in folders:
        run = Run(folder)
        own = run.resolve_role(role)
        path = run.predictions_path(own, split)
        if not is_file(path):
            raise ModaliftError(f"{folder}: no predictions of '{own}' on the split '{split}' -"
                                f" run `modalift eval {folder} --split {split}` first")
        found = Predictions.load(path)
        if not belongs(run, own, found.evidence):
            raise ModaliftError(f"{folder}: the predictions of '{own}' on the split '{split}' are of other weights than its"
                                f" model - run `modalift eval {folder} --split {split}` again")
        predictions.append(found)
    first = predictions[0]
    shipped = records[0].networks.get(role)
    classes = shipped.classes if shipped else tuple(str(k) for k in range(first.probabilities.shape[1]))
    metrics = score(first.probabilities, first.labels, classes, subjects=first.subjects, metadata=dict(first.metadata))
    return Candidate(name, role, records, tuple(predictions), metrics, _scope(records, role, split))


def _scope(records: Sequence[Record], role: str, split: str) -> dict[str, Any]:
    """What the results of one method are of: the clips of its first run, and what all of its runs hold out."""
    results = [record.results.get(role, {}).get(split, {}) for record in records]
    return {"left_out": results[0].get("left_out", {}), "coverage": results[0].get("coverage"),
            "held_out": joined_held_out([found.get("held_out") for found in results])}


def _summary(candidates: Sequence[Candidate], split: str) -> dict[str, Any]:
    base, rows = candidates[0], []
    for c in candidates:
        shipped, computed = c.records[0].networks.get(c.role), [r.compute for r in c.records]
        rows.append({
            "name": c.name, "role": c.role, "view": shipped.view if shipped else None,
            **mean_accuracy(c.predictions), "unlabeled": c.score["unlabeled"], **c.scope, "mean_class": c.score["mean_class"],
            "ece": c.score["ece"], "parameters": shipped.parameters if shipped else None,
            "macs": shipped.macs if shipped else None, "epochs": computed[0].get("epochs"),
            "training_macs": _mean(x.get("training_macs") for x in computed),
            "seconds": _mean(x.get("seconds") for x in computed),
            "against_first": None if c is base else _difference(base, c),
        })
    return {"split": split, "baseline": base.name, "rows": rows,
            "held_out": joined_held_out([c.scope["held_out"] for c in candidates])}


def _difference(base: Candidate, other: Candidate) -> dict[str, Any]:
    if len(base.predictions) == len(other.predictions) > 1:
        return paired_seeds(base.predictions, other.predictions)
    return paired(base.predictions[0], other.predictions[0])


def _mean(values: Any) -> float | None:
    known = [float(v) for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _samples(candidates: Sequence[Candidate], split: str, table: Table | None,
             views: Sequence[str]) -> tuple[list[Sample], str]:
    try:
        first = Run(candidates[0].records[0].folder)
        table = table or open_table(load_recipe(first.folder))
        whole = table if first.folds() else table.split(split)
        predictions = {c.name: c.predictions[0] for c in candidates}
        part = whole.where(lambda r: r.id in set(candidates[0].predictions[0].ids.tolist()))
        if not len(part):
            return [], f"The data of the first run hold none of the clips of its {split} predictions."
        if not same_recordings(whole, predictions.values()):
            return [], CHANGED
        return sample_clips(part, choose_clips(part, CLIPS), views, predictions=predictions), ""
    except ModaliftError as error:
        return [], f"No clips are shown, because the data could not be opened: {error}"


# ---- results as text ---------------------------------------------------------------------------------------------------


def verdict(pair: Mapping[str, Any]) -> str:
    """The conclusion from a paired difference, in one or two words."""
    interval, _ = main_interval(pair)
    if interval[0] > 0:
        return "better"
    if interval[1] < 0:
        return "worse"
    return "no difference shown"


def _summary_text(found: Mapping[str, Any], chosen: Candidate) -> str:
    row = next(r for r in found["rows"] if r["name"] == chosen.name)
    base = found["rows"][0]
    if row is base:
        return f"{esc(base['name'])} on {scope.clips_of(base)} clips of the {esc(found['split'])} split."
    pair = row["against_first"]
    interval, over = main_interval(pair)
    warned = "".join(f"{html.warning(line)} " for line in scope.warnings((r["name"], r) for r in (base, row)))
    tail = " The interval includes zero: <b>no difference is shown</b>." if verdict(pair) == "no difference shown" else ""
    return (f"{warned}Top-1 on the same {scope.clips_of(row)} clips of the {esc(found['split'])} split:"
            f" <b>{esc(row['name'])}</b> <b>{percent(row['top1'])}</b>, {esc(base['name'])} <b>{percent(base['top1'])}</b>;"
            f" difference <b>{points(pair['difference'])} points</b> (95&nbsp;% interval {points_span(interval)} {esc(over)})."
            f"{tail} {esc(scope.people(found, row['subjects']))}")


def _tables(found: Mapping[str, Any]) -> tuple[str, str]:
    """The tables of accuracies and of costs."""
    rows, costs = [], []
    for r in found["rows"]:
        pair = r["against_first"]
        top1 = percent(r["top1"]) + (f" ± {100 * r['sd']:.1f}" if r["sd"] is not None else "")
        gap = ("baseline", "", "") if pair is None else (
            points(pair["difference"]), points_span(main_interval(pair)[0]), verdict(pair))
        rows.append((r["name"], r["view"] or UNKNOWN, top1, span(r["intervals"]["clips"]), span(r["intervals"]["subjects"]),
                     *gap))
        costs.append((r["name"], r["epochs"] or UNKNOWN, quantity(r["training_macs"]),
                      UNKNOWN if r["seconds"] is None else duration(r["seconds"]), quantity(r["parameters"]),
                      quantity(r["macs"])))
    over = ", ".join(dict.fromkeys(main_interval(r["against_first"])[1] for r in found["rows"][1:]))
    note = (f"CI: 95 % confidence interval. Differences are in percentage points; their interval is {over}."
            + ("" if all(r["seeds"] == 1 for r in found["rows"]) else
               " Top-1 is the mean over seeds ± their standard deviation; the intervals beside it hold the trained networks"
               " fixed."))
    named = scope.compared(found)
    notes = "".join(f"<p>{esc(line)}</p>" for line in scope.notes(named)) + f'<p class="note">{esc(note)}</p>'
    head = ("run", "view", "top-1", "CI over clips", "CI over subjects", "difference", "CI", "verdict")
    return html.warnings(scope.warnings(named)) + html.table(head, rows, range(2, 7)) + notes, html.table(
        ("run", "epochs", "training MACs", "training time", "parameters", "MACs per clip"), costs, range(1, 6)) + (
        '<p class="note">MACs: multiply-accumulates. Training MACs include that of the teachers; training time does not.'
        " Parameters and MACs per clip are those of the network that is deployed.</p>")


def _forests(found: Mapping[str, Any]) -> str:
    each = [Mark(r["name"], r["top1"], r["intervals"]["clips"], 6 if r["against_first"] is None else 1,
                 wide=r["intervals"]["subjects"]) for r in found["rows"]]
    gaps = []
    for r in found["rows"][1:]:
        pair = r["against_first"]
        note = f"{pair['seeds']} seeds" if "seeds" in pair else f"McNemar p {_p(pair['mcnemar_p'])}"
        color = {"better": 1, "worse": 2}.get(verdict(pair), 6)
        gaps.append(Mark(r["name"], pair["difference"], pair["intervals"]["clips"], color, note, pair["intervals"]["subjects"]))
    return '<div class="wide">' + card("top-1", forest(each), "Bold: 95 % interval over clips. Faint: over subjects.") + card(
        f"difference from {found['baseline']}, in points", forest(gaps, zero=0.0, difference=True),
        "Bold: 95 % interval over clips. Faint: over subjects. With several seeds, both are also over seeds. Gray: the wider"
        " one includes zero.") + "</div>"


def _p(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def _by_light(candidates: Sequence[Candidate]) -> str:
    cards, left = [], ""
    for c in candidates:
        groups = c.score["by_metadata"].get("lux")
        if groups:
            marks = [Mark(f"{g['value']:g}" if "value" in g else f"{g['low']:.2g}–{g['high']:.2g}", g["top1"], g["interval"],
                          note=f"n {g['n']}") for g in groups]
            chance = 1 / len(c.score["classes"])
            cards.append(card(c.name, columns(marks, x_label="lux", reference=chance, reference_label="chance")))
            left = without("lux", groups, c.score["n"])
    if not cards:
        return missing("Accuracy by brightness is not shown: the clips have no 'lux' in their metadata, or all the same.")
    note = f"Error bars: 95 % interval over clips. Dashed: chance.{left}"
    return f'<div class="wide">{"".join(cards)}</div><p class="note">{esc(note)}</p>'


def _classes(base: Candidate, chosen: Candidate) -> str:
    if chosen.name == base.name:
        return missing("Classes are compared only between two different runs.")
    rows = []
    for one, other in zip(_recalls(base), _recalls(chosen), strict=True):
        if one[1] is not None and other[1] is not None:
            rows.append((one[0], other[1] - one[1], f"({percent(one[1])} to {percent(other[1])}, {one[2]} clips)"))
    rows.sort(key=lambda r: -r[1])
    return '<div class="wide">' + card(
        f"recall of {chosen.name} minus that of {base.name}, in points", diverging(rows),
        "Single classes have few clips, so these bars are uncertain; the table above has the overall result.") + card(
        "clips that were predicted correctly by", forest(_agreement(base, chosen), zero=0.0, unit="% of clips"),
        "The two differ only in the clips that exactly one of them predicts correctly.") + "</div>"


def _agreement(base: Candidate, chosen: Candidate) -> list[Mark]:
    """Fraction of clips that both, one or neither of the two predict correctly."""
    pairs = [aligned(p, q) for p, q in zip(base.predictions, chosen.predictions, strict=False)]
    a, b = (np.concatenate([pair[k].correct for pair in pairs]) for k in (0, 1))
    parts = (("both", a & b, 6), (f"only {chosen.name}", b & ~a, 1), (f"only {base.name}", a & ~b, 2),
             ("neither", ~a & ~b, 6))
    return [Mark(name, float(x.mean()), color=color) for name, x, color in parts]


def _recalls(c: Candidate) -> list[tuple[str, float | None, int]]:
    """Per class: its name, recall over all seeds, and number of clips of one seed."""
    out: list[tuple[str, float | None, int]] = []
    for k, name in enumerate(c.score["classes"]):
        of = [p.correct[p.labels == k] for p in c.predictions]
        out.append((name, float(np.mean(np.concatenate(of))) if len(of[0]) else None, len(of[0])))
    return out


def _how(found: Mapping[str, Any]) -> str:
    lines = []
    for r in found["rows"][1:]:
        pair = r["against_first"]
        if "seeds" in pair:
            each = ", ".join(points(d) for d in pair["differences"])
            over = (f"95 % interval over seeds, for these clips alone: {points_span(pair['over_seeds'])} (Student's t)"
                    if pair["over_seeds"] else "All are equal, so there is no interval over seeds alone")
            lines.append(f"<p><b>{esc(r['name'])}</b>: differences of the {pair['seeds']} paired seeds: {each} points. {over};"
                         f" over clips and seeds: {points_span(pair['intervals']['clips'])}; over subjects and seeds:"
                         f" {points_span(pair['intervals']['subjects'])}.</p>")
        else:
            lines.append(f"<p><b>{esc(r['name'])}</b> alone predicted {pair['only_b']} clips correctly,"
                         f" {esc(found['baseline'])} alone {pair['only_a']}. If both were equally good, a difference of at"
                         f" least that size would occur with probability p {_p(pair['mcnemar_p'])} (exact McNemar test, which"
                         " takes clips as independent).</p>")
    return "".join(lines) + (
        "<p>An interval over clips takes the clips as independent, and holds for other clips of the same people and conditions."
        " An interval over subjects is wider if people differ. "
        f"{esc(scope.people(found, found['rows'][0]['subjects']))} {esc(scope.conditions(found))}</p>"
        "<p>Where an interval includes zero, no difference is shown; this does not show that there is none. Equal epochs do not"
        " mean equal cost: the cost table includes the teachers.</p>")
