"""The command line as a program: help, usage errors, plugins, what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

VERBS = ("simulate", "check", "derive", "cache", "look", "list", "explain", "cost", "train", "eval", "compare", "diagnose",
         "study", "fuse", "ship", "predict", "export", "demo")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(modalift, verb):
    code, said, _ = modalift(verb, "--help")
    assert code == 0
    assert len(said.split()) > 25


def test_usage_errors_are_one_line_too(wrong):
    assert "Did you mean 'train'" in wrong("trian")
    assert "see `modalift train --help`" in wrong("train")


def test_other_wrong_things(wrong, tmp_path, recipe_file):
    assert "not a run folder" in wrong("eval", tmp_path)
    assert "at least two run folders" in wrong("compare", tmp_path)
    assert "did you mean 'schemes'" in wrong("list", "shemes")
    assert "no such Python file" in wrong("--plugin", tmp_path / "none.py", "list")
    assert "did you mean 'small'" in wrong("cost", "smal")
    for words in (["train"], ["explain"], ["look"], ["study"], ["train", recipe_file(), "--match-compute"]):
        assert "did you mean 'darkroom/taught_thermal'" in wrong(*words, "darkroom/taught_termal")
    assert "only 'tiny'" in wrong("train", recipe_file(), "--scale", "huge")
    assert "only 'full' and 'tiny'" in wrong("demo", "--scale", "huge", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_as_a_program_it_exits_with_2_and_without_a_traceback(tmp_path):
    done = subprocess.run([sys.executable, "-m", "modalift.cli", "train", str(tmp_path / "no.yaml")], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error ")
    assert "Traceback" not in done.stderr


def test_a_plugin_adds_a_scheme(modalift, recipe_file, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from modalift.schemes.single import Single\nfrom modalift.schemes import scheme\n\n"
        "@scheme('mine')\nclass Mine(Single):\n    '''Mine.'''\n")
    code, said, _ = modalift("--plugin", tmp_path / "mine.py", "train", recipe_file(), "scheme.name=mine", "optim.epochs=1")
    assert code == 0, said


@pytest.mark.parametrize(("code", "message"), [("def (", "SyntaxError"), ("import nowhere_at_all", "nowhere_at_all"),
                                               ("raise SystemExit(7)", "SystemExit")])
def test_a_broken_plugin_is_one_line(wrong, tmp_path, code, message):
    (tmp_path / "mine.py").write_text(code)
    assert message in wrong("--plugin", tmp_path / "mine.py", "list")


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("trian",)])
def test_help_and_mistyped_words_are_answered_without_pytorch(words):
    code = f"import sys; sys.argv = ['modalift', *{words!r}]; from modalift.cli import main\n" \
           "try:\n    main()\nfinally:\n    print('torch' in sys.modules, 'modalift.recipe' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("False False\n")


def test_idle_threads_are_told_to_sleep_before_pytorch_is_loaded(tmp_path):
    (tmp_path / "mine.py").write_text("import os, sys\nassert 'torch' not in sys.modules\n"
                                      "assert os.environ['OMP_WAIT_POLICY'] == 'passive', os.environ['OMP_WAIT_POLICY']\n"
                                      "assert os.environ['GOMP_SPINCOUNT'] == '7'\n")
    unset = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-m", "modalift", "--plugin", str(tmp_path / "mine.py"), "list", "modalities"],
                          env={**unset, "GOMP_SPINCOUNT": "7"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # and what a person has set stays


@pytest.mark.parametrize("module", ["modalift", "modalift.cli"])
def test_it_runs_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "list", "modalities", "--json"], capture_output=True, text=True,
                          check=True)
    assert "thermal" in {row["name"] for row in json.loads(done.stdout)}


def test_a_terminal_that_lacks_letters_gets_them_in_another_form(tmp_path):
    (tmp_path / "train" / "日本" / "s1_a").mkdir(parents=True)
    np.savez(tmp_path / "train" / "日本" / "s1_a" / "depth.npz", frames=np.ones((3, 8, 8), np.uint16))
    done = subprocess.run([sys.executable, "-m", "modalift", "check", str(tmp_path)], capture_output=True, check=False,
                          env={**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C"})
    assert done.returncode == 0
    assert rb"\u65e5\u672c" in done.stdout
    assert done.stderr == b""


def test_a_reader_that_ends_early_is_no_error():
    listing = subprocess.Popen([sys.executable, "-m", "modalift", "list", "keys", "--json"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    listing.stdout.close()
    assert listing.stderr.read() == b""
    assert listing.wait() in (1, 141)


def test_names_are_printed_as_they_are(modalift, tmp_path):
    for name in ("[red]x", ":smile:", "a\x1b[31m", "\u202ex"):
        folder = tmp_path / "[b]set" / "train" / name / "s1_a"
        folder.mkdir(parents=True)
        np.savez(folder / "depth.npz", frames=np.ones((3, 8, 8), np.uint16))
    _, said, _ = modalift("check", tmp_path / "[b]set")
    for shown in ("[b]set: 4 clips", "[red]x", ":smile:", r"a\x1b[31m", r"\u202ex"):
        assert shown in said
    assert "\x1b[31m" not in said
