"""Checks that a code change keeps training bit-identical: hashes of weights and predictions of five schemes and a translator.

    python benchmarks/same_weights.py before.json                   # on the commit before
    python benchmarks/same_weights.py after.json --against before.json

Every recipe is trained for two epochs on forty simulated clips, and evaluated. Hashes depend on the machine, the PyTorch
version and the number of threads, so only hashes of one setup can be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from modalift.darkroom.simulate import simulate
from modalift.engine.evaluate import evaluate
from modalift.engine.train import train
from modalift.models.model import load
from modalift.recipe import load_recipe

FAST = ["optim.epochs=2", "optim.batch=6", "data.size=32", "data.frames=6", "run.precision=fp32", "run.workers=0", "run.seed=3"]
#: Name -> recipe and its overrides.
JOBS = {"labels_only": ("darkroom/labels_only", ["optim.ema=0.9", "data.labeled=0.6"]),
        "mtut": ("darkroom/mtut", ["data.labeled=0.6"]),
        "msd": ("darkroom/msd", ["data.labeled=0.6"]),
        "mgcam_dkd": ("darkroom/mgcam_dkd", ["data.labeled=0.6"]),
        "mtcd": ("darkroom/mtcd", ["data.labeled=0.6"]),
        "translator": ("translator/darkroom_rgb_thermal", ["networks.generator.ngf=4", "scheme.ndf=8"])}


def weights(path: Path) -> str:
    """A hash of a model's tensors: names, types and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load(path).network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype}".encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path, help="hashes to compare with")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        simulate(data, clips=40, size=48, frames=12, test_subjects=3)
        teacher: list[str] = []
        for name, (recipe, overrides) in {"teacher": ("darkroom/teacher_thermal", []), **JOBS}.items():
            where = Path(folder) / name
            init = teacher if name in ("mgcam_dkd", "mtcd") else []
            settings = [f"data.root={data}", f"run.dir={where}", *FAST, *overrides, *init]
            run = train(load_recipe(recipe, settings))
            evaluate(run)
            teacher = teacher or [f"networks.teacher.init={where}"]
            for path in sorted(where.glob("models/*.modalift")):
                found[f"{name}/{path.stem}"] = weights(path)
            for path in sorted(where.glob("predictions/*.npz")):
                found[f"{name}/{path.stem}"] = hashlib.sha256(np.load(path)["probabilities"].tobytes()).hexdigest()[:16]
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    before = json.loads(args.against.read_text()) if args.against else found
    different = sorted(name for name in found.keys() | before.keys() if found.get(name) != before.get(name))
    print(f"{len(found)} hashes" + (f", {len(different)} differ: {', '.join(different)}" if different else ", all alike"))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
