"""Comparisons: figures, page, and runs that cannot be compared."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modalift.engine.roles import RoleChoice
from modalift.engine.statistics import main_interval, paired, paired_seeds
from modalift.errors import ModaliftError
from modalift.modalities import Table
from modalift.models import Predictions
from modalift.report import terminal
from modalift.report.compare import compare_runs, verdict, write_comparison
from modalift.report.numbers import percent, points

Parse = Callable[[Path], Any]
Check = Callable[[Path], None]


def load(run: Path) -> Predictions:
    return Predictions.load(run / "predictions" / "student-test.npz")


def test_figures_are_those_of_the_paired_test(make_run: Callable[..., Path]) -> None:
    a, b = make_run("a", right=0.4), make_run("b", right=0.9, seed=1)
    found = compare_runs([a, b])
    assert found["baseline"] == "a"
    assert found["rows"][0]["against_first"] is None
    assert found["rows"][1]["against_first"] == paired(load(a), load(b))
    assert found["rows"][1]["view"] == "depth"
    assert found["rows"][1]["training_macs"] == 3e12
    json.dumps(found, allow_nan=False)


def test_seeds_are_paired(make_run: Callable[..., Path]) -> None:
    a = [make_run(f"a/seed{s}", right=0.4, seed=s) for s in range(2)]
    b = [make_run(f"b/seed{s}", right=0.9, seed=9 + s) for s in range(2)]
    row = compare_runs({"A": a, "B": b})["rows"][1]
    assert row["against_first"] == paired_seeds([load(x) for x in a], [load(x) for x in b])
    assert row["seeds"] == 2
    assert row["sd"] is not None


def test_the_tables_of_the_terminal_hold_every_figure_on_80_columns(make_run: Callable[..., Path]) -> None:
    found = compare_runs([make_run("a", right=0.4), make_run("b [red]", right=0.9, seed=1)])
    row = {"name": "first", "epochs": 20, "training_macs": 3.2e12, "seconds": 120.4, "top1": [0.5, 0.6], "mean": 0.55,
           "sd": 0.0712, "n": 60, "subjects": 6}
    gain = {"difference": 0.021, "over_seeds": [-0.1, 0.2], "seeds": 2,
            "intervals": {"clips": [-0.11, 0.21], "subjects": [-0.311, 0.412]}}
    study = {"split": "test", "held_out": None, "rows": [row, {**row, "name": "[red]other", "sd": None, "against_first": gain}]}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal.comparison(found), terminal.study(study))
    text = console.export_text()
    pair = found["rows"][1]["against_first"]
    first = percent(found["rows"][0]["top1"])
    for figure in (first, points(pair["difference"]), "b [red]", "3.00 T", "7.1 %", "+2.1", "+41.2"):
        assert figure in text, figure
    assert "…" not in text


def test_page(make_run: Callable[..., Path], table: Table, tmp_path: Path, closed_in_itself: Check, parse: Parse) -> None:
    runs = {"labels <only>": make_run("a", right=0.3), "taught": make_run("b", right=0.9, seed=1), "third": make_run("c")}
    path = write_comparison(runs, tmp_path / "out" / "page.html", table=table, focus="taught")
    closed_in_itself(path)
    text = " ".join(parse(path).text)
    for words in ("labels <only>", "taught", "better", "McNemar", "Brightness", "recall of taught minus", "neither", "clip001"):
        assert words in text, words


def test_page_of_seeds_and_of_data_that_are_gone(make_run: Callable[..., Path], tmp_path: Path, parse: Parse) -> None:
    runs = {n: [make_run(f"{n}{s}", right=r, seed=s) for s in range(2)] for n, r in (("A", 0.5), ("B", 0.5))}
    text = " ".join(parse(write_comparison(runs, tmp_path / "page.html")).text)
    assert "paired seeds" in text
    assert "No clips are shown" in text


def test_words_of_the_verdict(make_run: Callable[..., Path]) -> None:
    low, high = load(make_run("a", right=0.2)), load(make_run("b", right=0.95, seed=1))
    assert verdict(paired(low, high)) == "better"
    assert verdict(paired(high, low)) == "worse"
    same = load(make_run("c", right=0.5, seed=2))
    assert verdict(paired(same, same)) == "no difference shown"
    alone = paired(low.take(low.ids == "clip000"), high.take(high.ids == "clip000"))
    assert main_interval(alone)[0] == pytest.approx([-0.7335, 1.0], abs=1e-4)
    assert verdict(alone) == "no difference shown", "one clip shows nothing"


def test_no_difference_is_said_in_the_first_paragraph(make_run: Callable[..., Path], tmp_path: Path) -> None:
    path = write_comparison([make_run("a", seed=1), make_run("b", seed=2)], tmp_path / "page.html", samples=[])
    assert "no difference is shown" in path.read_text()


def test_runs_that_cannot_be_compared(make_run: Callable[..., Path], tmp_path: Path) -> None:
    a, b = make_run("a"), make_run("b")
    with pytest.raises(ModaliftError, match="at least two different run folders"):
        compare_runs([a])
    with pytest.raises(ModaliftError, match="at least two different run folders"):
        compare_runs([a, a])
    with pytest.raises(ModaliftError, match="no predictions of 'student' on the split 'val'"):
        compare_runs([a, b], split="val")
    with pytest.raises(ModaliftError, match=r"unknown split 'tets' - did you mean 'test'"):
        compare_runs([a, b], split="tets")
    with pytest.raises(ModaliftError, match="no run has a network in the role 'teacher'"):
        compare_runs([a, b], choice=RoleChoice(("teacher",)))
    with pytest.raises(ModaliftError, match="focus 'x' is not one of the runs"):
        write_comparison([a, b], tmp_path / "page.html", focus="x")
    with pytest.raises(ModaliftError, match="is missing in"):
        compare_runs([a, make_run("fewer", clips=59)])
    with pytest.raises(ModaliftError, match="no such run folder"):
        compare_runs([a, tmp_path / "nowhere"])
    (b / "models" / "student.modalift").unlink()
    with pytest.raises(ModaliftError, match="no trained network"):
        compare_runs([a, b])
