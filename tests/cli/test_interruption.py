"""Ctrl-C and SIGTERM: one line that says what is kept, the right exit code, and nothing left, at any moment of any verb."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from modalift import interruption
from modalift.darkroom import simulate
from modalift.interruption import Interrupted, keeping, shielded, watched, writing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


# ---- in this process ------------------------------------------------------------------------------------------------

@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal():
    """Jobs in the background of a shell ignore Ctrl-C, and what they start inherits that."""
    before = {number: signal.getsignal(number) for number in interruption.SIGNALS}
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stop(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_one_exception(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, watched():
        stop(number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before
    assert not interruption.arrived()


def test_an_exception_that_a_library_drops_is_raised_again():
    def dropped() -> None:
        with suppress(BaseException):
            stop()
        time.sleep(5)
        pytest.fail("it was not raised again")

    with pytest.raises(Interrupted), watched():
        dropped()


def test_what_is_being_closed_is_not_disturbed():
    closed = []

    def work() -> None:
        try:
            stop()
        finally:
            time.sleep(3 * interruption._AGAIN_S)
            closed.append("whole")

    with pytest.raises(Interrupted), watched():
        work()
    assert closed == ["whole"]


def test_what_a_verb_says_instead_of_a_part_of_it():
    def work() -> None:
        with keeping("the whole", instead=True), keeping("a part"):
            raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.kept == "the whole"


def test_lines_that_must_not_be_left_in_the_middle():
    done = []

    def work() -> None:
        with shielded():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(2 * interruption._AGAIN_S)
            done.append("whole")
        pytest.fail("it was not raised at the end")

    with pytest.raises(Interrupted), watched():
        work()
    assert done == ["whole"]


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with watched():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_innermost_explanation_counts(tmp_path):
    with pytest.raises(Interrupted) as caught, keeping("outer"), keeping(lambda: "inner"):
        raise Interrupted(signal.SIGINT)
    assert (caught.value.kept, caught.value.exit_code) == ("inner", 130)

    def write() -> None:
        with writing(tmp_path / "a", tmp_path / "b"):
            (tmp_path / "a").touch()
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        write()
    assert caught.value.kept == f"{tmp_path}/a was written; {tmp_path}/b was not written - run the same command again"


def test_a_program_that_uses_the_library_gets_its_own_error():
    with pytest.raises(KeyboardInterrupt), keeping("outer"):
        raise KeyboardInterrupt


# ---- as a program ---------------------------------------------------------------------------------------------------

class Program:
    """A command line in a process group of its own."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "modalift", *map(str, words)], cwd=folder, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def end(self, number: int, group: bool, when: Callable[[], bool]) -> tuple[int, str]:
        """Sends a signal, to all its processes or to the first alone, as soon as a condition holds."""
        limit = time.monotonic() + 120
        while not when():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
        (os.killpg if group else os.kill)(self.process.pid, number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def program(tmp_path):
    started = []

    def start(*words: object) -> Program:
        started.append(Program(tmp_path, *words))
        return started[-1]

    yield start
    for made in started:
        if made.process.poll() is None:
            os.killpg(made.process.pid, signal.SIGKILL)
            made.process.communicate()


def the_line(said: str) -> str:
    """The only line that is no message of the verb itself."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error ")]
    assert len(lines) == 1, said
    assert said.splitlines()[-1] == lines[0]
    return lines[0]


def test_while_it_imports(program, tmp_path):
    (tmp_path / "slow.py").write_text("import time\nopen('begun', 'w').close()\ntry:\n    time.sleep(60)\n"
                                      "except BaseException:\n    pass\ntime.sleep(60)\n")
    code, said = program("--plugin", "slow.py", "list").end(signal.SIGINT, False, (tmp_path / "begun").exists)
    assert code == 130, said
    assert the_line(said) == "error interrupted - nothing was changed; run the same command again"


@pytest.mark.parametrize(("number", "group", "workers"), [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 2),
                                                          (signal.SIGINT, False, 1)])
def test_simulate(program, tmp_path, number, group, workers):
    def several_clips() -> bool:
        return len(list(tmp_path.glob(".modalift-*/new/rgb/*"))) > 2

    code, said = program("simulate", "new", "--clips", 5000, "--size", 32, "--frames", 4, "--workers", workers).end(
        number, group, several_clips)
    how = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert code == 128 + number, said
    assert the_line(said) == f"error {how} - new was not written; run the same command again"
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("data") / "clips", clips=200, size=64, frames=16, modalities=["rgb"])


def test_a_view_appears_when_it_is_complete(program, tmp_path, clips):
    code, said = program("derive", "flow", clips, "new").end(
        signal.SIGTERM, True, lambda: bool(list(tmp_path.glob(".modalift-*/new/*"))))
    assert code == 143, said
    assert "new was not written; run the same command again" in the_line(said)
    assert not list(tmp_path.iterdir())


def test_a_frame_cache_goes_on(program, tmp_path, clips):
    code, said = program("cache", clips, "new").end(signal.SIGINT, True, lambda: any(
        p.stat().st_size for p in tmp_path.glob("new/*.bin")))
    assert code == 130
    assert the_line(said) == "error interrupted - decoded clips are kept; run the same command again to go on"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, True)])
def test_train_says_from_which_step_it_resumes(program, recipe_file, tmp_path, number, group):
    recipe = recipe_file(optim={"epochs": 1000, "batch": 2}, run={"checkpoint_every_s": 0.1, "workers": 2})
    run = tmp_path / "run"
    seen = set()

    def two_checkpoints() -> bool:
        seen.update(path.stat().st_ino for path in run.glob("checkpoints/last.pt"))
        return len(seen) > 1

    code, said = program("train", recipe, f"run.dir={run}").end(number, group, two_checkpoints)
    assert code == 128 + number, said
    line = the_line(said)
    assert f"run the same command again to resume {run} from step " in line
    assert int(line.split(" from step ")[1].split()[0]) > 0
    assert not list(run.rglob(".modalift-*"))


def test_a_study_ends_its_trainings(program, recipe_file, tmp_path):
    recipe = recipe_file(optim={"epochs": 1000, "batch": 2}, run={"checkpoint_every_s": 0.1})
    folder = tmp_path / "study"
    code, said = program("study", recipe, "--seeds", 1, "--out", folder).end(
        signal.SIGINT, False, lambda: bool(list(folder.rglob("last.pt"))))
    assert code == 130, said
    assert the_line(said) == "error interrupted - finished trainings are kept; run the same command again to go on"
    sizes = [p.stat().st_mtime_ns for p in sorted(folder.rglob("last.pt"))]
    time.sleep(1)
    assert [p.stat().st_mtime_ns for p in sorted(folder.rglob("last.pt"))] == sizes, "a training went on"
    assert not list(folder.rglob(".modalift-*"))
