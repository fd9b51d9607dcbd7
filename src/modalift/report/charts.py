"""The charts of one run: training curves, and the details of one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modalift.modalities import is_known
from modalift.report import html
from modalift.report.figures import Line, Mark, columns, forest, heat, lines, reliability
from modalift.report.html import bar, card, missing
from modalift.report.numbers import percent, span
from modalift.report.record import Record
from modalift.report.results import Column, Metrics, headlines


def curves(record: Record) -> str:
    """Loss, loss terms, headline metrics and learning rate over time."""
    if not record.epochs and not record.steps:
        return missing("Nothing has been logged yet: the first line of log.jsonl is written after the first steps of training.")
    grid = [card("loss", _over_time(record, lambda e: e.get("loss")), "weighted sum of all terms")]
    grid += [_term(record, name) for name in _names(record, "terms")]
    validated = [chart for column in headlines() if (chart := _while_training(record, column))]
    rate = [Line("learning rate", *_points(record.steps or record.epochs, lambda e: e.get("lr"), record))]
    grid += [*validated, card("learning rate", lines(rate, low=0))]
    note = "" if validated else missing(
        "There are no validation results: the recipe holds out no subjects for validation (protocol.val_subjects),"
        " and the test split is never evaluated during training.")
    return f'<div class="grid">{"".join(grid)}</div>{note}'


def _term(record: Record, name: str) -> str:
    weights = [(_epoch(e, record), w) for e in record.epochs or record.steps
               if (w := (e.get("weights") or {}).get(name)) is not None]
    used = [w for _, w in weights]
    if not any(used):
        note = "logged only, not part of the loss"
    elif len(set(used)) == 1:
        note = f"unweighted; its weight in the loss is {used[0]:g}"
    else:
        first = next(x for x, w in weights if w)
        note = f"unweighted; its weight in the loss goes from {used[0]:g} to {used[-1]:g} (above zero from epoch {first:g})"
    last = (record.epochs or record.steps)[-1]
    raw, loss = (last.get("terms") or {}).get(name), last.get("loss")
    if raw is not None and loss and any(used):
        note += f"; {100 * used[-1] * raw / loss:.0f} % of the final loss"
    return card(name, _over_time(record, lambda e: (e.get("terms") or {}).get(name), low=0), note)


def _while_training(record: Record, headline: Column) -> str:
    """A headline metric of each network after each epoch; empty if it was never measured."""
    drawn = []
    for split, dash in (("train", True), ("val", False)):
        for k, role in enumerate(dict.fromkeys(r for e in record.epochs for r in e.get(split) or {})):
            x, y = _points(record.epochs, lambda e, s=split, r=role: (e.get(s) or {}).get(r, {}).get(headline.key), record)  # type: ignore[misc]
            if x:
                drawn.append(Line(f"{role}, {split}", x, y, 1 + k % 6, dash=dash))
    share = headline.format == "percent"
    return card(f"{headline.title} during training", lines(drawn, shares=share, low=0 if share else None)) if drawn else ""


def _over_time(record: Record, value: Callable[[Mapping[str, Any]], Any], low: float | None = None) -> str:
    """Single steps as a thin line, means over epochs as a bold line."""
    drawn = []
    if record.steps:
        drawn.append(Line("steps", *_points(record.steps, value, record), 6, thin=bool(record.epochs)))
    if record.epochs:
        drawn.append(Line("epochs", *_points(record.epochs, value, record), 1))
    return lines(drawn, low=low)


def _points(entries: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any],
            record: Record) -> tuple[list[float], list[float]]:
    found = [(_epoch(e, record), float(v)) for e in entries if (v := value(e)) is not None]
    return [x for x, _ in found], [y for _, y in found]


def _epoch(entry: Mapping[str, Any], record: Record) -> float:
    """The time of an entry in completed epochs; steps within an epoch are placed by their number."""
    if entry.get("kind") == "epoch" or not entry.get("step"):
        return float(entry.get("epoch") or 0) + (entry.get("kind") == "epoch")
    ends = [e for e in record.epochs if e.get("step")]
    if ends:
        return float(entry["step"]) / (ends[-1]["step"] / ((ends[-1].get("epoch") or 0) + 1))
    return float(entry.get("epoch") or 0)


def _names(record: Record, key: str) -> list[str]:
    return list(dict.fromkeys(n for e in (*record.epochs, *record.steps[-1:]) for n in e.get(key) or {}))


# ---- one evaluation -------------------------------------------------------------------------------------------------


def worst_clips(m: Metrics) -> str:
    """The clips whose generated images are least similar to the target sensor's."""
    worst = sorted(m["per_clip"], key=lambda f: f["ssim"])[:10]
    return card("clips with the lowest SSIM", html.table(("clip", "PSNR, dB", "SSIM", "edge correlation"), [
        (f["id"], f"{f['psnr']:.1f}", f"{f['ssim']:.3f}", f"{f['edges']:.3f}") for f in worst], range(1, 4)))


