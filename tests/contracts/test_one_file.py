"""One file adds a scheme, a network, a dataset, a modality or a derived view, and every contract then holds for it.

Five files are put into a copy of the package, one in each folder; nothing else is changed. The contracts of this project
are run over that copy, for what is called ``newcomer`` alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "modalities": '''
"""An event camera: brighter and darker events of each pixel, counted over a frame's time."""

from modalift.modalities.modality import MODALITIES, Modality

MODALITIES.add("newcomer", Modality("newcomer", "video", 2, "events", 0.0, 255.0, "uint8", mean=(2.0,), std=(4.0,)))
''',
    "networks": '''
"""A pixel's color, averaged: the smallest of networks."""

from collections.abc import Collection

from torch import Tensor, nn

from modalift.networks.recognizer import Backbone, Recognizer, Stage
from modalift.networks.registry import network
from modalift.networks.spec import NetworkSpec
from modalift.signatures import Count


class Trunk(Backbone):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(channels, width, (3, 1, 1), padding=(1, 0, 0)), nn.BatchNorm3d(width), nn.Tanh())
        self.second = nn.Conv3d(width, 2 * width, 1)
        self.stages = {"first": Stage(width, 1), "second": Stage(2 * width, 1)}

    def features(self, x: Tensor, keep: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        first = self.first(x)
        second = self.second(first)
        return second, {k: m for k, m in (("first", first), ("second", second)) if k in keep}


class Late(nn.Module):
    """The last frame counts twice, so that time matters."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.mean((3, 4))
        return self.fc((frames.mean(2, keepdim=True).expand(-1, -1, 2) + frames[:, :, -1:]).flatten(1))


@network("newcomer", papers="nobody's")
def newcomer(spec: NetworkSpec, *, width: Count = 8) -> Recognizer:
    """Pixels of three frames, mixed."""
    return Recognizer(spec, Trunk(spec.prepared_channels, width), Late(2 * width, spec.classes))
''',
    "schemes": '''
"""A teacher whose logits a student repeats."""

from typing import Literal

from modalift.modalities import Batch
from modalift.networks import Recognizer
from modalift.schemes.registry import scheme
from modalift.schemes.scheme import Progress, Scheme, Terms, label_loss, masked_mean, observe, observe_frozen, on_common_clips
from modalift.signatures import NonNegative


@scheme("newcomer")
class Newcomer(Scheme):
    """Logits are numbers like any other."""

    frozen_roles = ("teacher",)

    def __init__(self, student: Recognizer, teacher: Recognizer, *, logit_weight: NonNegative = 0.5,
                 distance: Literal["squared", "absolute"] = "squared") -> None:
        super().__init__()
        self.student, self.teacher, self.logit_weight, self.distance = student, teacher, logit_weight, distance

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        seen = observe(self.student, batch)
        own, shown = on_common_clips(seen, observe_frozen(self.teacher, batch))
        apart = (own.logits - shown.logits).float()
        each = apart.square().mean(1) if self.distance == "squared" else apart.abs().mean(1)
        return {"ce/student": (1.0, label_loss(seen, batch)), "logits/teacher>student": (self.logit_weight, masked_mean(each))}
''',
    "datasets": '''
"""A list of clips and an archive of events for each."""

from pathlib import Path

from modalift.datasets.registry import dataset
from modalift.errors import ModaliftError
from modalift.modalities import Row, Table, Track, build_table, modality


@dataset("newcomer", recognize=lambda root: (root / "events.txt").is_file())
def read_newcomer(root: Path, *, rate: float = 30.0) -> Table:
    """Lines of `clip split class`, and `clip.npz`.

    Args:
        root: the download.
        rate: frames a second.
    """
    try:
        lines = [line.split() for line in (root / "events.txt").read_text().splitlines()]
        rows = [(clip, split, name) for clip, split, name in lines]
    except (OSError, ValueError):
        raise ModaliftError(f"{root / 'events.txt'}: is no list of clips - take the download's") from None
    classes = sorted({name for *_, name in rows})
    return build_table("newcomer", classes, {"newcomer": modality("newcomer")}, [
        Row(clip, classes.index(name), clip[:2], split, {"newcomer": Track(root / f"{clip}.npz", rate=rate)})
        for clip, split, name in rows])
''',
    "derive": '''
"""Events, as an event camera would have counted them."""

from pathlib import Path

import numpy as np

from modalift.derive.registry import derived
from modalift.derive.writing import source_view, write_view
from modalift.loading import reading
from modalift.modalities import Row, Table, modality


@derived("newcomer")
def derive_newcomer(table: Table, view: str | None, out: Path, *, threshold: int = 8, name: str = "newcomer",
                    progress=None) -> Table:
    """Where an image became brighter or darker by more than a threshold since the frame before.

    Args:
        table: the clips.
        view: a color view; by default the first.
        out: a new folder.
        threshold: in gray levels.
        name: of the new view.
        progress: called with (clips done, clips).
    """
    source = source_view(table, view, ("rgb",), "newcomer")

    def make(row: Row, file: Path) -> None:
        gray = reading.read(row.tracks[source], table.modality(source)).mean(3)
        change = np.diff(gray, axis=0, prepend=gray[:1])
        np.savez_compressed(file, frames=np.stack([change > threshold, change < -threshold], 3).astype(np.uint8))

    return write_view(table, out, source, name, modality("newcomer"), ".npz", make, progress=progress)
''',
}
SAMPLE = '''
from pathlib import Path

import numpy as np


def write(root: Path) -> dict:
    root.mkdir(parents=True)
    clips = [("s1_a", "train", "left"), ("s1_b", "train", "right"), ("s2_a", "val", "left"), ("s3_b", "test", "right")]
    (root / "events.txt").write_text("\\n".join(map(" ".join, clips)))
    for number, (clip, *_) in enumerate(clips):
        np.savez(root / f"{clip}.npz", frames=np.random.default_rng(number).integers(0, 9, (4, 12, 16, 2), dtype=np.uint8))
    return {"rate": 25.0}
'''
LISTED = """
import sys
from modalift.report.listing import listing
for what in ("schemes", "networks", "modalities", "datasets", "derived"):
    assert any(row["name"] == "newcomer" for row in listing(what)[0]), what
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> dict[str, str]:
    """The environment in which ``modalift`` is the copy with five files more."""
    source = tmp_path_factory.mktemp("grown") / "src"
    shutil.copytree(ROOT / "src" / "modalift", source / "modalift", ignore=shutil.ignore_patterns("__pycache__"))
    for package, text in FILES.items():
        (source / "modalift" / package / "newcomer.py").write_text(text.lstrip())
    (source / "sample_newcomer.py").write_text(SAMPLE)
    return os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}


def test_every_contract_holds_for_what_one_file_adds(grown):
    names = ("schemes", "schemes_on_backbones", "networks", "datasets", "derived", "modalities")
    contracts = [f"tests/contracts/test_{name}.py" for name in names]
    chosen = "newcomer-newcomer or (newcomer and not on_backbones)"  # of all pairs: the new family under the new scheme
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-k", chosen, *contracts], cwd=ROOT,
                          env=grown, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for name in names:
        assert sum(f"test_{name}.py" in line for line in passed) >= 1, f"no contract of {name} met it"
    assert len(passed) > 60


def test_the_command_line_lists_it(grown):
    done = subprocess.run([sys.executable, "-c", LISTED], env=grown, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
