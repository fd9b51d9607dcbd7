"""Settings: checked on construction and inside a recipe, and a wrong one is named with its key in one line."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Lt
from pydantic import BaseModel, Field, ValidationError

from modalift.errors import ModaliftError
from modalift.loading.framing import Augment, Framing, Protocol
from modalift.settings import Settings, explain, keys


class Inner(Settings):
    size: int = Field(8, ge=1)
    word: Literal["left", "right"] = "left"
    pair: tuple[Annotated[float, Ge(0)], Annotated[float, Ge(0)]] = (0.0, 1.0)


class Outer(Settings):
    inner: Inner = Inner()
    named: dict[str, Inner] = Field(default_factory=dict)
    maybe: Sequence[Annotated[int, Ge(1)]] | None = None
    share: float = Field(0.5, ge=0, lt=1)
    whole: Annotated[int, Ge(0), Lt(5)] | Literal["all"] = "all"
    needed: str


@pytest.mark.parametrize(("given", "said"), [
    ({"inner": {"size": 0}}, "inner.size = 0: must be 1 or more"),
    ({"inner": {"word": "lefd"}}, "inner.word = 'lefd': Input should be 'left' or 'right' - did you mean 'left'?"),
    ({"inner": {"word": "up"}}, "inner.word = 'up': Input should be 'left' or 'right'"),
    ({"inner": {"sise": 3}}, "unknown key 'inner.sise' - did you mean 'inner.size'?"),
    ({"inner": {"pair": [1, -1]}}, "inner.pair[1] = -1: must be 0 or more"),
    ({"inner": 3}, "inner = 3: must be a section with keys, such as inner.size"),
    ({"named": {"a": {"sise": 3}}}, "unknown key 'named.a.sise' - did you mean 'named.a.size'?"),
    ({"named": {"a": {"size": "much"}}}, "named.a.size = 'much': Input should be a valid integer"),
    ({"share": 1}, "share = 1: must lie in [0, 1)"),
    ({"share": float("nan")}, "share = nan: must be a finite number"),
    ({"whole": "al"}, "whole = 'al': Input should be a valid integer"),
    ({"shard": 1}, "unknown key 'shard' - did you mean 'share'?"),
    ({"xyz": 1}, "unknown key 'xyz' - known: inner, maybe, named, needed, share, whole"),
    ({"needed": None}, "needed = None: Input should be a valid string"),
    ({}, "'needed' is missing - add needed"),
])
def test_the_first_mistake_is_explained_with_its_key(given, said):
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"needed": "", **given} if given else {})
    told = explain(caught.value, Outer, missing="add {}")
    assert told.startswith(said)
    assert "\n" not in told
    with pytest.raises(ModaliftError, match=r"^(unknown key )?'?outer\."):
        Outer(**({"needed": "", **given} if given else {}))


def test_a_union_names_the_word_that_was_meant():
    with pytest.raises(ModaliftError, match=r"^outer\.whole = 'al': .* - did you mean 'all'\?$"):
        Outer(needed="", whole="al")  # type: ignore[arg-type]


@pytest.mark.parametrize(("make", "said"), [
    (lambda: Framing(frames=0, size=3), "framing.frames = 0: must be 1 or more"),
    (lambda: Framing(sampler="segment"), "framing.sampler = 'segment': .*did you mean 'segments'"),
    (lambda: Framing(crop_ratio=0), "framing.crop_ratio = 0: must lie in (0, 1]"),
    (lambda: Framing(frmes=3), "unknown key 'framing.frmes' - did you mean 'framing.frames'?"),
    (lambda: Framing(margin=float("inf")), "framing.margin = inf: must be a finite number"),
    (lambda: Augment(scale=(2, 1)), "augment.scale = (2, 1): give the smaller number first"),
    (lambda: Augment(scales=(0.0,)), "augment.scales[0] = 0.0: must lie in [0.05, 4]"),
    (lambda: Augment(rotat=3), "unknown key 'augment.rotat' - did you mean 'augment.rotate'?"),
    (lambda: Protocol(temporal_crops=0), "protocol.temporal_crops = 0: must lie in [1, 1000]"),
    (lambda: Protocol(temporal_crops=1001), "protocol.temporal_crops = 1001: must lie in [1, 1000]"),
    (lambda: Protocol(spatial_crops=2), "protocol.spatial_crops = 2: Input should be 1, 3 or 5"),
])
def test_direct_construction_names_the_key_in_one_line(make, said):
    with pytest.raises(ModaliftError) as caught:
        make()
    first, _, then = said.partition(".*")
    assert str(caught.value).startswith(first)
    assert then in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_do_not_change_and_replacing_checks():
    framing = Framing(frames=4, size=8)
    with pytest.raises(ValidationError):
        framing.frames = 5  # type: ignore[misc]
    assert framing.replace(frames=5) == Framing(frames=5, size=8)
    assert hash(framing) == hash(Framing(frames=4, size=8))
    with pytest.raises(ModaliftError, match=r"framing\.frames = -1"):
        framing.replace(frames=-1)
    assert pickle.loads(pickle.dumps(framing)) == framing


def test_values_of_a_file_are_not_converted():
    assert Framing.parse({"frames": 4}, strict=True).frames == 4
    assert Framing.parse({"frames": "4"}).frames == 4
    for wrong in ("4", True, 4.5):
        with pytest.raises(ModaliftError, match=r"^mine\.frames = "):
            Framing.parse({"frames": wrong}, "mine", strict=True)


def test_every_key_is_described_and_listed():
    for model in (Framing, Augment, Protocol):
        assert all(field.description for field in model.model_fields.values()), model
    assert {"inner", "inner.size", "inner.word", "share"} <= set(keys(Outer))
    assert issubclass(Outer, BaseModel)
