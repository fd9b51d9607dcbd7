"""Files and folders: what a path is, text and JSON, and atomic writing.

A crash, a kill or a full disk never leaves a partly written file or folder. A path that the system cannot follow (a name that
is too long or holds a null character, a loop of links, a folder without permission) is an error of one line, as is a file that
is none (a pipe, a device).
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modalift.errors import ModaliftError
from modalift.interruption import shielded
from modalift.locks import try_lock

#: Hidden folders in which files and folders are written before they get their name; see :func:`_work_folder`.
_WORK, _LOCK = ".modalift-", "lock"


def write_beside(path: Path, write: Callable[[Path], object]) -> Path:
    """Calls ``write`` with a temporary file name on the same disk, syncs that file to disk and renames it to ``path``.

    The temporary file has the same name as ``path`` and lies in a hidden folder beside it. A link is followed, and stays.

    Raises:
        ModaliftError: the disk is full or the folder cannot be written; an existing file at ``path`` is kept. What is no
            regular file (a folder, or a device such as /dev/null) is never replaced.
    """
    with disk_errors(path):
        found = status(path)
        if (found and stat.S_ISDIR(found.st_mode)) or path.name in ("", ".."):
            raise ModaliftError(f"{path}: is a folder - give the name of a file in it")
        if found and not stat.S_ISREG(found.st_mode):
            raise ModaliftError(f"{path}: is not a regular file - give the name of a file")
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with _work_folder(target.parent) as work:
            temporary = work / target.name
            try:
                write(temporary)
            except RuntimeError as error:  # how torch's zip writer reports a failed write
                if not any(word in str(error) for word in ("write", "Writer", "inline_container", "unexpected pos")):
                    raise
                raise ModaliftError(f"{path}: cannot be written (is the disk full?) - free some space and run the same"
                                    " command again; the previous file is kept") from error
            with temporary.open("rb+") as file:  # Windows flushes only a file that is open for writing
                os.fsync(file.fileno())
            os.replace(temporary, target)
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
        target = Path(os.path.realpath(path))  # an empty folder may be given by a link
        target.parent.mkdir(parents=True, exist_ok=True)
        with _work_folder(target.parent) as work:
            folder = work / target.name
            folder.mkdir()
            yield folder
            if target.exists():  # it is empty; not every system replaces a folder
                target.rmdir()
            os.replace(folder, target)


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in ``parent`` that is removed at the end; those that killed processes left there are removed now.

    While a process works in such a folder it holds a lock on a file in it, which the operating system releases when the
    process ends, however it ends. So a folder whose lock can be taken is left over. Process ids would not do: they are used
    again, and on a shared disk or in containers another machine's process has an id that is free here.
    """
    _remove_left_over(parent)
    folder, lock = parent, -1
    try:
        with shielded():
            folder, lock = _new_work_folder(parent)
        yield folder
    finally:
        if lock >= 0:
            with shielded():
                os.close(lock)  # first: some file systems cannot remove a folder with an open file
                try:
                    shutil.rmtree(folder, ignore_errors=True)
                except BaseException:  # from a signal handler of a library
                    shutil.rmtree(folder, ignore_errors=True)
                    raise


