"""Tables as programs and people write them: every cell has its right value, or the file, line and column that is wrong."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from modalift import datasets
from modalift.datasets.cells import read_table, value
from modalift.datasets.writing import write_manifest
from modalift.errors import ModaliftError
from modalift.loading.check import examine
from modalift.modalities import Table

TEXT = "id,label,split,rgb\na,0,train,v/a.mp4\nb,1,test,v/b.mp4\n"


def opened(folder: Path, data: str | bytes, **options) -> Table:
    (folder / "manifest.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    return datasets.open("csv", folder, **options)


def refused(folder: Path, data: str | bytes, **options) -> str:
    with pytest.raises(ModaliftError) as told:
        opened(folder, data, **options)
    assert "\n" not in str(told.value)
    return str(told.value).replace(str(folder), "")


@pytest.mark.parametrize("data", [
    TEXT.encode("utf-8-sig"), TEXT.encode("utf-16"), b"\xfe\xff" + TEXT.encode("utf-16-be"), TEXT.encode("utf-32"),
    TEXT.replace("\n", "\r\n").encode(), TEXT.replace("\n", "\r").encode(), TEXT.replace(",", ";").encode(),
    TEXT.replace(",", "\t").encode(), b"\n  \n" + TEXT.encode() + b"\n\n", TEXT.replace(",", " , ").encode(),
    TEXT.replace("\n", ",\n").encode(), TEXT.replace("\n", ",,,\n").replace("rgb,,,", "rgb,").encode(),
    TEXT.replace("\n", "\n,", 2).replace("id", ",id", 1).encode(), TEXT.replace("a,0", '"a","0"').encode()])
def test_every_form_of_a_table_reads_the_same(tmp_path, data):
    table = opened(tmp_path, data)
    assert [(r.id, r.label, r.split, r.tracks["rgb"].path, r.metadata) for r in table] == [
        ("a", 0, "train", tmp_path / "v/a.mp4", {}), ("b", 1, "test", tmp_path / "v/b.mp4", {})]


def test_cells_with_newlines_quotes_and_separators(tmp_path):
    table = opened(tmp_path, 'id,label,split,rgb,note\n"a\nb",0,train,"v/x, ""y"".mp4",1\nc,1,test,v/c.mp4,x\n')
    assert [r.id for r in table] == ["a\nb", "c"]
    assert table[0].tracks["rgb"].path == tmp_path / 'v/x, "y".mp4'
    assert "line 4: 2 cells under 5 columns" in refused(tmp_path, 'id,label,split,rgb,note\n"a\nb",0,train,v.mp4,1\nc,1\n')


def test_names_with_line_ends_are_written_and_read_back(tmp_path):
    names = ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", "a\x1cb", "a\u2028b"]
    cells = [[name, k % 2, "train" if k else "test", "v.mp4"] for k, name in enumerate(names)]
    with (tmp_path / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "label", "split", "rgb"], *cells])
    table = datasets.open("csv", tmp_path)
    assert [r.id for r in table] == names
    (tmp_path / "out").mkdir()
    write_manifest(table, tmp_path / "out")
    assert [r.id for r in datasets.open("csv", tmp_path / "out")] == names


def test_a_cell_may_be_longer_than_the_csv_module_allows(tmp_path):
    before = csv.field_size_limit()
    stamps = " ".join(str(i / 30) for i in range(40_000))
    assert len(stamps) > before
    table = opened(tmp_path, f"id,label,split,rgb,when\na,0,train,a.mp4,{stamps}\nb,1,test,b.mp4,0 1\n",
                   views={"rgb": {"timestamps": "when"}})
    assert table[0].tracks["rgb"].timestamps == tuple(i / 30 for i in range(40_000))
    assert csv.field_size_limit() == before


VIEWS = {"rgb": {"start": "from", "end": "to", "rate": "fps", "offset_ms": "skew", "timestamps": "when", "affine": "map"}}
HEAD = "id,label,split,rgb,from,to,fps,skew,when,map\n"
GOOD = {"from": "2", "to": "9", "fps": "30", "skew": "-1.5", "when": "0 1 2 3 4 5 6", "map": "1 0 0 0 1 0"}


def with_cell(column: str, cell: str) -> str:
    cells = GOOD | {column: cell}
    return HEAD + "a,0,train,a.mp4," + ",".join(cells.values()) + "\nb,1,test,b.mp4,,,,,,\n"


@pytest.mark.parametrize(("column", "cell", "attribute", "found"), [
    ("from", " 3 ", "start", 3), ("from", "03", "start", 3), ("from", "３", "start", 3), ("from", "3.0", "start", 3),
    ("from", "3e0", "start", 3), ("from", "0x3", "start", 3), ("from", "", "start", 0), ("to", "1_0", "end", 10),
    ("to", "", "end", None), ("fps", "2.5e1", "rate", 25.0), ("fps", "", "rate", None), ("skew", "", "offset_ms", 0.0),
    ("skew", "+.5", "offset_ms", 0.5), ("when", "0 .5 1e0", "timestamps", (0.0, 0.5, 1.0)), ("map", "", "affine", None)])
def test_a_number_has_its_value(tmp_path, column, cell, attribute, found):
    table = opened(tmp_path, with_cell(column, cell), views=VIEWS)
    assert getattr(table[0].tracks["rgb"], attribute) == found


@pytest.mark.parametrize(("column", "cell", "reason"), [
    ("from", "1.5", "is not a whole number"), ("from", "²", "is not a number"), ("from", "①", "is not a number"),
    ("from", "1e999", "too large"), ("from", "nan", "not a finite number"), ("to", "inf", "not a finite number"),
    ("to", "9" * 5000, "too large"), ("to", "first", "is not a number"), ("fps", "fast", "is not a number"),
    ("skew", "1:30", "is a time"), ("when", "0 1 x", "is not a number"), ("when", "0 nan", "not a finite number"),
    ("map", "1 0 0 0 1 y", "is not a number")])
def test_what_is_no_number_is_named_with_file_line_and_column(tmp_path, column, cell, reason):
    said = refused(tmp_path, with_cell(column, cell), views=VIEWS)
    key = {"from": "start", "to": "end", "fps": "rate", "skew": "offset_ms", "when": "timestamps", "map": "affine"}[column]
    assert said.startswith(f"/manifest.csv, line 2, column '{column}': views.rgb.{key} needs numbers, not '")
    assert reason in said
    assert len(said) < 300


@pytest.mark.parametrize(("column", "cell", "said"), [
    ("fps", "0", "line 2: views.rgb.rate is 0 - give frames per second, above 0"), ("fps", "-5", "above 0"),
    ("from", "1 2", "needs one number, not 2"), ("map", "1 0", "needs six numbers"),
    ("map", "1 0 0 2 0 0", "maps the image to a line or a point"), ("map", "0 0 0 0 0 0", "to a line or a point")])
def test_numbers_that_cannot_be(tmp_path, column, cell, said):
    assert said in refused(tmp_path, with_cell(column, cell), views=VIEWS)


@pytest.mark.parametrize(("data", "said"), [
    (TEXT.replace("b,1", "caf\xe9,1").encode("latin-1"), ", line 3, column 'id': is not UTF-8 text - save the file as UTF-8"),
    (TEXT.replace("label", "l\xe4bel").encode("latin-1"), ", line 1: a name of a column is not UTF-8 text"),
    (TEXT.encode("utf-16-le"), ", line 1: holds a null character"), (TEXT.replace("b,1", "b\0,1"), ", line 3: holds a null"),
    (TEXT.encode("utf-16")[:-1], ", line 3: is not text in UTF-16"),
    (TEXT.replace("b,1", '"b,1'), ", line 3: unexpected end of data - correct the quotes"),
    (TEXT.replace("b,1", '"b"x,1'), ", line 3: ',' expected after '\"'"),
    (TEXT.replace("b,1", ",1"), ", line 3, column 'id': is empty - give every clip an id"),
    (TEXT.replace("test", "probe"), ", line 3: clip 'b' has split 'probe'"),
    (TEXT.replace("b,1", "b,1" + "0" * 400), ": clip 'b' has label '1"), (TEXT + "c,1,test\n", ", line 4: 3 cells under 4"),
    (TEXT + "c,1,test,x,y\n", ", line 4: 5 cells under 4"), (TEXT.replace("label", "id"), " has two columns 'id'"),
    (TEXT.replace("b,1", "x" * 10**6 + ",1"), ": a clip has a name of 1000000 letters"),
    (TEXT.replace("b,1", "b," + "x" * 1001), ": a class has a name of 1001 letters"), (b"", " lists no clip")])
def test_a_wrong_table_is_named_with_its_line(tmp_path, data, said):
    found = refused(tmp_path, data)
    assert said in found
    assert len(found) < 400


@pytest.mark.parametrize("label", ["²", "①", "1e1", "-1", "nan", "0x1", "1_0", "on"])
def test_a_label_that_is_no_plain_number_is_a_name(tmp_path, label):
    table = opened(tmp_path, TEXT.replace("b,1", f"b,{label}"))
    assert sorted(table.classes) == sorted(["0", label])
    assert table.classes[table[1].label] == label


@pytest.mark.parametrize(("label", "found"), [("01", 1), ("1.0", 1), ("１", 1), ("2", 2)])
def test_a_label_in_digits_is_a_number(tmp_path, label, found):
    assert opened(tmp_path, TEXT.replace("b,1", f"b,{label}"))[1].label == found


def test_metadata_is_a_number_only_if_it_is_written_as_one():
    cells = ["2.5", "-1e3", "007", "1_2", "１２", "²", "nan", "1e999", "0x10", "1,5", "", "2024-01-01", "9" * 5000]
    assert [value(c) for c in cells] == [2.5, -1000.0, 7.0, "1_2", "１２", "²", "nan", "1e999", "0x10", "1,5", "", "2024-01-01",
                                         "9" * 5000]


@pytest.mark.skipif(sys.platform == "win32", reason="trailing spaces and bytes in names")
def test_paths_with_spaces_and_bytes(tmp_path):
    (tmp_path / "a ").mkdir()
    table = opened(tmp_path, 'id,label,split,rgb\na,0,train,"./a "\nb,1,test, ./b \n')
    assert [str(r.tracks["rgb"].path.relative_to(tmp_path)) for r in table] == ["a ", "b"]
    raw = opened(tmp_path, b"id,label,split,rgb\na,0,train,v/caf\xe9.mp4\nb,1,test,v/b.mp4\n")
    assert raw[0].tracks["rgb"].path == tmp_path / "v/caf\udce9.mp4"
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(raw, out)
    assert datasets.open("csv", out)[0].tracks["rgb"].path.resolve() == raw[0].tracks["rgb"].path


@pytest.mark.parametrize(("path", "said"), [
    ("x" * 300 + ".mp4", "cannot be used (File name too long)"), ("x/" * 3000, "cannot be used (File name too long)"),
    ("loop.mp4", "cannot be used (Too many levels of symbolic links)"), ("pipe.mp4", "is neither a file nor a folder"),
    ("nowhere.mp4", "does not exist"), ("manifest.csv/x.mp4", "does not exist")])
@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
def test_a_path_that_cannot_be_read_is_the_clips_problem(tmp_path, path, said):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    np.save(tmp_path / "good.npy", np.zeros((3, 8, 8, 3), np.uint8))
    for view in ("rgb", "pose"):
        table = opened(tmp_path, f"id,label,split,{view}\na,0,train,{path}\nb,1,test,good.npy\n",
                       **({"views": {"pose": {"channels": 192}}} if view == "pose" else {}))
        found = examine(table)
        assert list(found.unreadable) == ["a"]
        assert said in found.unreadable["a"]


def test_templates_name_columns_only(tmp_path):
    def path(template: str) -> str:
        table = opened(tmp_path, TEXT, views={"rgb": {"path": template}})
        return table[0].tracks["rgb"].path.relative_to(tmp_path).as_posix()

    assert path("v/{id}_{label:0>3}.mp4") == "v/a_000.mp4"
    for template in ("{clip}", "{id.x}", "{id[x]}", "{0}", "{", "{}", "{id!z}", "{id:x}"):
        assert f"views.rgb.path: '{template}'" in refused(tmp_path, TEXT, views={"rgb": {"path": template}})


def test_descriptions_of_views_are_checked_everywhere_alike(tmp_path):
    wrong = {"base": 2, "channels": 0, "affine": [1, "x"], "timestamps": {"a": 1}, "rat": 3}
    for key, given in wrong.items():
        assert f"views.rgb.{key}" in refused(tmp_path, TEXT, views={"rgb": {key: given}})
        (tmp_path / "manifest.json").write_text(json.dumps(
            {"format": "modalift-manifest/1", "options": {"views": {"rgb": {key: given}}}}))
        assert refused(tmp_path, TEXT).startswith("/manifest.json: ")
        (tmp_path / "manifest.json").unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_table_that_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "manifest.csv")
    with pytest.raises(ModaliftError, match="is not a regular file"):
        read_table(tmp_path / "manifest.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModaliftError, match="is a folder"):
        read_table(tmp_path / "folder")
