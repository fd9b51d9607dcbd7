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
    work = demo.Work({"simulation": 40.0, "taught_thermal": 60.0}, {"taught_thermal": 10}, 2, Console(file=StringIO()))
    assert work.left() == 80, "nothing is done: what was thought, two cores for the simulation and one for the training"
    now[0] += 40
    work.at("simulation", 1.0)
    assert work.left() == 120, "it took twice as long as was thought, and so will the rest"
    work.at("simulation", 0.5)
    assert work.share["simulation"] == 1.0
    assert demo.clock(125) == "2:05 min"


def test_a_round_takes_as_long_as_its_busiest_core():
    seconds = {"simulation": 20.0, "teacher_thermal": 9.0, "labels_long": 8.0, "labels_only": 3.0, "labels_compute": 7.0,
               "taught_thermal": 6.0, "self_training": 6.0, "shipping": 5.0}
    assert demo.span(seconds, 2) == 10 + 11 + 12 + 5
    assert demo.span(seconds, 1) == sum(seconds.values())
    assert {name for names in demo.ROUNDS for name in names} == seconds.keys() - {"simulation", "shipping"}


def test_the_time_of_other_processes_is_not_that_of_a_step(monkeypatch):
    wall, cpu = [0.0], [0.0]
    monkeypatch.setattr(demo.time, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(demo.time, "process_time", lambda: cpu[0])
    times = demo.StepTimes()
    wall[0] += 30  # a self-test before the first step
    with times.progress("training", 6) as update:
        for step in range(1, 7):
            wall[0], cpu[0] = wall[0] + 2, cpu[0] + 1
            update(step)
    assert times.since(2) == (2, 1)


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
