"""What every registered dataset keeps: a download in its byte form in, a Table whose promises hold out.

The byte form is written by ``tests/datasets/sample_<dataset>.py``: its ``write(root)`` makes a small example of the download
and returns the options that it is opened with.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalift import datasets
from modalift.datasets import DATASETS
from modalift.datasets.registry import GENERAL, RECOGNIZERS
from modalift.datasets.writing import write_manifest
from modalift.errors import ModaliftError
from modalift.loading import reading
from modalift.modalities import MODALITIES, SPLITS, Table

every = pytest.mark.parametrize("name", list(DATASETS))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """``name -> (folder, options)`` of a dataset's sample, each written once; nobody may write there."""
    made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def of(name: str) -> tuple[Path, dict[str, Any]]:
        if name not in made:
            try:
                module = importlib.import_module(f"sample_{name}")
            except ModuleNotFoundError:
                pytest.fail(f"tests/datasets/sample_{name}.py is missing: write(root) makes a small example of the download")
            root = tmp_path_factory.mktemp(name) / "data"
            made[name] = root, module.write(root)
        return made[name]

    return of


@pytest.fixture
def opened(sample, name) -> Table:
    root, options = sample(name)
    return datasets.open(name, root, **options)


def one_line(told: pytest.ExceptionInfo[ModaliftError]) -> str:
    assert "\n" not in str(told.value)
    return str(told.value)


@every
def test_a_table_whose_promises_hold(name, opened):
    assert isinstance(opened, Table)
    assert len(opened) >= 4
    assert len({row.id for row in opened}) == len(opened)
    assert len(set(opened.classes)) == len(opened.classes)
    assert all(isinstance(c, str) and c for c in opened.classes)
    assert opened.views
    for row in opened:
        assert row.split in SPLITS
        assert row.label is None or 0 <= row.label < len(opened.classes)
        assert isinstance(row.subject, str)
        assert row.tracks, f"{row.id} was seen by no sensor"
        assert set(row.tracks) <= set(opened.views)
    assert any(row.label is not None for row in opened)
    assert sum(len(opened.split(s)) for s in SPLITS) == len(opened)
    assert opened.split("train").rows
    assert opened.split("test").rows
    for one, other in opened.mirrored.items():
        assert opened.mirrored[other] == one, "a mirror image of a mirror image is what it was"


@every
def test_views_are_of_modalities_that_there_are(name, opened):
    for view, kind in opened.views.items():
        assert kind.with_channels(MODALITIES[kind.name].channels) == MODALITIES[kind.name], view
        assert kind.channels >= 1, f"{view}: a table says how many channels there are"


@every
def test_every_track_is_there_and_is_read(name, opened):
    for row in opened:
        for view, track in row.tracks.items():
            assert track.path.exists(), f"{row.id}: {view}"
    for view, kind in opened.views.items():
        row = next(row for row in opened if view in row.tracks)
        frames = reading.read(row.tracks[view], kind)
        assert frames.dtype == kind.dtype
        assert frames.ndim == 4
        assert frames.shape[3] == kind.channels


@every
def test_opened_again_it_is_the_same(name, sample, opened):
    root, options = sample(name)
    before = sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))
    assert datasets.open(name, str(root), **options) == opened
    assert sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*")) == before, "nothing is written into a download"
    assert pickle.loads(pickle.dumps(opened)) == opened


@every
def test_a_download_may_move(name, sample, opened, tmp_path):
    root, options = sample(name)
    shutil.copytree(root, tmp_path / "elsewhere" / root.name)
    moved = datasets.open(name, tmp_path / "elsewhere" / root.name, **options)
    assert moved.fingerprint() == opened.fingerprint()
    assert [row.id for row in moved] == [row.id for row in opened], "order must not depend on the file system"
    assert opened.where(lambda row: row is not opened[0]).fingerprint() != opened.fingerprint()


@every
def test_it_is_recognized_as_itself_only(name, sample):
    root = sample(name)[0]
    assert datasets.guess(root) == name
    takers = [other for other, recognize in RECOGNIZERS.items() if other not in GENERAL and recognize(root)]
    assert takers == [name] * (name not in GENERAL)


@every
def test_a_release_tells_what_a_whole_download_has(name, sample, opened):
    options = sample(name)[1]
    release = datasets.release_of(name, **options)
    if release is None:
        return
    assert {view: kind.name for view, kind in opened.views.items()}.items() <= dict(release.views).items()
    assert opened.classes == release.classes
    assert set(release.clips) <= set(SPLITS) or set(release.clips) == {"total"}
    assert set(release.clips) == {"total"} or all(row.split in release.clips for row in opened)
    assert release.source
    assert release.download
    compared = datasets.compare_with_release(opened, name, True, **options)
    assert compared.clips == {split: (len(opened) if split == "total" else len(opened.split(split)), published)
                              for split, published in release.clips.items()}
    assert not compared.complete, "a sample is not the whole release"


@every
def test_indexed_and_read_back_it_is_the_same(name, opened, tmp_path):
    written = write_manifest(opened, tmp_path / "tables", "index.csv")
    assert datasets.guess(written) == "csv"
    assert absolute(datasets.open("csv", written)) == absolute(opened)


def absolute(table: Table) -> Table:
    """The table with paths that do not depend on where it is opened from."""
    return table.map(lambda row: replace(row, tracks={
        view: replace(track, path=track.path.resolve()) for view, track in row.tracks.items()}))


@every
def test_every_option_has_a_default_and_is_explained(name):
    root, *options = inspect.signature(DATASETS[name]).parameters.values()
    assert root.name == "root"
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is not inspect.Parameter.empty for p in options)
    text = inspect.getdoc(DATASETS[name]) or ""
    assert all(p.name in text for p in options)


@every
def test_what_is_wrong_is_told_in_one_line(name, sample, tmp_path):
    root, options = sample(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModaliftError) as told:
        datasets.open(name, tmp_path / "empty", **options)
    assert str(tmp_path / "empty") in one_line(told), "the folder is named"
    with pytest.raises(ModaliftError, match="does not exist"):
        datasets.open(name, tmp_path / "nowhere", **options)
    with pytest.raises(ModaliftError, match=r"unknown key 'data\.options\.no_such_option'"):
        datasets.open(name, root, no_such_option=1)


@every
def test_a_broken_download_never_ends_in_a_traceback(name, sample, tmp_path):
    root, options = sample(name)
    for number, victim in enumerate(sorted(p for p in root.rglob("*") if p.is_file())[:40]):
        broken = tmp_path / str(number) / root.name
        shutil.copytree(root, broken, copy_function=link)
        place = broken / victim.relative_to(root)
        place.unlink()
        place.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
        try:
            assert isinstance(datasets.open(name, broken, **options), Table)
        except ModaliftError as error:
            assert "\n" not in str(error)  # noqa: PT017  (either is right: the file may matter or not)


def link(source: str, target: str) -> None:
    """The file as it is, at another place, without a copy."""
    Path(target).hardlink_to(source)
