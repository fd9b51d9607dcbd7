"""What every registered derived view keeps: a table in, the table with one view more out, whole or not at all.

A view whose options have no defaults that fit is given them by ``tests/derive/options_<view>.py``: its ``options(folder)``.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modalift import datasets
from modalift.darkroom import simulate
from modalift.derive import DERIVED, derive
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import MODALITIES, Table

every = pytest.mark.parametrize("name", list(DERIVED))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    """Four clips of all the simulator's sensors; the last one lacks all but depth."""
    root = simulate(tmp_path_factory.mktemp("dark") / "data", clips=4, size=32, frames=4, train_subjects=1, test_subjects=1)
    found = datasets.open("darkroom", root)
    blind = replace(found.rows[-1], tracks={"depth": found.rows[-1].tracks["depth"]})
    return replace(found, rows=(*found.rows[:-1], blind))


@pytest.fixture
def options(name, tmp_path) -> dict[str, Any]:
    (tmp_path / "needed").mkdir()
    module = f"options_{name}"
    return importlib.import_module(module).options(tmp_path / "needed") if find_spec(module) else {}


def files(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@every
def test_the_table_with_one_view_more(name, table, options, tmp_path):
    made = derive(name, table, tmp_path / "out", **options)
    (new,) = set(made.views) - set(table.views)
    kind = made.views[new]
    assert kind.with_channels(MODALITIES[kind.name].channels) == MODALITIES[kind.name]
    assert {view: made.views[view] for view in table.views} == dict(table.views)
    assert [(r.id, r.label, r.split, r.subject) for r in made] == [(r.id, r.label, r.split, r.subject) for r in table]
    for was, row in zip(table, made, strict=True):
        assert {v: t.path for v, t in row.tracks.items() if v != new} == {v: t.path for v, t in was.tracks.items()}
        if new in row.tracks:
            assert row.tracks[new].path.is_relative_to(tmp_path / "out")
            frames = reading.read(row.tracks[new], kind)
            assert (frames.dtype, frames.shape[3]) == (kind.dtype, kind.channels)
    assert sum(new in row.tracks for row in made) >= 3
    assert datasets.open(datasets.guess(tmp_path / "out"), tmp_path / "out") == made


@every
def test_two_runs_write_the_same_bytes(name, table, options, tmp_path):
    for folder in ("one", "two"):
        derive(name, table, tmp_path / folder, **options)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@every
def test_stopped_half_way_nothing_is_left(name, table, options, tmp_path):
    def stop(done: int, of: int) -> None:
        assert of == len(table)
        if done == 2:
            raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        derive(name, table, tmp_path / "out", progress=stop, **options)
    assert set(tmp_path.iterdir()) == before
    derive(name, table, tmp_path / "out", **options)  # and the next try finds room


@every
def test_what_is_wrong_is_told_in_one_line(name, table, options, tmp_path):
    def refused(match: str, **more: Any) -> None:
        with pytest.raises(ModaliftError, match=match) as told:
            derive(name, table, tmp_path / "out", **options | more)
        assert "\n" not in str(told.value)

    refused("no view 'no_such_view'", view="no_such_view")
    refused("unknown key '[a-z_]+\\.no_such_option'", no_such_option=1)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    refused("is not empty")
    assert files(tmp_path / "out") == {Path("mine.txt"): b"kept"}


@every
def test_every_option_has_a_default_and_is_explained(name):
    given, view, out, *options = inspect.signature(DERIVED[name]).parameters.values()
    assert (given.name, view.name, out.name) == ("table", "view", "out")
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is not inspect.Parameter.empty for p in options)
    assert {"name", "progress"} <= {p.name for p in options}
    text = inspect.getdoc(DERIVED[name]) or ""
    assert all(p.name in text for p in options)
