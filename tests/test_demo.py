"""The demo's clock: what it says is left follows from its parts, and logs that are being written do not disturb it."""

from __future__ import annotations

import json
from io import StringIO

from rich.console import Console

from modalift import demo
from modalift.engine.run import Run


def test_what_is_left_follows_the_pace(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(demo.time, "perf_counter", lambda: now[0])
    work = demo.Work({"simulation": 40.0, "taught": 60.0}, {"taught": 10}, 2, Console(file=StringIO()))
    assert work.left() == 50, "nothing is done: what was thought, on two cores"
    now[0] += 40
    work.at("simulation", 1.0)
    assert work.left() == 60, "it took twice as long as was thought, and so will the rest"
    work.at("simulation", 0.5)
    assert work.share["simulation"] == 1.0
    assert demo.clock(125) == "2:05 min"


def test_logs_that_are_being_written_are_read_as_far_as_they_go(tmp_path):
    work = demo.Work({"taught": 60.0}, {"taught": 10}, 2, Console(file=StringIO()))
    run = Run(tmp_path / "taught" / "seed0")
    work.update([run], now=True)
    assert work.share["taught"] == 0
    run.folder.mkdir(parents=True)
    (run.folder / "log.jsonl").write_text(json.dumps({"step": 4}) + "\n" + json.dumps({"step": 5})[:6])
    work.update([run], now=True)
    assert work.share["taught"] == 0.4
    run.results_path.write_text("{}")
    work.update([run], now=True)
    assert work.share["taught"] == 1
