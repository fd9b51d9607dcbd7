"""Sentences about clips that were left out, and about people and conditions; results of earlier versions are shown, too."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from modalift.models.metrics import score
from modalift.report import results, scope, terminal
from modalift.report.compare import compare_runs, write_comparison
from modalift.report.page import write_report

Parse = Callable[[Path], Any]


def said(shown: RenderableType) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def metrics(right: int = 7, n: int = 7, subjects: int = 6, **scopes: Any) -> dict[str, Any]:
    y = np.arange(n) % 3
    p = np.full((n, 3), 0.2)
    p[np.arange(n), np.where(np.arange(n) < right, y, (y + 1) % 3)] = 0.6
    return {"kind": "recognizer", **score(p, y, ["a", "b", "c"], subjects=[f"s{i % subjects}" for i in range(n)]), **scopes}


def held(subject: bool | None, shared: int = 0, clips: bool = True, **metadata: bool | None) -> dict[str, Any]:
    return {"clips": clips, "subject": subject, "shared_subjects": shared, "metadata": metadata}


COVERED = {"clips": 12, "scored": 7, "left_out": {"unreadable": 5}, "unreadable_labeled": 5, "max_corrupt": 0.05}
DAMAGED = {"left_out": {"c03": "c03.mkv is truncated", "c04": "c04.mkv is truncated"}, "coverage": COVERED}


def test_the_terminal_says_how_many_clips_were_left_out_and_why():
    text = said(results.terminal_tables({"student": metrics(**DAMAGED, held_out=held(True))}, "test"))
    assert "7 of 12" in text
    assert "student: 7 of 12 clips (5 left out: 5 unreadable; the first unreadable one: 'c03': c03.mkv is truncated)." in text
    assert "64.6–100.0 %" in text
    head, table = text.split("split: test")
    assert "warning: student: 5 of 12 clips are unreadable (42 %, more than data.max_corrupt = 5 %)" in head
    assert "top-1 may be 58.3 % (all of them wrong) to 100.0 % (all of them right)" in head
    assert "warning" not in table
    few = metrics(195, 195, **{**DAMAGED, "coverage": {**COVERED, "clips": 200, "scored": 195}})
    assert "warning" not in said(results.terminal_tables({"student": few}, "test"))


def test_all_reasons():
    covered = {"clips": 20, "scored": 7, "left_out": {"unreadable": 1, "no_view": 2, "unlabeled": 3, "limit": 7}}
    assert scope.counted({"n": 7, "coverage": covered, "left_out": {}}) == (
        "7 of 20 clips (13 left out: 1 unreadable, 2 not recorded by a sensor that is needed, 3 without a label, 7 beyond"
        " data.limit)")


@pytest.mark.parametrize(("held_out", "subjects", "sentence"), [
    (held(True), 6, "None of the 6 subjects was used in training, so intervals over subjects hold for other people."),
    (held(True), 2, "None of the 2 subjects was used in training, but there is no interval over subjects: two are too few."),
    (held(True), 1, "The subject was not used in training, but there is no interval over subjects: all clips are of one"
                    " subject."),
    (held(False, 6), 6, "All 6 subjects were also used in training: the figures say nothing about new people."),
    (held(False, 2), 6, "2 of the 6 subjects were also used in training: the figures say nothing about new people."),
    (held(False, 1), 1, "The subject was also used in training: the figures say nothing about new people."),
    (held(None), 6, "It is not known whether the subjects were used in training, so the figures say nothing about new people."),
    (held(False, 6, clips=False), 6, "These clips were used in training, or to select the checkpoint: the figures say nothing"
                                     " about new clips."),
    (None, 6, "It is not known whether the subjects were used in training, so the figures say nothing about new people."),
])
def test_new_people_only_where_the_split_holds_people_out(held_out, subjects, sentence):
    m = metrics(n=12, subjects=subjects, held_out=held_out)
    assert scope.people(m) == sentence
    assert sentence in said(results.terminal_tables({"student": m}, "test"))
    assert sentence in results.sentence(m, "test")
    assert ("other people" in results.sentence(m, "test")) == bool(held_out and held_out["subject"] and subjects > 2)


def test_unknown_subjects_conditions_and_one_class():
    y = np.zeros(8, int)
    found = score(np.eye(2)[y], y, ["wave", "stop"], subjects=["a", "b", "c", "", "unknown", "a", "b", "c"])
    m = {"kind": "recognizer", **found, "held_out": held(None, scene=True, day=False, room=None)}
    text = said(results.terminal_tables({"student": m}, "test"))
    assert "2 clips are of unknown subject, and not in intervals over subjects (top-1 of the others: 100.0 %)." in text
    assert "Values that training did not have: of scene. Values that it had, too: of day. Not known: of room." in text
    assert "All clips are of the class 'wave': the figures do not show that classes are told apart." in text
    assert "On the 8 clips of 3 subjects in the test split" in results.sentence(m, "test")


def test_nothing_was_scored():
    covered = {"clips": 12, "scored": 0, "left_out": {"unlabeled": 12}, "unreadable_labeled": 0, "max_corrupt": 0.05}
    m = metrics(0, 0, coverage=covered, held_out=held(None))
    assert results.sentence(m, "test") == "No clip of the test split could be scored: 12 left out: 12 without a label."
    text = said(results.terminal_tables({"student": m}, "test"))
    assert "0 of 12 clips (12 left out: 12 without a label)" in text
    assert "nan" not in text.lower()
    assert "–" in text
    one = metrics(1, 1)
    assert "On the 1 clip of one subject" in results.sentence(one, "test")
    assert "20.7–100.0 %" in results.sentence(one, "test")


def test_models_without_subjects_only_say_what_they_know():
    pictures = {"kind": "translator", "n": 4, "target": "thermal", "psnr": 21.6, "ssim": 0.7, "edges": 0.4, "flicker": None}
    assert scope.people(pictures) == ""
    assert scope.people({**pictures, "held_out": held(True)}) == "None of the subjects was used in training."
    assert scope.people({**pictures, "held_out": held(False, 3)}).startswith("3 of the subjects were also used in training:")
    text = said(results.terminal_tables({"student": {**pictures, **DAMAGED, "n": 7}}, "test"))
    assert "7 of 12 clips (5 left out: 5 unreadable" in text
    assert "top-1" not in text


def test_results_of_an_earlier_version_are_shown(make_run: Callable[..., Path], parse: Parse):
    run = make_run()
    stored = json.loads((run / "results.json").read_text())
    m = stored["student"]["test"]
    for key in ("coverage", "held_out", "over_subjects"):
        del m[key]
    for row in (*m["per_class"], *m["by_subject"]):
        del row["interval"]
    m["intervals"]["resamples"] = 2000
    m["left_out"] = {"c1": "is truncated"}
    m["by_subject"].append({"subject": "unknown", "n": 3, "top1": 0.5})
    (run / "results.json").write_text(json.dumps(stored))
    text = " ".join(parse(write_report(run, samples=[])).text)
    assert "On the 60 clips of 6 subjects in the test split" in text
    assert "60 clips (1 left out: 1 unreadable; the first unreadable one: 'c1': is truncated)" in text
    assert "It is not known whether the subjects were used in training" in text
    assert "bootstrap intervals, which are too narrow" in text
    assert "other people" not in text
    assert "accuracy of each of the 6 subjects" in text
    assert "warning" not in text
    assert "other people" not in said(terminal.comparison(compare_runs([run, make_run("other", seed=1)])))


def test_pages_head_with_the_warning_and_the_people(make_run: Callable[..., Path], parse: Parse, tmp_path: Path):
    a, b = make_run("a"), make_run("b", right=0.9, seed=1)
    for run in (a, b):
        stored = json.loads((run / "results.json").read_text())
        stored["student"]["test"] |= {"held_out": held(False, 2, scene=True), "left_out": {"c9": "is truncated"},
                                      "coverage": {**COVERED, "clips": 65, "scored": 60, "left_out": {"unreadable": 5}}}
        (run / "results.json").write_text(json.dumps(stored))
    people = "2 of the 6 subjects were also used in training: the figures say nothing about new people."
    page = " ".join(parse(write_report(a, samples=[])).text)
    compared = " ".join(parse(write_comparison([a, b], tmp_path / "c.html", samples=[])).text)
    for text in (page, compared):
        head = text[:text.index("Results")]
        assert "5 of 65 clips are unreadable (8 %, more than data.max_corrupt = 5 %)" in head
        assert "60 of 65 clips" in head
        assert people in head
        assert text.count(people) > 1
        assert "Values that training did not have: of scene." in text
        assert "other people" not in text
    assert people in compared[compared.index("How to read this"):]
    found = compare_runs([a, b])
    assert found["held_out"] == held(False, 2, scene=True)
    shown = said(terminal.comparison(found))
    assert "top-1 on 60 of 65 clips" in shown
    assert people in shown
