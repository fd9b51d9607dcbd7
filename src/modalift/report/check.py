"""The findings of `modalift check` about a dataset, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modalift.errors import grouped
from modalift.loading.check import Findings
from modalift.modalities import SPLITS
from modalift.report.numbers import UNKNOWN, percent


def as_json(findings: Findings) -> dict[str, Any]:
    """Findings as plain dictionaries and lists."""
    return {**asdict(findings), "has_errors": findings.has_errors}


def render(findings: Findings) -> Group:
    """Tables of the views, classes and subjects, followed by one line per problem."""
    total = sum(findings.clips.values())
    splits = ", ".join(f"{n} {s}" for s, n in findings.clips.items() if n)
    unknown = sum(findings.unknown_subject.values())
    head = Text(f"{findings.name}: {total} clips ({splits}), {len(findings.classes)} classes, {len(findings.subjects)} subjects"
                + (f" ({unknown} clips of unknown subject)" if unknown else "") + f", {len(findings.views)} views")
    lines: list[RenderableType] = [head, _views(findings), _counts("classes", "class", findings.classes)]
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
