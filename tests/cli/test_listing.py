"""list and cost: figures that are exact, and one line for every wrong question."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from modalift import networks
from modalift.recipe_files import recipe_names
from modalift.report.listing import listing

#: Network, its options and clip, classes -> parameters, MACs, and the GFLOPs that the MSD paper prints.
MSD_COLUMNS = {
    "tsm": ([], "3x8x224x224", 83, 23_678_099, 32_698_449_920, "28.2"),
    "tea": ([], "3x8x224x224", 83, 24_269_821, 34_536_004_864, "31.1"),
    "action_net": ([], "3x8x224x224", 83, 27_895_919, 34_435_490_416, "29.8"),
    "c3d": (["variant=gesrec"], "3x32x112x112", 83, 65_584_339, 71_482_120_192, "71.7"),
    "i3d": ([], "3x64x224x224", 400, 12_697_264, 111_153_143_808, "88.2"),
    "resnext101_3d": ([], "3x32x112x112", 83, 47_691_283, 19_133_962_240, "13.9"),
}


def test_recipes_are_listed_by_name_wherever_one_is(modalift, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said, _ = modalift("list", "recipes", "--json")
    assert code == 0, said
    rows = json.loads(said)
    assert [row["recipe"] for row in rows] == recipe_names()
    assert next(row for row in rows if row["recipe"] == "viva/mtut_i3d")["scheme"] == "mtut"


@pytest.mark.parametrize("name", MSD_COLUMNS)
def test_the_msd_papers_columns_come_out_to_the_printed_digit(modalift, name):
    options, clip, classes, parameters, macs, gflops = MSD_COLUMNS[name]
    asked = ("cost", name, *options, "--input", clip, "--classes", classes, "--paper-msd")
    code, said, _ = modalift(*asked, "--json")
    assert code == 0, said
    found = json.loads(said)
    assert (found["parameters"], found["macs"], found["flops"]) == (parameters, macs, 2 * macs)
    assert f"{found['paper_msd_flops'] / 1e9:.1f}" == gflops
    code, said, _ = modalift(*asked)
    assert code == 0
    for figure in (f"{parameters:,}", f"{macs:,}", f"{2 * macs:,}", gflops, "known defect"):
        assert figure in said


def test_cost_of_a_signal_a_wide_video_and_without_an_input(modalift):
    for words, clip in ((("tcn", "--input", "30x16x1x1"), "30x16x1x1"), (("small", "--input", "1x4x32x48"), "1x4x32x48"),
                        (("tcn",), "60x32x1x1"), (("small", "causal=true", "motion=running"), "3x16x56x56")):
        code, said, _ = modalift("cost", *words, "--json")
        assert code == 0, said
        found = json.loads(said)
        assert found["input"] == clip
        assert found["activation_bytes"] > 0
        assert "paper_msd_flops" not in found
    code, said, _ = modalift("cost", "small", "--input", "3x16x56x56")
    assert "116,075" in said
    assert "MiB" in said
    assert "defect" not in said


@pytest.mark.parametrize(("words", "message"), [
    (("tsm", "--input", "3x8x224"), "channels x frames x height x width"),
    (("tsm", "--input", "3x8x-2x4"), "channels x frames x height x width"),
    (("tsm", "--input", ""), "channels x frames x height x width"),
    (("tsm", "--input", "0x8x32x32"), "each extent must be 1 or more"),
    (("tsm", "--input", "3x100000x100000x100000"), "their product at most"),
    (("tsm", "--input", "3x8x1x1"), "reads video"),
    (("tcn", "--input", "60x8x4x4"), "reads signals"),
    (("tsm", "--classes", "0"), "classes = 0"),
    (("tsm", "--classes", "1000000000000000000"), "overflow"),
    (("tsm", "width=1e9"), "overflow"),
    (("tsm", "resnet50"), "'resnet50' is not of the form key=value"),
    (("tsm", "=3"), "'=3' is not of the form key=value"),
    (("tsm", "widht=2"), "did you mean 'width'"),
    (("tsm", "classes=3"), "--classes"),
    (("tsm", "size=64"), "--input"),
    (("tsm", "name=small"), "modalift cost small"),
    (("tsmm",), "did you mean 'tsm'"),
    (("tsm", "backbone=[1]"), "backbone"),
])
def test_a_wrong_question_of_cost_is_one_line(wrong, words, message):
    assert message in wrong("cost", *words)


def test_networks_are_listed_with_what_they_cost_and_load(modalift):
    code, said, _ = modalift("list", "networks", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(said)}
    assert set(rows) == set(networks.NETWORKS)
    assert (rows["tsm"]["parameters"], rows["tsm"]["macs"]) == (23_563_355, 32_697_532_416)
    assert rows["small"]["streams"] is True
    assert all(row["description"] and row["input"] for row in rows.values())
    assert "torchvision ResNet" in rows["tsm"]["weights"]


def test_the_table_of_networks_fits_a_terminal(capsys):
    _, table = listing("networks")
    Console(width=120, no_color=True).print(table)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 120
    first = [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")]
    assert {name for name in first if name} == set(networks.NETWORKS), "no name is cut"
    assert "…" not in said
