"""Two processes, each with a part of the clips, give every scheme the gradients of one process with all of them."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from casting import CASES, END, batch, scheme

from modalift.networks.sync_batchnorm import convert_sync_batchnorm
from modalift.schemes import total
from ports import free_port

WHOLE = 6


def uneven():
    """Six clips of which two lack a sensor and two a label."""
    given = batch(WHOLE)
    given.present["pose"][1] = False
    given.present["depth"][4] = False
    given.labels[[0, 5]], given.labeled[[0, 5]] = -1, False
    return given


def shares():
    """The clips of either process: unequal numbers of them."""
    return [torch.tensor([0, 1]), torch.tensor([2, 3, 4, 5])]


def lonely():
    """Six clips of which the first process's have no joints: the teacher shows it nothing, not even a map's extents."""
    given = batch(WHOLE)
    given.present["pose"][shares()[0]] = False
    return given


#: Cases that gather maps or vectors of all processes, of clips that joints take part in.
GATHERING = [i for i, case in enumerate(CASES) if (made := scheme(case)).relates_batch and "pose" in made.required_views()]


def gradients_of(case, rows, together: bool, given=uneven):
    made = scheme(case).train()
    if together:
        convert_sync_batchnorm(made)
        made = torch.nn.parallel.DistributedDataParallel(made, find_unused_parameters=True)
    inner = made.module if together else made
    found = {}
    for update in inner.updates():
        progress = type(END)(END.epoch, END.epochs, END.step, END.steps, update.name)
        made.zero_grad(set_to_none=True)
        total(made(given().take(rows), progress)).backward()
        names = {**inner.roles, **inner.training_only_modules}
        found |= {f"{member}.{k}": p.grad.clone() for member in update.members for k, p in names[member].named_parameters()
                  if p.grad is not None}
    return found


def _process(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {i: gradients_of(case, shares()[rank], together=True) for i, case in enumerate(CASES)}
    found |= {(i, "lonely"): gradients_of(CASES[i], shares()[rank], together=True, given=lonely) for i in GATHERING}
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "gradients.pt"
    mp.spawn(_process, (free_port(), str(out)), nprocs=2)
    return torch.load(out)


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_gradients_of_two_processes_are_those_of_the_joint_batch(of_two, number):
    same(of_two[number], gradients_of(CASES[number], torch.arange(WHOLE), together=False))


@pytest.mark.parametrize("number", GATHERING, ids=[str(CASES[i]) for i in GATHERING])
def test_a_process_whose_clips_the_teacher_did_not_see_takes_part(of_two, number):
    same(of_two[number, "lonely"], gradients_of(CASES[number], torch.arange(WHOLE), together=False, given=lonely))


def same(found, alone):
    assert found.keys() == alone.keys()
    largest: dict[str, float] = {}
    for key, grad in alone.items():
        member = key.split(".")[0]
        largest[member] = max(1.0, largest.get(member, 0.0), float(grad.abs().max()))
    for key, grad in alone.items():  # what cancels out (a bias in front of a BatchNorm) is rounding of what is large
        torch.testing.assert_close(found[key], grad, rtol=2e-3, atol=2e-5 * largest[key.split(".")[0]], msg=key)
