"""Two processes under torchrun: they train, and one process can resume their run."""

from __future__ import annotations

import json
import subprocess
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from modalift.engine.train import train
from modalift.recipe import load_recipe
from modalift.schemes import masked_mean
from ports import free_port


def test_two_processes_train_and_one_resumes(recipe_file, tmp_path):
    recipe = recipe_file(optim={"epochs": 2, "batch": 3}, run={"checkpoint_every_s": 1e-6})
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}", "-m",
            "modalift.cli"]
    done = subprocess.run([*both, "train", str(recipe)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [e for e in lines if e["kind"] == "epoch"]
    assert [e["step"] for e in epochs] == [2, 4], "twelve clips, two processes of three: two steps per epoch"
    (run / "models" / "student.modalift").unlink()
    assert train(load_recipe(recipe)).finished, "one process resumes from the checkpoint of two"


def _uneven(rank: int, port: int, shares: list[list[float]], out: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(shares))
    x = torch.tensor(shares[rank], requires_grad=True)
    w = torch.ones((), requires_grad=True)
    masked_mean(x.detach() * w, x.detach() > 0).backward()
    dist.all_reduce(w.grad)
    if rank == 0:
        torch.save(w.grad / len(shares), out)
    dist.destroy_process_group()


def test_a_mean_over_labels_is_that_of_the_global_batch(tmp_path):
    shares = [[1.0, 2.0, 6.0, -1.0], [3.0, -1.0, -1.0, -1.0]]  # negative: a clip without a label
    mp.spawn(_uneven, (free_port(), shares, str(tmp_path / "g.pt")), nprocs=2)
    assert torch.load(tmp_path / "g.pt").item() == torch.tensor([1.0, 2.0, 6.0, 3.0]).mean().item()
