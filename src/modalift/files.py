"""Atomic writing: a crash, a kill or a full disk never leaves a partly written file or folder."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError

#: Hidden folders in which files and folders are written before they get their name; see :func:`_work_folder`.
_WORK, _LOCK = ".modalift-", "lock"


def write_beside(path: Path, write: Callable[[Path], object]) -> Path:
    """Calls ``write`` with a temporary file name on the same disk, syncs that file to disk and renames it to ``path``.

    The temporary file has the same name as ``path`` and lies in a hidden folder beside it.

    Raises:
        ModaliftError: the disk is full or the folder cannot be written; an existing file at ``path`` is kept.
    """
    with disk_errors(path):
        if path.is_dir() or path.name in ("", ".."):
            raise ModaliftError(f"{path}: is a folder - give the name of a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _work_folder(path.parent) as work:
            temporary = work / path.name
            try:
                write(temporary)
            except RuntimeError as error:  # how torch's zip writer reports a failed write
                if not any(word in str(error) for word in ("write", "Writer", "inline_container", "unexpected pos")):
                    raise
                raise ModaliftError(f"{path}: cannot be written (is the disk full?) - free some space and run the same"
                                    " command again; the previous file is kept") from error
            handle = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, path)
    return path


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder that gets the name ``path`` when the block ends without an error, and is removed otherwise.

    Until then it lies in a hidden folder beside ``path``. A process that is killed cannot remove it: the next one that
    writes into the same parent folder does.

    Args:
        path: the folder to write; it must not exist, or be an empty folder.

    Raises:
        ModaliftError: ``path`` exists and is not an empty folder, or it cannot be written, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with folder_beside(Path(parent, "new")) as folder:
        ...         written = (folder / "a.txt").write_text("text")
        ...     sorted(p.name for p in Path(parent).rglob("*"))
        ['a.txt', 'new']
    """
    with disk_errors(path, "nothing was written"):
        if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
            raise ModaliftError(f"{path} exists and is not empty - give a new folder, or remove it first")
        target = path.resolve()  # an empty folder may be given by a link
        target.parent.mkdir(parents=True, exist_ok=True)
        with _work_folder(target.parent) as work:
            folder = work / target.name
            folder.mkdir()
            yield folder
            os.replace(folder, target)


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in ``parent`` that is removed at the end; those that killed processes left there are removed now.

    While a process works in such a folder it holds a lock on a file in it, which the operating system releases when the
    process ends, however it ends. So a folder whose lock can be taken is left over. Process ids would not do: they are used
    again, and on a shared disk or in containers another machine's process has an id that is free here.
    """
    _remove_left_over(parent)
    folder, lock = _new_work_folder(parent)
    try:
        yield folder
    finally:
        os.close(lock)  # first: some file systems cannot remove a folder with an open file
        shutil.rmtree(folder, ignore_errors=True)


def _new_work_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = parent / f"{_WORK}{secrets.token_hex(6)}"
        folder.mkdir()
        try:
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:  # another process took the new folder, which had no lock yet, for one that was left over
            continue
        try:
            if _lock(lock) is not False and (folder / _LOCK).exists():
                return folder, lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _remove_left_over(parent: Path) -> None:
    with suppress(OSError):  # tidying up must not stop the work
        for folder in parent.glob(f"{_WORK}*"):
            try:
                lock = os.open(folder / _LOCK, os.O_RDWR)
            except FileNotFoundError:
                with suppress(OSError):
                    folder.rmdir()  # only if it is empty: its process may be about to make the lock
                continue
            try:
                if _lock(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _lock(handle: int) -> bool | None:
    """Locks an open file: True, or False if another process holds the lock; None on a file system without locks."""
    held = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    try:
        if sys.platform == "win32":
            import msvcrt
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in held else None
    return True


def read_json(path: Path, what: type, advice: str, fits: Callable[[Any], bool] = lambda content: True) -> Any:
    """Reads a JSON file whose content must be of type ``what``.

    Args:
        path: the file.
        what: ``dict`` or ``list``.
        advice: for error messages: how to create the file again.
        fits: whether a content of this type has the expected parts.

    Raises:
        ModaliftError: the file is missing, damaged, or holds another type.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModaliftError(f"{path}: no such file - {advice}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModaliftError(f"{path}: is damaged ({error}) - remove it; {advice}") from None
    if not isinstance(held, what):
        raise ModaliftError(f"{path}: is damaged (not a JSON {what.__name__}) - remove it; {advice}")
    if not fits(held):
        raise ModaliftError(f"{path}: is damaged (it does not hold what it should) - remove it; {advice}")
    return held


def write_text(path: Path, text: str) -> Path:
    """:func:`write_beside` for text, in UTF-8."""
    return write_beside(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def disk_errors(path: Path, kept: str = "the previous file is kept") -> Iterator[None]:
    """Converts the operating system's errors about ``path`` into a ModaliftError that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full: free some space and run the same command again" if full else error.strerror
        raise ModaliftError(f"{path}: cannot be written - {advice}; {kept}") from error
