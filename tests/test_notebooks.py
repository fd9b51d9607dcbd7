"""The notebooks of examples/ run from top to bottom, as they are, in a kernel."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `!modalift` is the program of this Python, whether it is installed or not.
    program = tmp_path / "bin" / "modalift"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m modalift "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    notebook = nbformat.read(path, as_version=4)
    folder = tmp_path / "work"
    folder.mkdir()
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    assert not re.search(r"^error ", said, re.MULTILINE), said[-2000:]  # a failing `!` command does not stop a notebook
    assert "note 64 of 144 clips are unlabeled" in said
    assert (folder / "student.modalift").is_file()
    right, clips = (int(word) for word in said.strip().splitlines()[-1].split() if word.isdigit())
    assert right > 0.6 * clips  # chance is a quarter


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs"), "clear the outputs"
        assert cell.get("execution_count") is None
