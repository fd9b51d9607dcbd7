"""What a network does to a clip before its trunk, and what `build` refuses."""

from __future__ import annotations

import pytest
import torch

import modalift.networks as networks
from modalift.errors import ModaliftError
from modalift.networks import Prepare


def test_no_reading_becomes_zero_and_the_rest_is_normalized() -> None:
    prepare = Prepare(1, (2500.0,), (800.0,), invalid=0.0)
    clip = torch.tensor([0, 2500, 3300, 1700], dtype=torch.uint16).reshape(1, 1, 1, 2, 2)
    assert prepare(clip).flatten().tolist() == [0.0, 0.0, 1.0, -1.0]


def test_motion_is_the_departure_from_the_mean() -> None:
    clip = torch.tensor([0.0, 2.0, 4.0]).reshape(1, 1, 3, 1, 1)
    assert Prepare(1, motion="clip")(clip)[0, 1].flatten().tolist() == [-4.0, 0.0, 4.0]  # gain 2
    assert Prepare(1, motion="running", motion_gain=1.0)(clip)[0, 1].flatten().tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ModaliftError, match="motion='running'"):
        Prepare(1, motion="clip").stream(clip)


def test_constants_travel_with_the_weights() -> None:
    state = networks.build("small", classes=2, view="depth").state_dict()
    assert state["prepare.mean"].tolist() == [2500.0]
    assert state["prepare.std"].tolist() == [800.0]


@pytest.mark.parametrize(("arguments", "part"), [
    ({"name": "smal"}, "did you mean 'small'"),
    ({"classes": 0}, "classes = 0"),
    ({"view": "pose", "name": "tcn"}, "give channels"),
    ({"mean": (1.0, 2.0)}, "mean has 2 values for 3 channels"),
    ({"motoin": "clip"}, "did you mean 'motion'"),
    ({"std": (0.0,)}, "std = 0 - each must be a finite number above 0"),
    ({"mean": (1.0, float("nan"), 1.0)}, r"network.mean\[1\] = nan: must be a finite number"),
    ({"channels": 0}, "network.channels = 0: must be 1 or more"),
    ({"name": "tsm", "width": float("inf")}, "network.width = inf: must be a finite number"),
])
def test_build_refuses(arguments: dict, part: str) -> None:
    with pytest.raises(ModaliftError, match=part):
        networks.build(**({"name": "small", "classes": 3, "view": "rgb"} | arguments))


def test_joints_do_not_care_where_the_person_stands() -> None:
    net = networks.build("tcn", classes=3, view="pose", channels=30, frames=8).eval()
    clip = torch.randn(2, 30, 8, 1, 1)
    there = clip + torch.tensor([3.0, -1.0, 2.0]).repeat(10).reshape(1, 30, 1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(net(clip), net(there), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(net(clip), net(clip * 1.5))


def test_accelerations_are_not_centered() -> None:
    # Six channels are two triplets, but not joints: their common part is gravity, which matters.
    net = networks.build("tcn", classes=3, view="imu", channels=6, frames=8).eval()
    clip = torch.randn(2, 6, 8, 1, 1)
    with torch.no_grad():
        assert not torch.allclose(net(clip), net(clip + 1), atol=1e-4)


def test_tcn_refuses_a_video_and_odd_joints() -> None:
    with pytest.raises(ModaliftError, match="three channels per joint, not a total of 4"):
        networks.build("tcn", classes=3, view="pose", channels=4, center=True)
    with pytest.raises(ModaliftError, match="B, C, T, 1, 1"):
        networks.build("tcn", classes=3, view="pose", channels=3)(torch.zeros(1, 3, 4, 8, 8))


@pytest.mark.parametrize("name", ["tea", "r3d", "conv_lstm"])
def test_training_on_one_position_is_told(name: str) -> None:
    net = networks.build(name, classes=3, view="rgb", width=0.125).train()
    with pytest.raises(ModaliftError, match=r"cannot train on 1 clip of 1 x 8 x 8: .* batches of 2 or more"):
        net(torch.zeros(1, 3, 1, 8, 8))
    assert net(torch.zeros(2, 3, 1, 8, 8)).isfinite().all()
    assert networks.cost(net, frames=1, size=8).activation_bytes > 0
