"""Files and folders appear whole or not at all, and what a killed process left is removed by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modalift import files
from modalift.errors import ModaliftError
from modalift.files import folder_beside, write_text

HOLDS = """
import sys, time
from pathlib import Path
from modalift.files import folder_beside, write_beside

def hold(path):
    (path / "half" if path.is_dir() else path).write_text("half")
    print("writing", flush=True)
    time.sleep(600)

if sys.argv[1] == "folder":
    with folder_beside(Path(sys.argv[2])) as folder:
        hold(folder)
write_beside(Path(sys.argv[2]), hold)
"""


@pytest.fixture
def writer(tmp_path):
    """Starts a process that is in the middle of writing a file or a folder."""
    started = []

    def start(what: str, path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLDS, what, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with folder_beside(tmp_path / "a" / "new") as folder:
        (folder / "x").write_text("x")
        assert names(tmp_path / "a") == [folder.parent.name]
    assert names(tmp_path / "a") == ["new"]
    assert names(tmp_path / "a" / "new") == ["x"]


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with folder_beside(tmp_path / "link") as folder:
        (folder / "x").write_text("x")
    assert names(tmp_path / "empty") == ["x"]
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("what", ["file", "folder", "dangling link"])
def test_what_exists_is_kept(tmp_path, what):
    path = tmp_path / "taken"
    if what == "file":
        path.write_text("mine")
    elif what == "folder":
        path.mkdir()
        (path / "mine").touch()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModaliftError, match="taken exists and is not empty - give a new folder"), folder_beside(path):
        pytest.fail("was about to write")
    assert names(tmp_path) == ["taken"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError(28, "No space left on device")])
def test_an_error_leaves_nothing(tmp_path, error):
    full = isinstance(error, OSError)

    def write() -> None:
        with folder_beside(tmp_path / "new") as folder:
            (folder / "x").touch()
            raise error

    with pytest.raises(ModaliftError if full else error, match="disk is full" if full else None):
        write()
    assert not names(tmp_path)


def test_a_name_of_the_greatest_length_is_written(tmp_path):
    longest = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    write_text(tmp_path / longest, "text")
    assert (tmp_path / longest).read_text() == "text"
    with folder_beside(tmp_path / ("d" + longest[1:])):
        pass
    assert names(tmp_path) == ["d" + longest[1:], longest]
    with pytest.raises(ModaliftError, match=r"nn: cannot be used \(File name too long\) - give a shorter name"):
        write_text(tmp_path / (longest + "n"), "text")
    with pytest.raises(ModaliftError, match=r"nn: cannot be written - File name too long"), \
            folder_beside(tmp_path / (longest + "n")):
        pass


@pytest.mark.parametrize("path", ["", ".", "..", "/", "sub"])
def test_a_folder_is_not_a_file_name(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    with pytest.raises(ModaliftError, match="is a folder - give the name of a file in it"):
        write_text(Path(path), "text")
    assert names(tmp_path) == ["sub"]


def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "loop").symlink_to("loop")
    before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    for name, reason in (("pipe", "is not a regular file"), ("device", "is not a regular file"), ("loop", "symbolic links")):
        with pytest.raises(ModaliftError, match=f"{name}: .*{reason}"):
            write_text(tmp_path / name, "text")
    assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_text(tmp_path / "link", "text")  # to nothing yet
    write_text(tmp_path / "link", "again")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "again"
    assert names(tmp_path / "there") == ["file"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, writer, what):
    process = writer(what, tmp_path / "first")
    assert len(names(tmp_path)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "another", "text")  # not only the same name: nobody may ever write that one again
    assert names(tmp_path) == ["another"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_the_work_of_a_living_process_is_kept(tmp_path, writer, what):
    process = writer(what, tmp_path / "first")
    write_text(tmp_path / "another", "text")
    with folder_beside(tmp_path / "new"):
        pass
    half = list(tmp_path.glob(".modalift-*/first" if what == "file" else ".modalift-*/first/half"))
    assert [p.read_text() for p in half] == ["half"]
    assert process.poll() is None


def test_other_hidden_folders_are_kept(tmp_path):
    (tmp_path / ".first.123").mkdir()
    (tmp_path / ".modalift-mine").mkdir()
    (tmp_path / ".modalift-mine" / "file").touch()  # no lock: not ours
    write_text(tmp_path / "another", "text")
    assert names(tmp_path) == [".first.123", ".modalift-mine", "another"]


def test_without_locks_nothing_is_taken_for_left_over(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "try_lock", lambda handle: None)  # a file system without locks
    with folder_beside(tmp_path / "first") as folder:
        (folder / "x").touch()
        write_text(tmp_path / "another", "text")
        assert (folder / "x").exists()
    assert names(tmp_path) == ["another", "first"]


def test_two_processes_do_not_write_one_folder(tmp_path):
    out = tmp_path / "out"

    def second() -> None:
        with folder_beside(out):
            pass

    with folder_beside(out) as folder:
        (folder / "a").write_text("1")
        with folder_beside(tmp_path / "other"):  # beside it
            pass
        with pytest.raises(ModaliftError, match="out: another process writes this folder - wait until it has ended"):
            second()
    assert (out / "a").read_text() == "1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out"]
