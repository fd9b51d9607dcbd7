"""Result tables, tiles and sentences from what kinds of models declare."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from modalift.models import KINDS, Column, Model
from modalift.models.metrics import score
from modalift.report import results
from modalift.report.extras import EXTRAS, Extras, extras_of
from modalift.report.page import write_report

PICTURES = {"kind": "translator", "n": 4, "target": "thermal", "psnr": 21.64, "ssim": 0.7312, "edges": 0.41, "flicker": None,
            "per_clip": [{"id": f"c{k}", "psnr": 20.0 + k, "ssim": 0.1 * k, "edges": 0.2} for k in range(4)]}


def said(shown: RenderableType) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


@pytest.fixture
def classes() -> dict[str, Any]:
    probabilities = np.eye(3)[[0, 1, 1, 2]] * 0.9 + 0.1 / 3
    return {"kind": "recognizer", **score(probabilities, [0, 1, 2, 2], ["a", "b", "[red]c"], subjects=["s1", "s1", "s2", "s2"])}


def test_kinds_with_other_columns_have_a_table_of_their_own(classes: dict[str, Any]) -> None:
    found = {"[red]student": classes, "drawer": PICTURES, "fusion": classes | {"kind": "fusion"}}
    text = said(results.terminal_tables(found, "val"))
    assert text.count("split: val") == 2
    first, second = text.split("split: val")[1:]
    assert all(words in first for words in ("[red]student", "fusion", "75.0 %", "top-1"))
    assert all(words in second for words in ("drawer", "0.731", "thermal"))
    assert "top-1" not in second


def test_what_is_unknown_is_a_dash(classes: dict[str, Any]) -> None:
    classes["intervals"]["top1"]["subjects"] = None
    assert "–" in said(results.terminal_tables({"student": classes}, "test"))
    assert Column("intervals.nothing.clips", "").of(classes) is None
    assert Column("a.b", "").of({"a": 3}) is None


def test_sentence_and_tiles_follow_the_headline(classes: dict[str, Any]) -> None:
    text = results.sentence(classes, "test")
    assert "On the 4 clips of 2 subjects in the test split, its top-1 is" in text
    assert "<b>75.0 %</b>" in text
    assert "over subjects" in text
    classes["intervals"]["top1"]["subjects"] = None
    assert "over clips" in results.sentence(classes, "test")
    expected = "On the 4 clips in the test split, target <b>thermal</b>, its SSIM is <b>0.731</b>."
    assert expected in results.sentence(PICTURES, "test")
    assert [figure for figure, _ in results.tiles(PICTURES, "test")] == ["0.731", "21.6"]
    assert results.headline_value(PICTURES) == 0.7312


def test_a_new_kind_is_declared_and_shown(monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Path],
                                          closed_in_itself: Callable[[Path], None]) -> None:
    """Another kind of model needs its columns only: no file of the report names it."""
    error = Column("joints.error", "joint error, mm", "number1")
    columns = (Column("n", "clips", "count"), error)
    poser = type("PoserModel", (Model,), {"kind": "poser", "headline": error, "columns": columns})
    monkeypatch.setitem(KINDS._entries, "poser", poser)
    metrics = {"kind": "poser", "n": 1200, "joints": {"error": 41.26}}
    text = said(results.terminal_tables({"student": metrics}, "test"))
    assert all(words in text for words in ("joint", "error,", "mm", "41.3", "1,200"))
    run = make_run()
    (run / "results.json").write_text('{"student": {"test": {"kind": "poser", "n": 1200, "joints": {"error": 41.26}}}}')
    page = write_report(run, samples=[])
    closed_in_itself(page)
    assert "joint error, mm" in page.read_text()
    assert "Evaluation in detail" not in page.read_text()
    monkeypatch.setitem(EXTRAS, "poser", Extras(charts=lambda m: f"<p>worst joint {m['n']}</p>"))
    assert "<p>worst joint 1200</p>" in write_report(run, samples=[]).read_text()


def test_a_kind_that_is_not_registered_here_shows_its_clips() -> None:
    metrics = {"kind": "from a plugin", "n": 7, "score": 0.5}
    assert "7" in said(results.terminal_tables({"student": metrics}, "test"))
    assert results.sentence(metrics, "test").endswith("<b>7</b>.")
    assert extras_of(metrics).charts(metrics) == ""
    assert results.headline_value(metrics) == 7


def test_charts_of_each_kind(classes: dict[str, Any]) -> None:
    assert "confusion matrix" in extras_of(classes).charts(classes)
    assert extras_of(classes).charts(classes) == extras_of(classes | {"kind": "fusion"}).charts(classes)
    shown = extras_of(PICTURES).charts(PICTURES)
    assert shown.index("c0") < shown.index("c3")
    assert "[red]c" in extras_of(classes).charts(classes)


def test_long_tables_are_left_out_of_the_terminal(classes: dict[str, Any]) -> None:
    assert not {"confusion", "per_class", "by_subject", "calibration"} & set(results.brief(classes))
    assert results.brief(classes)["top1"] == 0.75


def test_figures_are_never_cut_on_80_columns(classes: dict[str, Any]) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results.terminal_tables({"a network with a long name": classes}, "test"))
    text = console.export_text()
    assert "…" not in text
    for figure in ("75.0 %", results.shown(classes["intervals"]["top1"]["clips"], "interval"), f"{classes['nll']:.3f}"):
        assert figure in text
