"""Every verb with names and values that are wrong or strange: exit code 0, 1 or 2, one line for 2, and never a traceback.

What has a right value has it in the tests of :mod:`modalift.values`, :mod:`modalift.yaml_text` and
:mod:`modalift.datasets.cells`; here it matters that every verb uses them.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from modalift import cli, load
from modalift.cli import common

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes, pipes, links")

Run = Callable[..., tuple[int, str]]
#: Names that are wrong or strange where a file, a folder or a word is expected.
NAMES = ["x" * 300, "x/" * 3000, "nul\0l", "", ".", "/", "pipe", "loop", "dangling", "file/below", "file", "~nobody_such/x",
         "caf\udce9", "a\nb", "a\tb", "[red]x[/]", "[/]", "a\x1b[31mb", "trail ", ":smile:", "empty", "\ud800", "{seed}", "%s",
         "a:b", "\u202e", "²", "01"]
#: Values that are wrong or strange for most keys.
VALUES = ["", "-1", "010", "1e1", "1e400", "1e30", "1,5", "nan", "yes", "x" * 300, "[1, 2]", "{a: 1}", "[", "'", "2024-01-01",
          "²", "9" * 5000, "1.5", "caf\udce9", "a\nb", "[!!python/object:x.y z]", "[&a [*a]]", "[[[[1]]]]", "[nan]", "none"]


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a dataset, a recipe, two runs, a bundle, and what is no regular file; the current folder."""
    folder, before = tmp_path_factory.mktemp("place"), Path.cwd()
    shutil.copytree(tiny, folder / "tiny")
    os.chdir(folder)
    tree = {"data": {"dataset": "csv", "root": "tiny", "frames": 5, "size": 16},
            "networks": {"student": {"name": "small", "view": "depth", "width": 4}}, "optim": {"epochs": 1, "batch": 4},
            "run": {"dir": "run", "device": "cpu", "precision": "fp32"}}
    Path("r.yaml").write_text(yaml.safe_dump(tree))
    for run in ("run", "run2"):
        assert command("train", "r.yaml", f"run.dir={run}")[0] == command("eval", run)[0] == 0
    assert command("ship", "run", "-o", "b.modalift")[0] == 0
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    Path("file").write_text("x")
    Path("empty").mkdir()
    yield folder
    os.chdir(before)


def command(*words: object) -> tuple[int, str]:
    """Runs a command line in this process; returns its exit code and what it wrote on standard error."""
    with pytest.MonkeyPatch.context() as patch:
        written = io.StringIO()
        patch.setattr(sys, "argv", ["modalift", *map(str, words)])
        patch.setattr(sys, "stderr", written)
        patch.setattr(sys, "stdout", io.StringIO())
        assert common.err.file is written
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, written.getvalue()


def check(*words: object, several: bool = False) -> int:
    """Runs a command and asserts the contract."""
    code, said = command(*words)
    shown = " ".join(ascii(str(w))[:60] for w in words)
    assert code in (0, 1, 2), f"{shown}: {code}"
    assert "Traceback" not in said, f"{shown}: {said}"
    errors = [line for line in said.splitlines() if line.startswith("error ")]
    assert len(errors) == (code == 2) or (several and errors), f"{shown}: {said}"
    if code == 2:
        assert said.splitlines()[-1] == errors[-1], f"{shown}: {said}"
        assert errors[-1].isprintable()
    return code


#: Each verb with a name in the place of each of its inputs.
INPUTS: dict[str, tuple[str, ...]] = {
    "check": ("--", "NAME"), "check csv": ("--dataset", "csv", "--", "NAME"),
    "check darkroom": ("--dataset", "darkroom", "--", "NAME"), "check sysu": ("--dataset", "sysu_mm01", "--", "NAME"),
    "check dataset": ("--dataset", "NAME", "tiny"),
    "index": ("-o", "out.csv", "--", "csv", "NAME"), "index dataset": ("-o", "out.csv", "--", "NAME", "tiny"),
    "simulate preset": ("out", "--clips", "1", "--preset", "NAME"),
    "derive": ("flow", "--", "NAME", "out"), "derive what": ("--", "NAME", "tiny", "out"),
    "derive bundle": ("pseudo_ir", "tiny", "out", "bundle=NAME"), "derive name": ("pose_map", "tiny", "out", "name=NAME"),
    "cache": ("--", "NAME", "out"), "cache view": ("tiny", "out", "--view", "NAME"),
    "cache codec": ("tiny", "out", "--codec", "NAME"),
    "explain": ("--", "NAME"), "train": ("--", "NAME"), "look": ("--", "NAME"), "study": ("--", "NAME"), "list": ("--", "NAME"),
    "cost": ("--", "NAME"), "cost input": ("small", "--input", "NAME"), "eval": ("--", "NAME"), "diagnose": ("--", "NAME"),
    "ship": ("--", "NAME"), "compare": ("--", "run", "NAME"), "fuse": ("--", "run", "NAME"),
    "predict": ("--", "NAME", "tiny/c00_depth.npz"), "predict clip": ("--", "b.modalift", "NAME"),
    "export": ("-o", "out.onnx", "--", "NAME"), "eval split": ("run", "--split", "NAME"),
    "eval student": ("run", "--student", "NAME"),
    "compare split": ("run", "run2", "--split", "NAME"), "compare student": ("run", "run2", "--student", "NAME"),
    "fuse student": ("run", "run2", "--student", "NAME"), "train match": ("r.yaml", "--match-compute", "NAME"),
    "study set": ("r.yaml", "--set", "NAME"),
}


