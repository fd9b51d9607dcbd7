"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text


def brief(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one evaluation without its long tables."""
    return {k: v for k, v in metrics.items() if k not in ("confusion", "per_class", "by_fact", "by_subject", "per_clip")}


def percent(share: float | None) -> str:
    """Example:
    >>> percent(0.8712)
    '87.1 %'
    """
    return "-" if share is None else f"{100 * share:.1f} %"


def span(interval: Any) -> str:
    return "-" if not interval else f"{100 * interval[0]:.1f} .. {100 * interval[1]:.1f}"


def results(found: Mapping[str, Mapping[str, Any]], split: str) -> Table:
    """One row a network: accuracies with 95 % intervals over clips and over subjects, or how like a translator's pictures
    are to the target's."""
    if all("psnr" in m for m in found.values()):
        return pictures(found, split)
    table = Table(title=f"split: {split}", title_justify="left")
    for name in ("network", "clips", "top-1", "over clips", "over subjects", "top-5", "mean class", "calibration error"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for role, m in found.items():
        top1 = m.get("intervals", {}).get("top1", {})
        table.add_row(Text(role), str(m["n"]), f"[bold]{percent(m['top1'])}[/]", span(top1.get("clips")),
                      span(top1.get("subjects")), percent(m["top5"]), percent(m["mean_class"]), percent(m["ece"]))
    return table


def pictures(found: Mapping[str, Mapping[str, Any]], split: str) -> Table:
    """One row a translator: likeness of its pictures, means over clips."""
    table = Table(title=f"split: {split}", title_justify="left")
    for name in ("network", "draws", "clips", "PSNR, dB", "SSIM", "edges", "flicker"):
        table.add_column(name, justify="left" if name in ("network", "draws") else "right")
    for role, m in found.items():
        table.add_row(Text(role), Text(m["target"]), str(m["n"]), f"{m['psnr']:.1f}", f"{m['ssim']:.3f}", f"{m['edges']:.3f}",
                      "-" if m["flicker"] is None else f"{m['flicker']:.2f}")
    return table


def comparison(found: Mapping[str, Any]) -> Table:
    """One row a run, and its paired difference to the first."""
    table = Table(title=f"top-1 on {found['split']}, against '{found['baseline']}'", title_justify="left")
    for name in ("run", "sensor", "clips", "epochs", "tera MACs", "top-1", "difference", "clips or seeds", "subjects"):
        table.add_column(name, justify="left" if name in ("run", "sensor") else "right")
    for row in found["rows"]:
        pair = row["against_first"] or {}
        within = pair.get("intervals", {})
        table.add_row(Text(row["name"]), row["view"] or "-", str(row["n"]), str(row["epochs"] or "-"),
                      f"{(row['training_macs'] or 0) / 1e12:.3g}", f"[bold]{percent(row['top1'])}[/]",
                      f"{100 * pair['difference']:+.1f}" if pair else "",
                      span(pair.get("over_seeds") or within.get("clips")) if pair else "",
                      span(pair.get("over_subjects_seeds") or within.get("subjects")) if pair else "")
    return table


def study(found: Mapping[str, Any]) -> Group:
    """One row a recipe, and its paired difference to the first."""
    table = Table(title=f"top-1 on {found['split']}, mean of seeds", title_justify="left")
    for name in ("recipe", "epochs", "tera MACs", "seconds", "seeds", "mean", "deviation", "against the first"):
        table.add_column(name, justify="left" if name == "recipe" else "right")
    for row in found["rows"]:
        pair = row.get("against_first")
        gain = f"{100 * pair['difference']:+.1f} ({span(pair['over_seeds'])})" if pair else ""
        table.add_row(Text(row["name"]), str(row["epochs"]), f"{row['training_macs'] / 1e12:.3g}", f"{row['seconds']:.0f}",
                      str(len(row["top1"])), percent(row["mean"]), percent(row["sd"]), gain)
    return Group(table)
