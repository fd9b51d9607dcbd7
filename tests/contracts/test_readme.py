"""The README's commands run, shrunk to seconds; its promises about files hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_main_job_run_in_order(tmp_path):
    (script,) = blocks("bash")
    script = script.replace("--clips 1600 --workers 2", "--clips 24 --size 32 --frames 4")
    script = re.sub(r"^(modalift train \S+)", r"\1 --scale tiny", script, flags=re.MULTILINE)
    shell = f'set -e\nmodalift() {{ {sys.executable} -m modalift.cli "$@"; }}\n{script}'
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (python,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    run = tmp_path / "runs" / "darkroom" / "taught_thermal" / "seed0"
    promised = re.search(r"A run is a folder\*\*:(.*?)\n- ", (ROOT / "README.md").read_text(), re.DOTALL)
    for name in re.findall(r"`([\w./]+)`", promised[1]):
        assert (run / name).exists(), name


def test_files_that_the_readme_links_to_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link