def classification(m: Metrics) -> str:
    """Confusion, classes, calibration, brightness and subjects of one network on one split."""
    matrix = card("confusion matrix", heat(m["confusion"], m["classes"]))
    side = [card("calibration", reliability(m["calibration"]),
                 f"Expected calibration error {percent(m['ece'])}: the mean difference between confidence and accuracy"
                 " over 15 bins. On the dashed line, confidence equals accuracy.")]
    metadata = dict(m.get("by_metadata", {}))
    if "lux" in metadata:
        side.append(_by_metadata("lux", metadata.pop("lux"), m))
    else:
        side.append(missing("Accuracy by brightness is not shown: the clips have no 'lux' in their metadata, or all the same."))
    out = matrix + f'<div class="wide">{"".join(side)}</div>' + _classes(m["per_class"])
    if len(subjects := [p for p in m.get("by_subject") or [] if is_known(str(p["subject"]))]) > 1:
        marks = [Mark(p["subject"], p["top1"], p.get("interval"), note=f"{p['n']} clips")
                 for p in sorted(subjects, key=lambda p: -p["top1"])]
        out += html.fold(f"accuracy of each of the {len(subjects)} subjects, with 95 % intervals over clips", forest(marks))
    if metadata:
        rest = "".join(_by_metadata(name, groups, m) for name, groups in metadata.items())
        out += html.fold(f"accuracy by {', '.join(metadata)}", f'<div class="wide">{rest}</div>')
    return out


def _by_metadata(name: str, groups: Sequence[Mapping[str, Any]], m: Metrics) -> str:
    marks = [Mark(f"{g['value']:g}" if isinstance(g.get("value"), float) else str(g["value"]) if "value" in g
                  else f"{g['low']:.3g}–{g['high']:.3g}", g["top1"], g["interval"], note=f"n {g['n']}") for g in groups]
    title = "accuracy by brightness" if name == "lux" else f"accuracy by {name}"
    return card(title, columns(marks, x_label=name, reference=1 / len(m["classes"]), reference_label="chance"),
                f"Error bars: 95 % interval over clips. Dashed: chance.{without(name, groups, m['n'])}")


def without(name: str, groups: Sequence[Mapping[str, Any]], clips: int) -> str:
    """That clips whose value in a column of metadata is not known are in no group; empty if there are none."""
    left = clips - sum(g["n"] for g in groups)
    return f" {left} clip{'s' * (left > 1)} of unknown {name} left out." if left else ""


def _classes(rows: Sequence[Mapping[str, Any]]) -> str:
    ordered = sorted(rows, key=lambda r: (r["recall"] is None, -(r["recall"] or 0), r["class"]))
    body = html.table(("class", "clips", "recall", "95 % CI over clips", "precision", "F1", "most often predicted instead"),
                      [(r["class"], r["support"], bar(r["recall"]), span(r.get("interval")), bar(r["precision"]),
                        percent(r["f1"]), r.get("mistaken_for") or "–") for r in ordered], (1, 3, 5))
    absent = sum(not r["support"] for r in rows)
    note = f'<p class="note">{absent} classes do not occur in this split.</p>' if absent else ""
    return f'<div class="card"><h3>per class</h3>{body}{note}</div>'
