"""Run folders made up for the tests: one finished, with everything in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from modalift import networks
from modalift.loading.framing import Framing
from modalift.modalities import Row, Table, Track, build_table, modality
from modalift.models import Predictions, model_of
from modalift.models.metrics import score

#: Names that try to leave their place in the page.
NASTY = ("<script>alert(1)</script>", 'quote" onload="x', "plain & simple")


#: Tags that are never closed.
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Strict(HTMLParser):
    """Every tag closed in order; collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse_page(path: Path) -> Strict:
    page = Strict()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def check_closed(path: Path) -> None:
    """No script, no handler, no address of another host anywhere."""
    page = parse_page(path)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.seen)
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        if name in ("src", "href", "data", "srcset", "action"):
            assert value is not None
            assert value.startswith(("data:image/", "#")), value
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def write_run(folder: Path, *, right: float = 0.7, seed: int = 0, view: str = "depth", clips: int = 60,
              network: bool = True) -> Path:
    """A run of three classes and six subjects whose predictions are right for a share of the clips."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    recipe = {"data": {"dataset": "csv", "root": "/nowhere/<b>data</b>", "frames": 4, "size": 16},
              "networks": {"student": {"name": "small", "view": view}, "teacher": {"init": "runs/<i>teacher</i>"}},
              "scheme": {"name": "distill", "kd_weight": 8.0}, "optim": {"epochs": 3}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lines = []
    for epoch in range(3):
        terms = {"ce/student": 1.0 / (epoch + 1), "kd/teacher>student": 0.1, "at/teacher>student": 2.0}
        entry = {"epoch": epoch, "loss": 2.0 - 0.5 * epoch, "lr": 0.001, "terms": terms,
                 "weights": {"ce/student": 1.0, "kd/teacher>student": 8.0 * (epoch > 0),
                             "at/teacher>student": 0.0}}
        lines += [{"kind": "step", "step": 10 * epoch + 5, **entry},
                  {"kind": "epoch", "step": 10 * epoch + 10, "seconds": 4.0 * (epoch + 1), **entry,
                   "val": {"student": {"top1": 0.3 + 0.1 * epoch}}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (folder / "environment.json").write_text(json.dumps({"torch": "<u>2</u>", "gpu": None}))
    (folder / "compute.json").write_text(json.dumps({"training_macs": 3e12, "seconds": 12.0, "epochs": 3,
                                                     "left_out": {"<em>clip</em>": "zero <bytes>"}}))
    y = np.arange(clips) % 3
    p = np.full((clips, 3), 0.2)
    p[np.arange(clips), np.where(rng.random(clips) < right, y, (y + 1) % 3)] = 0.6
    found = Predictions(np.array([f"clip{i:03}" for i in range(clips)]), y, np.array([f"<s{i % 6}>" for i in range(clips)]),
                        p, {"lux": np.linspace(1, 8, clips)})
    found.save(folder / "predictions" / "student-test.npz")
    metrics = score(found.probabilities, found.labels, NASTY, subjects=found.subjects, metadata=dict(found.metadata))
    scope = {"left_out": {}, "coverage": {"clips": clips, "scored": clips, "left_out": {}, "unreadable_labeled": 0,
                                          "max_corrupt": 0.05},
             "held_out": {"clips": True, "subject": True, "shared_subjects": 0, "metadata": {}}}
    (folder / "results.json").write_text(json.dumps({"student": {"test": {"kind": "recognizer", **metrics, **scope}}}))
    (folder / "test_ledger.jsonl").write_text(json.dumps({"when": "2030", "role": "student", "top1": metrics["top1"]}) + "\n")
    if network:
        net = networks.build("small", classes=3, view=view, frames=4, size=16)
        model_of(net, {view: Framing(frames=4, size=16)}, NASTY).save(folder / "models" / "student.modalift")
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda name="run", **options: write_run(tmp_path / name, **options)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Six clips of depth (arrays), of joints and of accelerations; one clip lacks its depth, one file is empty."""
    rng = np.random.default_rng(0)
    depth = rng.integers(500, 3000, (6, 5, 20, 30)).astype(np.uint16)
    depth[:, :, :, :24] = 0
    rows = []
    for i in range(6):
        np.save(tmp_path / f"d{i}.npy", depth[i])
        np.savez(tmp_path / f"p{i}.npz", joints=rng.normal(size=(7, 5, 3)).astype(np.float32),
                 imu=rng.normal(size=(30, 6)).astype(np.float32))
        tracks = {"pose": Track(tmp_path / f"p{i}.npz", key="joints"), "imu": Track(tmp_path / f"p{i}.npz", key="imu")}
        if i:
            tracks["depth"] = Track(tmp_path / f"d{i}.npy")
        rows.append(Row(f"clip{i:03}", i % 3 if i < 5 else None, f"<s{i}>", "test", tracks,
                        {"lux": float(8 - i), "frames": 5.0}))
    (tmp_path / "d3.npy").write_bytes(b"")
    views = {"depth": modality("depth"), "pose": modality("pose", 15), "imu": modality("imu", 6)}
    return build_table("made up", NASTY, views, rows)


@pytest.fixture
def parse() -> Callable[[Path], Strict]:
    return parse_page


@pytest.fixture
def closed_in_itself() -> Callable[[Path], None]:
    return check_closed