@pytest.mark.parametrize("verb", INPUTS)
def test_strange_inputs(place, verb):
    for name in NAMES:
        check(verb.split()[0], *(word.replace("NAME", name) for word in INPUTS[verb]), several=verb == "predict clip")
        shutil.rmtree("out", ignore_errors=True)
        for written in ("out.csv", "out.json"):
            Path(written).unlink(missing_ok=True)
    assert os.path.lexists("dangling")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_strange_outputs(place, name, tmp_path, monkeypatch):
    if name in (".", "/"):
        pytest.skip("not a place to write")
    for entry in place.iterdir():
        (tmp_path / entry.name).symlink_to(entry) if entry.is_dir() or entry.suffix else None
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    before = {p.name: p.lstat().st_ino for p in tmp_path.iterdir()}
    check("ship", "run", "-o", name)
    check("export", "b.modalift", "-o", name)
    check("look", "r.yaml", "--out", name)
    check("compare", "run", "run2", "--out", name)
    check("cache", "--view", "depth", "--", "tiny", f"{name}c" if name in ("", "empty") else name)
    check("derive", "pose_map", "--", "tiny", name)
    check("index", "csv", "tiny", "-o", name)
    check("index", "csv", "tiny", "-o", f"{name}.csv")
    check("simulate", "--clips", "1", "--size", "16", "--frames", "2", "--", name)
    check("explain", "r.yaml", f"run.dir={name}", f"data.cache={name}")
    check("train", "r.yaml", f"run.dir={name}", "data.limit=4")
    after = {p.name: p.lstat().st_ino for p in tmp_path.iterdir()}
    assert {name: after.get(name) for name in before} == before, "nothing is replaced"
    assert not list(tmp_path.glob(".modalift-*"))


KEYS = ["data.root", "data.frames", "data.augment.scale", "data.augment", "data.cache", "data.options.test_subjects",
        "data.options.views", "data.options.views.depth.start", "data.options.mirrored", "data.options.first_label",
        "data.options.close_gaps", "data.options", "data.per_view.depth.size", "networks.student.width",
        "networks.student.init", "networks.student", "scheme.label_smoothing", "optim.lr", "optim.betas",
        "optim.updates.all.lr", "protocol.val_subjects", "protocol.fold", "protocol.spatial_crops", "run.tensorboard",
        "paper.value", "optim", "networks", "..", ""]


@pytest.mark.parametrize("key", KEYS)
def test_strange_values(place, key):
    for value in VALUES:
        check("explain", "r.yaml", f"{key}={value}")
    if key.startswith("data.options."):
        option = key.removeprefix("data.options.")
        for value in VALUES:
            if "." not in option:
                check("check", "--quick", "tiny", "-o", f"{option}={value}")


@pytest.mark.parametrize("number", ["-1", "0", "1e3", "1.5", "nan", "9" * 30, "9" * 5000, "x", "²", ""])
def test_strange_numbers(place, number):
    for words in (("cost", "small", "--classes", number), ("cost", "small", "--input", f"3x{number}x16x16"),
                  ("cost", "small", f"width={number}"), ("look", "r.yaml", "--clips", number, "--out", "l.png"),
                  ("predict", "b.modalift", "tiny/c00_depth.npz", "--top", number),
                  ("simulate", "--clips", "1", "--size", "16", "--frames", "2", "--lux", "1", number, "--", "out"),
                  ("simulate", "--clips", "1", "--size", number, "--", "out"), ("train", "r.yaml", f"run.workers={number}9999"),
                  ("simulate", "--clips", "1", "--workers", f"{number}9999", "--", "out"),
                  ("study", "r.yaml", "--jobs", f"{number}9999"), ("derive", "pose_map", "tiny", "out", f"sigma={number}")):
        check(*words)
        shutil.rmtree("out", ignore_errors=True)


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
TEXTS = {"empty": b"", "nul": b"\0", "bytes": bytes(range(256)), "half utf-16": b"\xff\xfea", "list": b"- 1", "word": b"x",
         "deep": b"[" * 100_000, "deep maps": b"{a: " * 5000, "open": b"{", "bomb": BOMB.encode(), "loop": b"a: &a [*a]",
         "tag": b"a: !!python/object/apply:os.system [x]", "key": b"? [a]\n: b", "digits": b"x: " + b"9" * 5000,
         "null": b"null", "surrogate": b'"\\ud800"',
         "json": b'{"a": 1e999, "b": NaN, "format": "modalift-manifest/1", "options": {"views": 5}}'}


