"""The findings of `modalift check` about a dataset, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modalift.datasets import Comparison
from modalift.errors import grouped
from modalift.loading.check import Findings
from modalift.modalities import SPLITS
from modalift.report.numbers import UNKNOWN, percent


def as_json(findings: Findings, comparison: Comparison) -> dict[str, Any]:
    """Findings, and the comparison with the dataset's release, as plain dictionaries and lists."""
    return {**asdict(findings), "has_errors": findings.has_errors, "release": asdict(comparison)}


def render(findings: Findings, comparison: Comparison) -> Group:
    """The dataset and its release, tables of the views, classes and subjects, followed by one line per problem."""
    total = sum(findings.clips.values())
    splits = ", ".join(f"{n} {s}" for s, n in findings.clips.items() if n)
    unknown = sum(findings.unknown_subject.values())
    head = Text(f"{findings.name}: {total} clips ({splits}), {len(findings.classes)} classes, {len(findings.subjects)} subjects"
                + (f" ({unknown} clips of unknown subject)" if unknown else "") + f", {len(findings.views)} views")
    lines: list[RenderableType] = [head, *_release(comparison), _views(findings), _counts("classes", "class", findings.classes)]
    if findings.subjects:
        lines.append(_counts("subjects", "subject", findings.subjects))
    if findings.decoded < total:
        lines.append(Text(f"{findings.decoded} of {total} clips were decoded; the others were only opened", "dim"))
    for severity in ("error", "note"):
        complaints = (("", problem.reason) for problem in findings.problems if problem.severity == severity)
        for _, reason, n in grouped(complaints):
            times = f"{n} times, the first: " if n > 1 else ""
            lines.append(Text.assemble((severity, "bold red" if severity == "error" else "yellow"), " ", times, reason))
    if not findings.problems:
        lines.append(Text("no problem was found", "green"))
    return Group(*lines)


def _release(comparison: Comparison) -> list[Text]:
    """Which dataset it was taken for, and how much of its release is there."""
    lines = [Text(f"dataset: {comparison.dataset} ({'recognized from its files' if comparison.guessed else 'as given'})")]
    if comparison.clips:
        counts = ", ".join(f"{found} of {of}{'' if split == 'total' else f' {split}'} clips"
                           for split, (found, of) in comparison.clips.items())
        lines.append(Text(f"of the release: {counts}", "green" if comparison.complete else "yellow"))
    if comparison.absent_views:
        lines.append(Text(f"views of the release that are not here: {', '.join(comparison.absent_views)}", "yellow"))
    if comparison.clips and not comparison.complete:
        lines.append(Text(f"the release: {comparison.source}; {comparison.download}", "dim"))
    return lines


def _views(findings: Findings) -> Table:
    views = Table(title="views", title_justify="left")
    for column in ("view", "modality", "clips", "frames min/median/max", "frame size", "mean reading 5/50/95 %",
                   "invalid readings"):
        views.add_column(column)
    for view, s in findings.views.items():
        views.add_row(Text(view), s.modality if s.channels == 1 else f"{s.modality} ({s.channels})", str(s.clips),
                      "{} / {:g} / {}".format(*s.lengths) if s.lengths else UNKNOWN, _sizes(list(s.sizes)),
                      "{:.4g} / {:.4g} / {:.4g} ".format(*s.brightness) + s.unit if s.brightness else UNKNOWN,
                      percent(s.holes) if s.holes else UNKNOWN)
    return views


def _sizes(found: list[str]) -> str:
    """The most frequent frame size, and how many others there are."""
    return f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}" if found else UNKNOWN


def _counts(title: str, head: str, counts: Mapping[str, Mapping[str, int]]) -> Table:
    used = [s for s in SPLITS if any(c[s] for c in counts.values())]
    grid = Table(title=title, title_justify="left")
    grid.add_column(head)
    for split in used:
        grid.add_column(split, justify="right")
    for name, of in counts.items():
        grid.add_row(Text(name), *(str(of[s]) for s in used))
    return grid
