"""Two processes, one of which saw no image of a sensor, move a translator as one process with all clips does."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from casting import END, batch, cases_of, scheme
from test_distributed import WHOLE, same, shares

from modalift.engine.distributed import Ranks, wrap_ddp
from modalift.schemes import total
from ports import free_port

SETTINGS = {"unpaired": {"mode": "unpaired", "discriminator_layers": 2, "ndf": 8, "pool_size": 0},
            "paired": {"discriminator_layers": 2, "ndf": 8, "person_weight": 2.0},
            "l1": {"discriminator_layers": 2, "ndf": 8, "adversarial_weight": 0.0}}
#: What the first process lacks: one sensor, all of them, or the names of all its clips.
LACKING = {"source": ["depth"], "target": ["thermal"], "both": ["depth", "thermal"], "labels": []}
CASES = [(s, m) for s in SETTINGS for m in LACKING]


def given(lacking: str):
    made = batch(WHOLE)
    made.labels[:] = torch.tensor([0, 1, 0, 0, 1, 1])
    for view in LACKING[lacking]:
        made.present[view][shares()[0]] = False
    if not LACKING[lacking]:
        made.labels[shares()[0]], made.labeled[shares()[0]] = -1, False
    return made


def gradients(setting: str, lacking: str, rows: torch.Tensor, ranks: Ranks | None = None):
    """Gradients of each update, and the terms that count clips."""
    made = scheme(cases_of("translator", SETTINGS[setting])[0]).train()
    updates = made.updates()
    outer = wrap_ddp(made, ranks, len(updates) > 1) if ranks else made
    found, counted = {}, {}
    for update in updates:
        made.zero_grad(set_to_none=True)
        terms = outer(given(lacking).take(rows), type(END)(END.epoch, END.epochs, END.step, END.steps, update.name))
        total(terms).backward()
        counted |= {k: int(raw) for k, (weight, raw) in terms.items() if weight == 0}
        members = {**made.roles, **made.training_only_modules}
        found |= {f"{m}.{k}": p.grad.clone() for m in update.members for k, p in members[m].named_parameters()}
    return found, counted


def _process(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2,
                            timeout=timedelta(seconds=30))
    ranks = Ranks(rank, 2, torch.device("cpu"))
    found = {case: gradients(*case, shares()[rank], ranks) for case in CASES}
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "gradients.pt"
    mp.spawn(_process, (free_port(), str(out)), nprocs=2)
    return torch.load(out)


@pytest.mark.parametrize("case", CASES, ids=["-".join(c) for c in CASES])
def test_a_process_without_a_sensor_or_names_takes_part(of_two, case):
    (found, counted), (alone, whole) = of_two[case], gradients(*case, torch.arange(WHOLE))
    same(found, alone)
    assert counted == whole


def test_the_relation_counts_the_named_pictures_of_all_processes(of_two):
    key = "batch_clips/source_encoder+target_encoder>generator"
    counts = {lacking: of_two["unpaired", lacking][1][key] for lacking in LACKING}
    assert counts == {"source": 4, "target": 6, "both": 4, "labels": 4}
