"""Locks between processes: the operating system releases them when their process ends, however it ends."""

from __future__ import annotations

import errno
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
#: Where Windows locks a byte: beyond the text, which other processes must be able to read.
_BEYOND = 1 << 30
_open: set[int] = set()


@contextmanager
def locked(path: Path, busy: Callable[[str], object]) -> Iterator[None]:
    """Holds a lock on the file ``path``, which is made for it and removed afterwards.

    A process that is killed does not hold the lock any more, nor do processes that it forked (loader workers). A file that
    it left does not matter. On a network file system the lock holds between machines where the file system supports locks
    (NFS 4, NFS 3 with its lock service); where it does not, and in a folder that cannot be written, nothing is locked.

    Args:
        path: a file that serves for this lock alone; its folder is made.
        busy: called once with the holder's description where another process holds the lock; it raises an error, or
            returns to wait for the lock.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, ".lock"), print):
        ...     Path(folder, ".lock").exists()
        True
    """
    handle = _acquire(path, busy)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):  # Windows does not remove an open file; the lock does not depend on it
                path.unlink(missing_ok=True)
            _open.discard(handle)
            os.close(handle)


def _acquire(path: Path, busy: Callable[[str], object]) -> int | None:
    told = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno in _READ_ONLY:
                return None
            raise
        _open.add(handle)
        taken = try_lock(handle)
        if taken is None:
            break
        with suppress(OSError):
            if taken and os.path.samestat(os.fstat(handle), path.stat()):  # not one that its holder has just removed
                _describe(handle)
                return handle
        _close(handle)
        if not taken:
            if not told:
                busy(_holder(path))
                told = True
            time.sleep(0.1)
    _close(handle)
    return None


def _describe(handle: int) -> None:
    """Writes which process holds the lock, for messages of others."""
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").strip() or "unknown"
    return "unknown"


def _close(handle: int) -> None:
    _open.discard(handle)
    os.close(handle)


def _close_in_child() -> None:
    """A forked process must not keep its parent's locks: they would outlive a parent that is killed."""
    for handle in tuple(_open):
        with suppress(OSError):
            os.close(handle)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def try_lock(handle: int) -> bool | None:
    """Locks an open file: True, or False if another process holds the lock; None on a file system without locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _BEYOND, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True
