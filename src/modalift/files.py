"""Atomic writing: a crash, a kill or a full disk never leaves a partly written file."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError

#: Seconds after which an incomplete file that nobody writes to is that of a process that was killed. Whether that process
#: lives is not asked: there is no way for all systems, and it may run on another machine that shares the disk.
ABANDONED_S = 600.0


def write_beside(path: Path, write: Callable[[Path], object]) -> Path:
    """Calls ``write`` with a temporary name in the same folder, syncs that file to disk and renames it to ``path``.

    Raises:
        ModaliftError: the disk is full or the folder cannot be written; an existing file at ``path`` is kept.
    """
    if path.is_dir():
        raise ModaliftError(f"{path}: is a folder - give the name of a file in it")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    for left in path.parent.glob(f".{path.name}.*.part"):
        with suppress(OSError):  # another process may remove it too
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                left.unlink()
    with disk_errors(path):
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


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
def disk_errors(path: Path) -> Iterator[None]:
    """Converts the operating system's errors about ``path`` into a ModaliftError that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full: free some space and run the same command again" if full else error.strerror
        raise ModaliftError(f"{path}: cannot be written - {advice}; the previous file is kept") from error
    except RuntimeError as error:  # how torch's zip writer reports a failed write
        if not any(word in str(error) for word in ("write", "PytorchStreamWriter", "inline_container", "unexpected pos")):
            raise
        raise ModaliftError(f"{path}: cannot be written (is the disk full?) - free some space and run the same command"
                            " again; the previous file is kept") from error