def _new_work_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = parent / f"{_WORK}{secrets.token_hex(6)}"
        folder.mkdir()
        try:
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:  # another process took the new folder, which had no lock yet, for one that was left over
            continue
        try:
            if try_lock(lock) is not False and (folder / _LOCK).exists():
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
                if try_lock(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def status(path: Path) -> os.stat_result | None:
    """What the system knows about a path; None if nothing is there.

    Raises:
        ModaliftError: the system cannot tell, e.g. because the name is too long.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModaliftError(_unreadable(path, error, "used")) from None
    except ValueError:  # a null character, or a letter that no file name can hold
        raise ModaliftError(f"{_shortened(path)}: cannot be the name of a file - correct it") from None


_ADVICE = {errno.ENAMETOOLONG: "give a shorter name", errno.ELOOP: "correct the link",
           errno.EACCES: "allow it with chmod, or give another path"}


def _unreadable(path: Path, error: OSError, how: str = "read") -> str:
    return f"{_shortened(path)}: cannot be {how} ({error.strerror}) - {_ADVICE.get(error.errno or 0, 'check the path')}"


def _shortened(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 300 else f"{text[:140]} ... {text[-140:]}"


def exists(path: Path) -> bool:
    """Whether there is anything; errors as :func:`status`."""
    return status(path) is not None


def is_file(path: Path) -> bool:
    """Whether a path is a regular file, not a folder, a pipe or a device; errors as :func:`status`."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; errors as :func:`status`."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def entries(folder: Path) -> list[Path]:
    """What a folder holds, except for hidden names, in no particular order; errors as :func:`status`."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise ModaliftError(_unreadable(folder, error)) from None


def expanded(path: str | Path) -> Path:
    """A path in which ``~`` stands for the home folder, if that is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def name_text(name: str) -> str:
    """The name of a file as text: bytes that are not UTF-8 are written as ``\\xff``, so that it can be stored and printed.

    Example:
        >>> print(name_text("caf\\udce9"))
        caf\\xe9
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_part(name: str, what: str) -> str:
    """Refuses a name that cannot be a part of the name of a file on every system, such as ``../x``; returns it.

    Raises:
        ModaliftError: with ``what`` has this name.
    """
    if not re.fullmatch(r"\w[\w-]{0,63}", name):
        raise ModaliftError(f"{what}: '{name[:80]}' is not a word of letters, digits, _ and - (64 at most) - rename it")
    return name


def read_bytes(path: Path, advice: str = "give a file", most: int = -1) -> bytes:
    """The first ``most`` bytes of a regular file, by default all.

    Raises:
        ModaliftError: the file is missing, cannot be read, or is no regular file (a pipe would be waited for without end).
    """
    found = status(path)
    if found is None:
        raise ModaliftError(f"{path} does not exist - {advice}")
    if not stat.S_ISREG(found.st_mode):
        raise ModaliftError(f"{path}: is {'a folder' if stat.S_ISDIR(found.st_mode) else 'not a regular file'} - {advice}")
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise ModaliftError(_unreadable(path, error)) from None


def read_text(path: Path, advice: str = "give a file", errors: str = "strict") -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark.

    Raises:
        ModaliftError: as :func:`read_bytes`, or the line that is not such text.
    """
    data = read_bytes(path, advice)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ModaliftError(f"{path}, line {line}: is not text in {encoding.removesuffix('-sig').upper()} - save the file as"
                            " UTF-8") from None


#: Byte-order marks -> encodings; the mark of UTF-32 starts with that of UTF-16.
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
          b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


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
    text = read_text(path, advice)
    try:
        held = parse_json(text)
    except ValueError as error:
        raise ModaliftError(f"{path}: is damaged ({error}) - remove it; {advice}") from None
    if not isinstance(held, what):
        raise ModaliftError(f"{path}: is damaged (not a JSON {what.__name__}) - remove it; {advice}")
    if not fits(held):
        raise ModaliftError(f"{path}: is damaged (it does not hold what it should) - remove it; {advice}")
    return held


def parse_json(text: str) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is not JSON, nested too deep, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def to_json(value: Any, **options: Any) -> str:
    """A value as JSON. Numbers that are not finite become ``null``: JSON has none, and no reader accepts them.

    Args:
        value: the value.
        options: of :func:`json.dumps`.

    Example:
        >>> to_json({"loss": float("nan"), "top1": [0.5, float("inf")]})
        '{"loss": null, "top1": [0.5, null]}'
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def write_text(path: Path, text: str) -> Path:
    """:func:`write_beside` for text, in UTF-8. Bytes of file names that are not UTF-8 are written as JSON's ``\\udc..``."""
    return write_beside(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


@contextmanager
def disk_errors(path: Path, kept: str = "the previous file is kept") -> Iterator[None]:
    """Converts the operating system's errors about ``path`` into a ModaliftError that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full: free some space and run the same command again" if full else error.strerror
        raise ModaliftError(f"{_shortened(path)}: cannot be written - {advice}; {kept}") from error
    except ValueError as error:
        if "embedded null" not in str(error) and not isinstance(error, UnicodeEncodeError):
            raise
        raise ModaliftError(f"{_shortened(path)}: cannot be the name of a file - correct it; {kept}") from error
