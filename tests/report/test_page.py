"""The page of a run: whole, closed in itself, escaped, and graceful where something is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modalift.errors import ModaliftError
from modalift.modalities import Table
from modalift.report.clips import sample_clips
from modalift.report.page import write_report
from modalift.report.record import read_record

Parse = Callable[[Path], Any]
Check = Callable[[Path], None]


def test_a_whole_run(make_run: Callable[..., Path], table: Table, closed_in_itself: Check, parse: Parse) -> None:
    run = make_run()
    path = write_report(run, table=table)
    assert path == run / "report.html"
    closed_in_itself(path)
    text = " ".join(parse(path).text)
    for words in ("finished", "depth", "teacher", "kd/teacher>student", "accuracy by brightness", "calibration", "2030",
                  "evaluated once", "the whole recipe", "learning rate", "top-1 during training", "other people"):
        assert words in text, words
    assert "logged only" in text  # a term that never enters the loss
    assert "above zero from epoch 2" in text


def test_names_stay_text(make_run: Callable[..., Path], table: Table, parse: Parse) -> None:
    page = parse(write_report(make_run("<b>run<b>"), table=table))
    assert not {"b>", "em", "u", "bytes"} & set(page.seen)
    text = " ".join(page.text)
    for name in ("<script>alert(1)</script>", 'quote" onload="x', "plain & simple", "<em>clip</em>", "<u>2</u>", "<s1>"):
        assert name in text


def test_data_that_are_gone(make_run: Callable[..., Path], parse: Parse) -> None:
    text = " ".join(parse(write_report(make_run())).text)
    assert "No clips are shown" in text
    assert "does not exist" in text


@pytest.mark.parametrize("gone", ["recipe.yaml", "log.jsonl", "results.json", "environment.json", "compute.json",
                                  "test_ledger.jsonl", "models/student.modalift", "predictions/student-test.npz"])
def test_one_piece_missing(make_run: Callable[..., Path], table: Table, gone: str, closed_in_itself: Check) -> None:
    run = make_run()
    (run / gone).unlink()
    closed_in_itself(write_report(run, table=table))


@pytest.mark.parametrize("broken", ["recipe.yaml", "log.jsonl", "results.json", "environment.json", "test_ledger.jsonl",
                                    "models/student.modalift", "predictions/student-test.npz"])
def test_one_piece_cut_in_half(make_run: Callable[..., Path], table: Table, broken: str, closed_in_itself: Check) -> None:
    run = make_run()
    content = (run / broken).read_bytes()
    (run / broken).write_bytes(content[: len(content) // 2])
    closed_in_itself(write_report(run, table=table))


def test_interrupted(make_run: Callable[..., Path], parse: Parse) -> None:
    run = make_run(network=False)
    (run / "results.json").unlink()
    log = (run / "log.jsonl").read_text().splitlines()
    (run / "log.jsonl").write_text("\n".join(log[:4]) + "\n" + log[4][:30])  # killed while writing
    text = " ".join(parse(write_report(run)).text)
    assert "not finished" in text
    assert "last complete epoch is 2 of 3" in text
    assert "There are no results yet" in text
    assert "could not be read" not in text  # half a last line is how a kill looks, nothing to worry about


def test_just_begun(tmp_path: Path, closed_in_itself: Check) -> None:
    run = tmp_path / "new"
    run.mkdir()
    (run / "recipe.yaml").write_text("networks: {student: {name: small, view: depth}}\n")
    closed_in_itself(write_report(run))
    assert "not started" in (run / "report.html").read_text()


def test_loss_that_is_not_finite(make_run: Callable[..., Path], closed_in_itself: Check) -> None:
    run = make_run()
    entry = {"kind": "epoch", "epoch": 3, "step": 40, "loss": float("nan"), "lr": 1e-3,
             "terms": {"ce/student": float("inf")}, "weights": {"ce/student": 1.0}}
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
    path = write_report(run, samples=[])
    closed_in_itself(path)
    assert not re.search(r'd="[^"]*(nan|inf)', path.read_text())


def test_no_subjects_no_lux_no_validation(make_run: Callable[..., Path], parse: Parse) -> None:
    run = make_run()
    results = json.loads((run / "results.json").read_text())
    metrics = results["student"]["test"]
    metrics.update(by_metadata={}, by_subject=[], over_subjects={"subjects": 0, "clips": 0, "top1": None, "unknown": 60})
    metrics["held_out"]["subject"] = None
    metrics["intervals"]["top1"]["subjects"] = None
    (run / "results.json").write_text(json.dumps(results))
    lines = [json.loads(x) for x in (run / "log.jsonl").read_text().splitlines()]
    (run / "log.jsonl").write_text("".join(json.dumps({k: v for k, v in x.items() if k != "val"}) + "\n" for x in lines))
    text = " ".join(parse(write_report(run, samples=[])).text)
    assert "Accuracy by brightness is not shown" in text
    assert "There are no validation results" in text
    assert "there is no interval over subjects: no subject is known" in text
    assert "other people" not in text


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(ModaliftError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ModaliftError, match="not a run folder"):
        write_report(tmp_path)


def test_an_unknown_family_costs_only_its_figure(make_run: Callable[..., Path], closed_in_itself: Check,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    monkeypatch.setattr("modalift.networks.build", lambda **_: (_ for _ in ()).throw(ModaliftError("unknown network")))
    record = read_record(run)
    assert record.networks["student"].parameters is None
    assert "cost of 'student' is unknown" in record.problems[0]
    closed_in_itself(write_report(run, samples=[]))


def test_resumed_run_counts_each_epoch_once(make_run: Callable[..., Path]) -> None:
    run = make_run()
    text = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(text + text.splitlines()[-1] + "\n")
    assert len(read_record(run).epochs) == 3


def test_samples_that_are_given(make_run: Callable[..., Path], table: Table) -> None:
    given = sample_clips(table, [1, 2])
    text = write_report(make_run(), samples=given).read_text()
    assert text.count('class="card clip"') == 2
