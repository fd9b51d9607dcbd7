"""Writing so that a crash, a kill or a full disk never leaves half a file."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError


def write_beside(path: Path, write: Callable[[Path], object]) -> Path:
    """Calls ``write`` with a name beside ``path``, forces it to disk and renames it over ``path``.

    Raises:
        ModaliftError: where the disk is full or the folder cannot be written; what stood at ``path`` stays.
    """
    if path.is_dir():
        raise ModaliftError(f"{path}: is a folder - name a file in it")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    for left in path.parent.glob(f".{path.name}.*.part"):  # of a process that was killed while it wrote
        if not Path(f"/proc/{left.suffixes[-2][1:]}").exists():
            left.unlink(missing_ok=True)
    with disk_errors(path):
        try:
            write(beside)
            handle = os.open(beside, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    return path


def read_json(path: Path, what: type, advice: str) -> Any:
    """A JSON file's content, which must be of a type.

    Raises:
        ModaliftError: missing, damaged, or of another type; ``advice`` says how it is made again.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModaliftError(f"{path}: no such file - {advice}") from None
    except (OSError, ValueError) as error:
        raise ModaliftError(f"{path}: is damaged ({error}) - remove it; {advice}") from None
    if not isinstance(held, what):
        raise ModaliftError(f"{path}: is damaged (not a JSON {what.__name__}) - remove it; {advice}")
    return held


def write_text(path: Path, text: str) -> Path:
    """:func:`write_beside` for text, in UTF-8."""
    return write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's words about ``path`` into one line with what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full: free some space and run the same command again" if full else error.strerror
        raise ModaliftError(f"{path}: cannot be written - {advice}; what was there before is kept") from error
    except RuntimeError as error:  # torch's zip writer reports a failed write so
        if not any(word in str(error) for word in ("write", "PytorchStreamWriter", "inline_container", "unexpected pos")):
            raise
        raise ModaliftError(f"{path}: cannot be written (is the disk full?) - free some space and run the same command"
                            " again; what was there before is kept") from error
