"""The reference of recipe keys names every key, with its type, default and range."""

from __future__ import annotations

from modalift.loading.framing import Augment
from modalift.recipe import DataSection, OptimSection, RunSection
from modalift.report.listing import listing


def test_every_key_is_listed_with_its_default_and_range():
    rows = {row["key"]: row for row in listing("keys")[0]}
    for section, model in (("data", DataSection), ("data.augment", Augment), ("optim", OptimSection), ("run", RunSection)):
        assert {f"{section}.{name}" for name in model.model_fields} <= rows.keys()
    assert [rows["data.frames"][k] for k in ("type", "default", "range")] == ["int", "16", "1 or more"]
    assert rows["data.augment.scale"]["type"] == "list of 2 float"
    assert rows["run.precision"]["type"] == "auto or fp32 or bf16 or fp16"
    assert rows["data.root"]["default"] == "required"
