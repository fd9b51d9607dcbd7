"""docs/networks.md says what the code says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import modalift.networks as networks

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "networks.md").read_text()


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_family_has_its_section(name: str) -> None:
    assert f"\n### {name}\n" in TEXT
    assert f"<!-- made: facts {name} -->\n" in TEXT


def test_the_tables_are_what_the_code_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    tables = __import__("network_tables")
    try:
        made = tables.with_tables(TEXT).splitlines()
    finally:
        sys.modules.pop("network_tables")
    old = TEXT.splitlines()
    assert [line for line in made if line not in old] == [], "run `python benchmarks/networks.py --table`"
    assert made == old, "run `python benchmarks/networks.py --table`"


def test_the_msd_papers_columns_come_out_as_printed() -> None:
    rows = [line.split(" | ") for line in TEXT.splitlines() if line.count(" | ") == 6 and "`" in line]
    printed = {"28.2", "31.1", "29.8", "71.7", "88.2", "13.9"}
    found = {row[1].split(", ")[1]: (row[1].split(", ")[0], row[3], row[4]) for row in rows if row[3][:1].isdigit()}
    assert set(found) == printed
    for figure, (parameters, exact, column) in found.items():
        assert f"{float(column):.1f}" == figure
        assert f"{int(exact.replace(',', '')) / 1e6:.1f}M" == parameters