@pytest.mark.parametrize("text", TEXTS)
def test_damaged_recipes(place, text, tmp_path):
    recipe = tmp_path / "y.yaml"
    recipe.write_bytes(TEXTS[text])
    for words in (("explain", recipe), ("study", recipe), ("train", "r.yaml", "--match-compute", recipe),
                  ("predict", recipe, "tiny/c00_depth.npz"), ("predict", "b.modalift", recipe)):
        assert check(*words) == 2, words
    check("explain", "r.yaml", f"networks.student.recipe={recipe}")
    check("--plugin", recipe, "list")


@pytest.mark.parametrize("name", ["recipe.yaml", "results.json", "compute.json", "environment.json", "clips.json", "log.jsonl",
                                  "test_ledger.jsonl", "models/student.modalift", "predictions/student-test.npz"])
def test_damaged_runs(place, name, tmp_path):
    run = tmp_path / "run"
    shutil.copytree("run", run)
    for text in ("empty", "deep", "json"):
        (run / name).write_bytes(TEXTS[text])
        for words in (("compare", "run", run, "--out", tmp_path / "c.html"), ("ship", run, "-o", tmp_path / "b"),
                      ("eval", run)):
            check(*words)


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.json", "dataset.json"])
def test_damaged_datasets(place, name, tmp_path):
    data = tmp_path / "tiny"
    shutil.copytree("tiny", data)
    for text in ("empty", "bytes", "half utf-16", "list", "deep", "digits", "json"):
        (data / name).write_bytes(TEXTS[text])
        for words in (("check", "--quick", data), ("check", "--dataset", "darkroom", data),
                      ("simulate", data, "--clips", "1", "--sheet", tmp_path / "s.png")):
            check(*words)


def test_a_dataset_of_strange_names_through_every_verb(place, tmp_path):
    names = ["²", "caf\udce9", "a\nb", "[red]x", "a\x1b[31mb", "x" * 250, "on", "01", "1", "-x", "trail "]
    for k, name in enumerate(names):
        for split in ("train", "test"):
            folder = tmp_path / "data" / split / name / f"s{split}_{name[:200]}"
            folder.mkdir(parents=True)
            frames = np.arange(5 * 256).reshape(5, 16, 16) + 2 * k + len(split)  # no two alike
            np.savez(folder / "depth.npz", frames=frames.astype(np.uint16))
    tree = {"data": {"dataset": "folder", "root": str(tmp_path / "data"), "frames": 4, "size": 16},
            "networks": {"student": {"name": "small", "view": "depth", "width": 4}}, "optim": {"epochs": 1, "batch": 4},
            "run": {"dir": str(tmp_path / "run"), "device": "cpu", "precision": "fp32"}}
    recipe = tmp_path / "names.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    clip = tmp_path / "data/test/caf\udce9/stest_caf\udce9/depth.npz"
    bundle = tmp_path / "b.modalift"
    for words in (("check", tmp_path / "data"), ("cache", tmp_path / "data", tmp_path / "cache"), ("explain", recipe),
                  ("look", recipe, "--out", tmp_path / "look.png"), ("train", recipe),
                  ("train", recipe, f"run.dir={tmp_path}/run2", f"data.cache={tmp_path}/cache"), ("eval", tmp_path / "run"),
                  ("eval", tmp_path / "run2", "--json"), ("compare", tmp_path / "run", tmp_path / "run2", "--out",
                                                         tmp_path / "c.html"), ("fuse", tmp_path / "run", tmp_path / "run2"),
                  ("ship", tmp_path / "run", "-o", bundle), ("predict", bundle, clip), ("predict", "--json", bundle, clip),
                  ("export", bundle, "-o", tmp_path / "b.onnx")):
        assert check(*words) == 0, words
    assert set(load(bundle).classes) == {name if name != "caf\udce9" else r"caf\xe9" for name in names}
