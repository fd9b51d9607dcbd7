"""Any bytes in a list: a right answer or one clear line, never another exception."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalift import datasets
from modalift.datasets import egogesture, ipn_hand, isogd, jester, ld_congr, nvgesture, viva
from modalift.errors import ModaliftError
from modalift.modalities import Table

LINES = {
    "nvgesture": b"path:./Video_data/class_01/subject3_r0 depth:sk_depth:146:226 color:sk_color:146:226 "
                 b"duo_left:duo_left:170:263 label:1 \n"
                 b"path:./Video_data/class_01/subject13_r0 depth:sk_depth:138:218 color:sk_color:138:218 label:1 \n",
    "group": b"2,178,218\n1,285,327\n ,,\n11,1201,1276",
    "egogesture": b"Subject02/Scene1/Color/rgb1 1 324 359\nSubject03/Scene2/Color/rgb6 56 98.0 143.0\n"
                  b"Subject02/Scene1/Color/rgb1 84 1 9",
    "isogd": b"train/001/M_00001.avi train/001/K_00001.avi 26\ntest/001/M_00001.avi test/001/K_00001.avi 0\n"
             b"test/001/M_00001 57 37\n",
    "jester": b"34870;Drumming Fingers\n9223;Thumb Up\n109621\n",
    "ipn_hand": b"video,label,id,t_start,t_end,frames\r\n1CM1_4_R_#229,D0X,1,1,17,17\r\n1CM1_4_R_#229,G11,14,18,55,38",
    "ld_congr": b"004/g_s1_l1_00001,26 36 0,78 89 0\n./frames/002/g_s1_l1_00001_color_all 1 14 35\n",
    "log": b"".join(b"img%05d.png %d\n" % (k, 1440454708434336170 + k * 33000000) for k in range(4)),
}
JUNK = st.one_of(st.binary(max_size=6), st.sampled_from([
    b"", b"\n", b"\r", b" ", b",", b";", b":", b"/", b"..", b"-1", b"0", b"1e9", b"nan", b"9" * 30, b"9" * 5000, b"\0",
    b"\xff\xfe", b"\xef\xbb\xbf", "٣".encode(), "²".encode(), "\u2028".encode(), b'"', b"1.0", b"1.", b"0x1"]))


@st.composite
def mutated(draw, data: bytes) -> bytes:
    """Lines like the genuine ones, of which some parts are replaced, left out or repeated."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 20)))
        data = data[:at] + draw(JUNK) + data[end if draw(st.booleans()) else at:]
    return data


def windows(found, classes: int) -> None:
    for sample in found:
        assert sample.label is None or 0 <= sample.label < classes
        assert not hasattr(sample, "start") or 0 <= sample.start < sample.end


def samples_of_nvgesture(file: Path) -> None:
    found = nvgesture.parse_list(file)
    windows(found, 25)
    assert all(0 <= start < end for sample in found for _, start, end in sample.windows.values())


def group_of_egogesture(file: Path) -> None:
    found, junk = egogesture.parse_group(file, 1, 1, 1)
    windows(found, 83)
    assert all(str(file) in where for where in junk)


def rows_of_ipn_hand(file: Path) -> None:
    for gesture in ipn_hand.parse_list(file):
        assert gesture.code in ipn_hand.CODES
        assert 0 <= gesture.start < gesture.end


def rows_of_jester(file: Path) -> None:
    assert all(clip.isascii() and clip.isdigit() for clip, _, _ in jester.parse_list(file))


def times_of_a_log(file: Path) -> None:
    try:
        times = nvgesture.log_times(file, 4)
    except ValueError as reason:
        assert "\n" not in str(reason)  # noqa: PT017
    else:
        assert len(times) == 4
        assert times == sorted(times)


PARSERS: dict[str, Callable[[Path], object]] = {
    "nvgesture": samples_of_nvgesture, "group": group_of_egogesture, "ipn_hand": rows_of_ipn_hand, "jester": rows_of_jester,
    "egogesture": lambda file: windows(egogesture.parse_list(file), 83),
    "isogd": lambda file: windows(isogd.parse_list(file), 249),
    "ld_congr": lambda file: windows(ld_congr.parse_list(file), 10), "log": times_of_a_log,
}


def holds(parse: Callable[[Path], object], file: Path, data: bytes) -> None:
    file.write_bytes(data)
    try:
        parse(file)
    except ModaliftError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert file.name in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "list.txt"


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_lines(name, file, data):
    holds(PARSERS[name], file, data.draw(mutated(LINES[name])))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_random_bytes(name, file, data):
    holds(PARSERS[name], file, data)


@settings(max_examples=200, deadline=None)
@given(name=st.one_of(st.text(max_size=20), st.from_regex(r"[0-9]{1,4}_[0-9]{1,4}_[0-9]{1,4}\.avi\n?")))
def test_any_name_of_a_file(name):
    found = viva.parse_name(name)
    assert found is None or found.sequence >= 1


#: Dataset -> the list of its sample that is mutated.
FILES = {"nvgesture": "nvgesture_train_correct_cvpr2016_v2.lst",
         "egogesture": "labels-final-revised1/subject03/Scene1/Group1.csv", "isogd": "train_list.txt",
         "jester": "jester-v1-train.csv", "ipn_hand": "annotations/Annot_TrainList.txt",
         "ld_congr": "train_labels.txt"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name in FILES:
        made[name] = tmp_path_factory.mktemp(name) / "data"
        importlib.import_module(f"sample_{name}").write(made[name])
    return made


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_table_of_mutated_lists(name, roots, data):
    file = roots[name] / FILES[name]
    whole = file.read_bytes()
    try:
        file.write_bytes(data.draw(mutated(whole)))
        table = datasets.open(name, roots[name])
        assert isinstance(table, Table)
        assert len({row.id for row in table} | set(table.missing)) >= len(table)
        assert all(track.path.exists() for row in table for track in row.tracks.values())
    except ModaliftError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        file.write_bytes(whole)
