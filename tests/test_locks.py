"""Locks between processes: one holds it, others are told, and a killed process holds nothing."""

from __future__ import annotations

import errno
import multiprocessing
import os
import platform
import signal
import time
from pathlib import Path

import pytest

from modalift import locks
from modalift.locks import locked


def _hold(path: Path, ready, fork: bool) -> None:
    with locked(path, lambda holder: None):
        if fork and not os.fork():  # a loader's worker that outlives its parent
            ready.send(os.getpid())
            time.sleep(60)
            os._exit(0)
        if not fork:
            ready.send(0)
        time.sleep(60)


def told(path: Path) -> str:
    """What a second process is told about the holder; empty if the lock is free."""
    found = []

    def busy(holder: str) -> None:
        found.append(holder)
        raise RuntimeError

    try:
        with locked(path, busy):
            return ""
    except RuntimeError:
        return found[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("fork", [False, True])
def test_a_killed_process_and_what_it_forked_hold_no_lock(tmp_path, fork):
    path = tmp_path / "run" / ".lock"
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, theirs, fork))
    process.start()
    child = mine.recv()
    assert told(path) == f"process {process.pid} on {platform.node()}"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    try:
        assert told(path) == ""
    finally:
        if child:
            os.kill(child, signal.SIGKILL)


def test_a_lock_is_released_at_the_end_also_after_an_error(tmp_path):
    path = tmp_path / ".lock"
    def fail() -> None:
        with locked(path, print):
            assert told(path)
            raise ValueError("any")

    with pytest.raises(ValueError, match="any"):
        fail()
    assert told(path) == ""
    assert not path.exists()


def test_a_file_that_a_killed_process_left_does_not_matter(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on another")
    assert told(tmp_path / ".lock") == ""


def test_without_locks_of_the_file_system_nothing_is_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "try_lock", lambda handle: None)
    with locked(tmp_path / ".lock", print):
        assert told(tmp_path / ".lock") == ""


def test_a_folder_that_cannot_be_written_is_not_locked(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(locks.os, "open", refused)
    with locked(tmp_path / ".lock", print):
        pass
