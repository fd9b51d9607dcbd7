"""The cells of text tables: one place reads their lines, and turns a cell into text, a number or a path."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalift import values
from modalift.errors import ModaliftError
from modalift.files import exists, read_text

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
#: What bytes become that are not UTF-8 (PEP 383); they may stand in names of files only.
_NO_TEXT = re.compile("[\udc80-\udcff]")
_LIMIT = threading.Lock()


class Line(dict[str, str]):
    """The cells of one line by column, without white space around them.

    Attributes:
        where: the file and the number of the line, for messages.
        written: the cells as they were written.
    """

    def __init__(self, where: str, columns: Sequence[str], written: Sequence[str]) -> None:
        super().__init__(zip(columns, (cell.strip() for cell in written), strict=True))
        self.where = where
        self.written = dict(zip(columns, written, strict=True))

    def numbers(self, column: str, key: str, whole: bool = False) -> tuple[float, ...]:
        """The numbers of a cell, separated by spaces; ``key`` is what they are for.

        Raises:
            ModaliftError: names the line, the column and the reason.
        """
        return numbers(self[column].split(), f"{self.where}, column '{column}': {key}", whole)

    def path(self, column: str, root: Path) -> Path:
        """The path in a cell, relative to a root; spaces around it count only if there is such a file."""
        path, written = self[column], self.written[column]
        return Path(written if written != path and not exists(root / path) and exists(root / written) else path)


def numbers(cells: Sequence[Any], where: str, whole: bool = False) -> tuple[float, ...]:
    """Numbers from cells, or from a list that already holds numbers; ``whole``: those must be whole.

    Raises:
        ModaliftError: with the reason why a cell is none.
    """
    read: Callable[[str], float] = values.whole if whole else values.real
    try:
        return tuple(read(cell if isinstance(cell, str) else repr(cell)) for cell in cells)
    except ValueError as reason:
        shown = " ".join(map(str, cells))
        raise ModaliftError(f"{where} needs numbers, not '{shown[:80]}' (it {reason})") from None


@dataclass(frozen=True)
class TextTable:
    """A text table with a header: its columns, and its lines with cells for each."""

    path: Path
    columns: list[str]
    lines: list[Line]

    def check_text(self, paths: Collection[str]) -> None:
        """Refuses a line that is not UTF-8 in another cell than a path, which may be any bytes."""
        for line in self.lines:
            for column, cell in line.items():
                if column not in paths and _NO_TEXT.search(cell):
                    raise ModaliftError(f"{line.where}, column '{column}': is not UTF-8 text - save the file as UTF-8")


def read_table(path: Path) -> TextTable:
    """Reads a table whose cells are separated by commas, semicolons or tabs, in UTF-8, or UTF-16 with a byte-order mark.

    Cells may be quoted and of any length, lines may end in any way, and empty lines are left out. A column without a name
    (the index that pandas writes) is left out.

    Raises:
        ModaliftError: names the file, and the line that is wrong.
    """
    text = read_text(path, "set data.root, or the option `manifest`", errors="surrogateescape")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ModaliftError(f"{path}, line {line}: holds a null character - save the file as UTF-8")
    head = next((line for line in text.splitlines() if line.strip()), "")
    # Where only carriage returns end lines, they become newlines; elsewhere they may be in names.
    lines_of = io.StringIO(text, newline="" if "\n" in text else None)
    table = csv.reader(lines_of, delimiter=max(",;\t", key=head.count), strict=True)
    columns: list[str] = []
    lines = []
    with _cells_of_any_length(len(text)):
        start = 1
        try:
            for cells in table:
                where, start = f"{path}, line {start}", table.line_num + 1
                if not any(cell.strip() for cell in cells):
                    continue
                if not columns:
                    columns = [cell.strip() for cell in cells]
                    _check_header(path, columns)
                    continue
                while len(cells) > len(columns) and not cells[-1].strip():
                    cells.pop()
                if len(cells) != len(columns):
                    raise ModaliftError(f"{where}: {len(cells)} cells under {len(columns)} columns - correct the line")
                lines.append(Line(where, *_named(columns, cells)))
        except csv.Error as error:
            raise ModaliftError(f"{path}, line {start}: {error} - correct the quotes of the line") from None
    if not lines:
        raise ModaliftError(f"{path} lists no clip - it needs a header line and one line per clip")
    return TextTable(path, [column for column in columns if column], lines)


def _check_header(path: Path, columns: Sequence[str]) -> None:
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise ModaliftError(f"{path} has two columns '{column}' - rename one")
        if column:  # a column without a name is left out
            seen.add(column)
        if _NO_TEXT.search(column):
            raise ModaliftError(f"{path}, line 1: a name of a column is not UTF-8 text - save the file as UTF-8")


def _named(columns: Sequence[str], cells: Sequence[str]) -> tuple[list[str], list[str]]:
    pairs = [(column, cell) for column, cell in zip(columns, cells, strict=True) if column]
    return [column for column, _ in pairs], [cell for _, cell in pairs]


@contextmanager
def _cells_of_any_length(most: int) -> Iterator[None]:
    """Lifts the limit of the csv module (131072 letters), which is one for the whole process."""
    with _LIMIT:
        before = csv.field_size_limit()
        csv.field_size_limit(min(max(before, most + 1), 2**31 - 1))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def value(cell: str) -> str | float:
    """A cell of a column of any kind: a number, if it is written as one with plain digits, else text.

    Example:
        >>> value("2.5"), value("1_2"), value("nan"), value("1e999")
        (2.5, '1_2', 'nan', '1e999')
    """
    if not _NUMBER.fullmatch(cell):
        return cell
    try:
        return values.real(cell)
    except ValueError:
        return cell
