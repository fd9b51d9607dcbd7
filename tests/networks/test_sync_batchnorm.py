"""Batch statistics over processes: a step of two equals that of one with all the clips."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from modalift.networks.sync_batchnorm import CrossRankBatchNorm, convert_sync_batchnorm
from ports import free_port


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).double()


def loss_of(made: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (made(x).cos() * torch.arange(4).reshape(1, 4, 1, 1)).sum()


def _process(rank: int, port: int, shares: list[torch.Tensor], out: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(shares))
    made = net()
    convert_sync_batchnorm(made)
    loss_of(made, shares[rank]).backward()
    for p in made.parameters():
        dist.all_reduce(p.grad)
    if rank == 0:
        torch.save(({k: p.grad for k, p in made.named_parameters()}, made.state_dict()), out)
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_and_statistics_of_one(tmp_path):
    torch.manual_seed(1)
    shares = [torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.rand(1, 3, 8, 8, dtype=torch.float64) + 1]
    for given in (shares, [torch.cat(shares), shares[0][:0]]):  # unequal shares, and one without a clip
        mp.spawn(_process, (free_port(), given, str(tmp_path / "g.pt")), nprocs=2)
        gradients, state = torch.load(tmp_path / "g.pt")
        alone = net()
        loss_of(alone, torch.cat(shares)).backward()
        for key, p in alone.named_parameters():
            torch.testing.assert_close(gradients[key], p.grad, rtol=1e-9, atol=1e-10)
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-12)


def test_alone_it_is_the_layer_that_it_was():
    plain, joint = net(), net()
    convert_sync_batchnorm(joint)
    assert isinstance(joint[1], CrossRankBatchNorm)
    assert plain.state_dict().keys() == joint.state_dict().keys()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(plain(x), joint(x))
    assert torch.equal(copy.deepcopy(plain).eval()(x), joint.eval()(x))
