"""The rows of a table of text, in little memory: cells of as many columns are kept column by column."""

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dso_robotics.data.rollout import Array

_PIECE = 4096
# A longer cell is text; an array would give every cell of its piece so much room.
_LONGEST = 64


class Row(NamedTuple):
    """line: the number of its line. cells: the texts of its cells."""

    line: int
    cells: list[str]


@dataclass(frozen=True, eq=False)
class Piece:
    """Some rows.

    line: (n,) the numbers of their lines.
    cells: an array of texts (n,) for each column, if all rows have as many cells; else the cells of each row.
    """

    line: np.ndarray
    cells: list[np.ndarray] | list[list[str]]

    @property
    def even(self) -> bool:
        """Whether the cells are in columns."""
        return not self.cells or isinstance(self.cells[0], np.ndarray)

    def __len__(self) -> int:
        return len(self.line)

    def row(self, i: int) -> Row:
        """Row i."""
        if self.even:
            return Row(int(self.line[i]), [_text(column[i]) for column in self.cells])
        return Row(int(self.line[i]), list(self.cells[i]))

    def rows(self) -> Iterator[Row]:
        """All rows."""
        if self.even:
            columns = [self.texts(c) for c in range(len(self.cells))]
            cells: Iterable = zip(*columns, strict=True) if columns else ([] for _ in self.line)
        else:
            cells = self.cells
        return (Row(int(line), list(found)) for line, found in zip(self.line, cells, strict=True))

    def texts(self, c: int) -> list[str]:
        """Column c of rows of equal width."""
        column: np.ndarray = self.cells[c]  # type: ignore[assignment]
        return [_text(cell) for cell in column.tolist()]

    def numbers(self, c: int) -> Array | None:
        """Column c of rows of equal width as numbers, None if a cell is something else than `1.5` or `2e-3`."""
        column: np.ndarray = self.cells[c]  # type: ignore[assignment]
        if b"_" in column.tobytes():  # NumPy takes 1_000 for a number, as Python's source does
            return None
        try:
            return column.astype(np.float64)
        except ValueError:
            return None

    def same(self, c: int, text: str) -> np.ndarray:
        """Which rows (n,) of equal width have `text` in column c."""
        column: np.ndarray = self.cells[c]  # type: ignore[assignment]
        if column.dtype.kind == "U":
            return column == text
        return column == text.encode() if text.isascii() else np.zeros(len(column), bool)

    def part(self, rows: slice | np.ndarray) -> "Piece":
        """Some of the rows."""
        if self.even:
            return Piece(self.line[rows], [column[rows] for column in self.cells])  # type: ignore[call-overload]
        kept = np.arange(len(self))[rows]
        return Piece(self.line[rows], [self.cells[i] for i in kept])  # type: ignore[misc]


class Rows:
    """Rows, in pieces."""

    def __init__(self, pieces: Iterable[Piece]):
        self.pieces = [piece for piece in pieces if len(piece)]
        self._ends = np.cumsum([len(piece) for piece in self.pieces]).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, i: int) -> Row:
        """Row i; the last is row -1."""
        i = range(len(self))[i]
        k = bisect.bisect_right(self._ends, i)
        return self.pieces[k].row(i - self._ends[k] + len(self.pieces[k]))

    def __iter__(self) -> Iterator[Row]:
        return (row for piece in self.pieces for row in piece.rows())

    def part(self, start: int, stop: int | None = None) -> "Rows":
        """Rows from `start` on, before `stop`."""
        stop, kept = len(self) if stop is None else stop, []
        for piece, end in zip(self.pieces, self._ends, strict=True):
            begin = end - len(piece)
            low, high = max(start - begin, 0), min(stop - begin, len(piece))
            if low < high:
                kept.append(piece if high - low == len(piece) else piece.part(slice(low, high)))
        return Rows(kept)

    def widths(self) -> Counter[int]:
        """How many rows have how many cells."""
        found: Counter[int] = Counter()
        for piece in self.pieces:
            if piece.even:
                found[len(piece.cells)] += len(piece)
            else:
                found.update(map(len, piece.cells))
        return found

    def of_width(self, width: int) -> "Rows":
        """The rows with so many cells."""
        kept = []
        for piece in self.pieces:
            if not piece.even:
                kept.append(gathered([row for row in piece.rows() if len(row.cells) == width]))
            elif len(piece.cells) == width:
                kept.append(piece)
        return Rows(kept)


def gathered(rows: Sequence[Row]) -> Piece:
    """A piece of rows."""
    line, cells = np.array([row.line for row in rows], np.int64), [row.cells for row in rows]
    if len({len(row) for row in cells}) != 1:
        return Piece(line, cells)
    columns = list(zip(*cells, strict=True))
    if any(len(cell) > _LONGEST for column in columns for cell in column):
        return Piece(line, cells)
    return Piece(line, [_array(column) for column in columns])


def rows_of(rows: Iterable[tuple[int, list[str]]]) -> Rows:
    """Rows from the numbers of their lines and their cells."""
    pieces, now = [], list[Row]()
    for line, cells in rows:
        now.append(Row(line, cells))
        if len(now) == _PIECE:
            pieces.append(gathered(now))
            now = []
    return Rows([*pieces, gathered(now)])


def _array(cells: Sequence[str]) -> np.ndarray:
    try:
        return np.array(cells, "S")  # a byte a character
    except UnicodeEncodeError:
        return np.array(cells, "U")


def _text(cell) -> str:
    return cell.decode() if isinstance(cell, bytes) else str(cell)
