"""The precision of a training: chosen by measurement, recorded, and measured without side effects."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
from io import StringIO

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from modalift.engine import precision, processor
from modalift.engine.precision import Choice, choose_precision, unsupported_reason
from modalift.engine.processor import LIMITS, Processor, describe, environment
from modalift.engine.run import Run
from modalift.engine.train import train
from modalift.errors import ModaliftError
from modalift.recipe import TINY, load_recipe
from modalift.report.console import ConsoleMonitor
from modalift.schemes.single import Single
from ports import free_port

CPU = torch.device("cpu")
OLD = Processor("old", ("avx2",), 2, 1)
NEW = Processor("new", ("avx2", "avx512f", "avx512_bf16"), 2, 1)


@pytest.fixture
def on(monkeypatch):
    """``on(processor)``: what follows runs as if on it."""
    return lambda processor: monkeypatch.setattr(precision, "describe", lambda: processor)


@pytest.fixture
def forced(monkeypatch, on):
    """``forced("bf16")``: a step is measured, and `auto` chooses this precision whatever the result."""
    on(NEW)
    return lambda outcome: monkeypatch.setattr(precision, "MAX_RELATIVE_TIME", {"bf16": float("inf"), "fp32": 0.0}[outcome])


def never(half: str) -> float:
    raise AssertionError("nothing needs measuring here")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model_path("student"))


def same(one: Run, other: Run) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("features", "limits", "half", "native"), [
    (("avx2",), (), "bf16", False),
    (("avx2", "avx512f", "avx512_vnni"), (), "bf16", False),
    (("avx512_bf16",), (), "bf16", True),
    (("amx_bf16",), (), "bf16", True),
    (("avx512_bf16",), (), "fp16", False),
    (("avx512_fp16",), (), "fp16", True),
    (("avx512_bf16",), ("ONEDNN_MAX_CPU_ISA=AVX2",), "bf16", False),
    (("avx512_bf16",), ("ONEDNN_MAX_CPU_ISA=avx512_core",), "bf16", False),
    (("avx512_bf16",), ("DNNL_MAX_CPU_ISA=AVX512_CORE_VNNI",), "bf16", False),
    (("avx512_bf16",), ("ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16",), "bf16", True),
    (("avx512_fp16",), ("ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16",), "fp16", False),
    (("avx512_bf16",), ("ONEDNN_MAX_CPU_ISA=ALL",), "bf16", True),
    (("avx512_bf16",), ("ATEN_CPU_CAPABILITY=avx2",), "bf16", False),
    (("avx512_bf16",), ("ATEN_CPU_CAPABILITY=avx512",), "bf16", True),
])
def test_what_a_processor_supports(features, limits, half, native):
    here = Processor("x", features, 2, 1, limits)
    assert here.supports(half) is native
    if not native:
        assert (limits[0] if limits else "no ") in here.unsupported_reason(half)


def test_this_processor_is_described(monkeypatch):
    for variable in LIMITS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    here = describe()
    assert here.name
    assert here.threads == torch.get_num_threads()
    assert here.cores >= 1
    assert here.limits == ("ONEDNN_MAX_CPU_ISA=AVX2",)
    line = here.line("fp32")
    for part in (here.name, *here.features, "limited by ONEDNN_MAX_CPU_ISA=AVX2", torch.__version__, "float32", "1 thread"):
        assert part in line
    assert json.loads(json.dumps(environment()))["features"] == list(here.features)


def test_a_processor_is_described_where_linux_files_and_calls_are_absent(monkeypatch, tmp_path):
    features = describe().features
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(processor, "Path", lambda path: tmp_path / "absent")
    assert describe().name == (platform.processor() or platform.machine())
    assert describe().cores == os.cpu_count()
    assert describe().features == (features if hasattr(torch.cpu, "get_capabilities") else ())


def test_what_a_device_does_not_support(on):
    on(NEW)
    assert unsupported_reason("bf16", CPU) == unsupported_reason("fp32", CPU) == ""
    assert unsupported_reason("fp16", CPU) == "no avx512_fp16 or amx_fp16"
    on(OLD)
    assert unsupported_reason("bf16", CPU) == "no avx512_bf16 or amx_bf16"
    on(dataclasses.replace(NEW, limits=("ONEDNN_MAX_CPU_ISA=AVX2",)))
    assert unsupported_reason("bf16", CPU) == "limited by ONEDNN_MAX_CPU_ISA=AVX2"
    assert unsupported_reason("bf16", torch.device("meta"))


def test_auto_takes_half_precision_only_where_it_is_native_and_faster():
    assert choose_precision("auto", "", lambda half: {"bf16": 0.5}[half]).precision == "bf16"
    slow = choose_precision("auto", "", lambda half: 0.95)
    assert slow == Choice("fp32", "a training step in bf16 takes 0.95 of float32's time")
    assert choose_precision("auto", "no avx512_bf16", never) == Choice("fp32", "no avx512_bf16")


def test_an_explicit_precision_is_taken_and_without_hardware_the_slowdown_is_stated():
    assert choose_precision("bf16", "", never) == Choice("bf16", "as the recipe says")
    assert choose_precision("fp32", "", never) == Choice("fp32", "as the recipe says")
    choice = choose_precision("bf16", "no avx512_bf16 or amx_bf16", lambda half: {"bf16": 7.94}[half])
    assert choice == Choice("bf16", "bf16 takes 7.9 times as long as float32 on this processor (no avx512_bf16 or amx_bf16)"
                                  " - set run.precision=auto", warning=True)


@pytest.mark.parametrize("outcome", ["bf16", "fp32"])
def test_auto_gives_the_weights_of_the_precision_that_it_chose(recipe_file, tmp_path, forced, outcome):
    forced(outcome)
    recipe, output = recipe_file(), StringIO()
    auto = train(load_recipe(recipe, ["run.precision=auto", f"run.dir={tmp_path / 'auto'}"]),
                 ConsoleMonitor(Console(file=output, width=200)))
    named = train(load_recipe(recipe, [f"run.precision={outcome}", f"run.dir={tmp_path / 'named'}"]))
    assert same(auto, named)
    assert f"precision {outcome}: a training step in bf16 takes " in output.getvalue()
    first, *_ = [json.loads(line) for line in (auto.folder / "log.jsonl").read_text().splitlines()]
    stored = json.loads(auto.environment_path.read_text())
    assert first["kind"] == "start"
    assert first["precision"] == stored["precision"] == auto.compute()["precision"] == outcome
    assert stored["precision_setting"] == "auto"


def test_the_two_precisions_differ(recipe_file, tmp_path):
    recipe = recipe_file()
    one, other = (train(load_recipe(recipe, [f"run.precision={p}", f"run.dir={tmp_path / p}"])) for p in ("bf16", "fp32"))
    assert not same(one, other), "otherwise the other tests compare nothing"


@pytest.mark.parametrize("every", [1e-6, 1e6], ids=["with a checkpoint", "before the first checkpoint"])
def test_a_resumed_run_keeps_its_precision_whatever_would_be_chosen_now(recipe_file, tmp_path, forced, monkeypatch, every):
    recipe = recipe_file(run={"checkpoint_every_s": every, "precision": "auto"})
    forced("bf16")
    whole = train(load_recipe(recipe, [f"run.dir={tmp_path / 'whole'}"]))

    def stop(self, batch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Single, "after_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(load_recipe(recipe))
    forced("fp32")
    output = StringIO()
    broken = train(load_recipe(recipe), ConsoleMonitor(Console(file=output, width=200)))
    assert same(whole, broken)
    assert "precision bf16: as at the start of this run" in output.getvalue()


def test_without_its_record_a_checkpoint_of_another_precision_is_refused(recipe_file, forced):
    recipe = recipe_file(run={"checkpoint_every_s": 1e-6, "precision": "auto"})
    forced("bf16")
    run = train(load_recipe(recipe))
    (run.folder / "compute.json").unlink()
    run.environment_path.write_text("{")
    forced("fp32")
    with pytest.raises(ModaliftError, match="started with another recipe"):
        train(load_recipe(recipe))


def test_a_finished_run_is_finished_however_it_is_asked_for(recipe_file, forced):
    recipe = recipe_file(run={"precision": "auto"})
    forced("bf16")
    train(load_recipe(recipe))
    forced("fp32")
    for setting in ("auto", "bf16"):
        assert train(load_recipe(recipe, [f"run.precision={setting}"])).finished
    with pytest.raises(ModaliftError, match="another recipe"):
        train(load_recipe(recipe, ["run.precision=fp32"]))


def test_several_processes_compute_alike(recipe_file, tmp_path):
    """All processes measure (their losses wait for each other), and the main one decides."""
    recipe = recipe_file(run={"precision": "auto"}, optim={"epochs": 1, "batch": 3})
    script = tmp_path / "both.py"
    script.write_text(
        "import os, sys\n"
        "from modalift.engine import precision, processor, train, trainer\n"
        "from modalift.recipe import load_recipe\n"
        "features = ('avx512_bf16',) if os.environ['RANK'] == '0' else ('avx2',)\n"
        "precision.describe = lambda: processor.Processor('this', features, 2, 1)\n"
        "precision.MAX_RELATIVE_TIME = float('inf') if os.environ['RANK'] == '0' else 0.0\n"
        "resolve = precision.resolve_precision\n"
        "def resolved(*given):\n"
        "    choice = resolve(*given)\n"
        "    open(f\"{sys.argv[2]}/rank{os.environ['RANK']}.txt\", 'w').write(choice.precision)\n"
        "    return choice\n"
        "trainer.resolve_precision = resolved\n"
        "train.train(load_recipe(sys.argv[1]))\n")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}",
                           str(script), str(recipe), str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    assert [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)] == ["bf16", "bf16"]


def test_wiring_is_tested_in_float32(recipe_file):
    assert load_recipe(recipe_file(), ["run.precision=auto", *TINY]).run.precision == "fp32"
