"""The lists of action datasets with anything in them: a clear error, or a table whose clips are right."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import sample_arid
import sample_mgr_dark
import sample_ntu_rgbd
import sample_pku_mmd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalift import datasets
from modalift.errors import ModaliftError

#: Dataset -> its sample, and the lists in it.
LISTS = {"pku_mmd": (sample_pku_mmd, ("Label/Train_Label_PKU_final/0002-L.txt", "Split/cross-subject.txt")),
         "arid": (sample_arid, ("list_cvt/ARID_split1_train.txt", "list_cvt/ARID_split1_test.txt")),
         "ntu_rgbd": (sample_ntu_rgbd, ("NTU_RGBD_samples_with_missing_skeletons.txt",)),
         "mgr_dark": (sample_mgr_dark, ("manifest.csv",))}
#: What stands in for a piece of a list.
PIECES = st.one_of(st.sampled_from([b"", b"\n", b",", b"\t", b"\0", b"\xff", b"-1", b"9" * 25, b"1e3", b"../../x", b"0002-L",
                                    b"2"]), st.binary(max_size=6))


@pytest.fixture(scope="module", params=LISTS)
def sample(request, tmp_path_factory) -> tuple[str, Path]:
    root = tmp_path_factory.mktemp(request.param) / "data"
    LISTS[request.param][0].write(root)
    return request.param, root


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_list_gives_a_table_or_a_clear_error(sample, data):
    name, root = sample
    for file in LISTS[name][1]:
        path = root / file
        whole = path.read_bytes()
        text = whole
        for _ in range(data.draw(st.integers(0, 3))):
            start = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(start, min(len(text), start + 8)))
            text = text[:start] + data.draw(PIECES) + text[end:]
        path.write_bytes(text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                table = datasets.open(name, root)
            assert all(row.tracks and row.split in ("train", "val", "test") for row in table)
            assert all(t.start < t.end for row in table for t in row.tracks.values() if t.end is not None)
        except ModaliftError as error:
            assert "\n" not in str(error)  # noqa: PT017
        finally:
            path.write_bytes(whole)


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("SCPRA0123456789_.abirgdestklonvx-LMR"), max_size=30))
def test_any_name_is_a_recording_or_none(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("names")
    try:
        (root / (name or "x")).touch()
        datasets.guess(root)
        for dataset in ("ntu_rgbd", "utd_mhad"):
            try:
                assert len(datasets.open(dataset, root)) == 1
            except ModaliftError as error:
                assert "\n" not in str(error)  # noqa: PT017
    finally:
        shutil.rmtree(root)
