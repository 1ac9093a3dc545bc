"""Tables in text files of any usual dialect: where the names stand, where the numbers begin, and what stands around them."""

import csv
import re
from array import array
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dso_robotics.data.cell import EXACT, column, number, undecided
from dso_robotics.data.conversion import unit_cell, unit_in_name, unit_like
from dso_robotics.data.dialect import SAMPLE, Dialect, number_like
from dso_robotics.data.rollout import Array
from dso_robotics.data.table import Table
from dso_robotics.data.text_file import TextFile, text_file
from dso_robotics.data.text_rows import Piece, Row, Rows, gathered, rows_of
from dso_robotics.errors import DsoError, shortened

_COMMENT = re.compile(r"^\s*(?:#+|%+|//+)")
_PREAMBLE = 80
_RULE = re.compile(r"[-=+*_]{2,}")


def read_text(path: Path, dialect: Dialect) -> Table:
    """The table in a text file. Raises DsoError naming the file, the line and the option that decides what is not certain."""
    file = text_file(path, dialect.encoding)
    comments, last, tail = list[tuple[int, str]](), "", deque[str](maxlen=SAMPLE)
    for i, line in enumerate(file.lines(), 1):
        last = line
        if _COMMENT.match(line):
            comments.append((i, _COMMENT.sub("", line, count=1).removesuffix("\n")))
        elif line.strip():
            tail.append(line.removesuffix("\n"))
    settled = dialect.settled(tail)
    open_ended = bool(last.strip()) and not last.endswith("\n")
    return _Reader(path, settled, dialect.decimal == "", comments, _rows(file, settled), open_ended).table()


def _rows(file: TextFile, dialect: Dialect) -> Rows:
    """The rows of a file, without comments and empty lines."""

    def plain() -> Iterator[tuple[int, str]]:
        lines = enumerate(file.lines(), 1)
        return ((i, line) for i, line in lines if line.strip() and not _COMMENT.match(line))

    def quoted() -> Iterator[tuple[int, list[str]]]:
        places = array("q")

        def source() -> Iterator[str]:
            for i, line in plain():
                places.append(i)
                yield line.removesuffix("\n") + "\n"

        reader, before = csv.reader(source(), delimiter=dialect.delimiter, skipinitialspace=True), 0
        for cells in reader:  # a quoted cell may go on over several lines
            yield places[before], [" ".join(cell.split()) for cell in cells]
            before = reader.line_num

    if dialect.delimiter != " ":
        try:
            return rows_of(quoted())
        except csv.Error:
            pass
    return rows_of((i, dialect.cells(line.removesuffix("\n"))) for i, line in plain())


class _Reader:
    def __init__(self, path: Path, dialect: Dialect, guessed: bool, comments, rows: Rows, open_ended: bool):
        self.path, self.dialect, self.guessed = path, dialect, guessed
        self.comments: list[tuple[int, str]] = comments
        self.rows, self.open_ended, self.notes = rows, open_ended, list[str]()
        if not rows:
            self.refuse("has no rows of data; a line names the columns and the rows follow")
        tail = rows.part(len(rows) // 2) if len(rows) > _PREAMBLE else rows
        widths = tail.widths()
        self.width = max(widths, key=lambda width: (widths[width], width))
        # Names, units and a preamble stand in the first half.
        lower = rows.part(len(rows) // 2).of_width(self.width)
        usual = lower or tail.of_width(self.width)
        self.numeric = [c for c in range(self.width) if self.mostly_numbers(usual, c)]
        filled = [c for c in range(self.width) if any(_given(piece, c) for piece in usual.pieces)]
        # Columns that hold anything: a separator at the end of every line makes one that does not.
        self.filled = max(filled, default=-1) + 1

    def refuse(self, text: str):
        raise DsoError(f"{self.path}: {text}.")

    def mostly_numbers(self, rows: Rows, c: int) -> bool:
        given = count = 0
        for piece in rows.pieces:
            numbers = self.numbers(piece, c)
            if numbers is not None:
                found = int(np.count_nonzero(~np.isnan(numbers)))
                given, count = given + found, count + found
                continue
            for cell in _texts(piece, c):
                value = number(cell, self.dialect.decimal)
                given += value is None or value == value
                count += number_like(cell, self.dialect.decimal)
        return count > 0 and count >= 0.6 * given

    def numbers(self, piece: Piece, c: int) -> Array | None:
        return piece.numbers(c) if piece.even and self.dialect.decimal == "." else None

    def table(self) -> Table:
        if not self.numeric:
            self.refuse(
                "has no rows of data: no column of it holds numbers; export it as a table of numbers, or say how it is "
                "written with --delimiter and --decimal"
            )
        begin = self.begin()
        names, units = self.header(begin)
        rows = Rows(_without(piece, names) for piece in self.rows.part(begin).pieces)
        if len(rows) < len(self.rows) - begin:
            self.notes.append(
                f"the line of names occurs {len(self.rows) - begin - len(rows)} more time(s) and is left out"
            )
        rows = self.whole(names, rows)
        units = tuple(unit or unit_in_name(name) for name, unit in zip(names, units, strict=True))
        notes = (*self.notes, *self.described())
        return Table(str(self.path), names, lambda c: self.parse(names, rows, c), units=units, notes=notes)

    def begin(self) -> int:
        """The first row of numbers."""
        least = self.dialect.header_line or 0
        for i, row in enumerate(self.rows):
            if row.line <= least or len(row.cells) <= max(self.numeric):
                continue
            cells = [row.cells[c] for c in self.numeric]
            count = sum(number_like(cell, self.dialect.decimal) for cell in cells)
            known = all(self.readable(cell) for cell in cells)
            if known and count and not (i == 0 and self.index_names(row.cells)):
                return i
        self.refuse(f"has no rows of data below line {least}; give the number of the line of names with --header-line")
        raise AssertionError

    def readable(self, cell: str) -> bool:
        return number(cell, self.dialect.decimal) is not None or number_like(cell, self.dialect.decimal)

    def index_names(self, cells: list[str]) -> bool:
        """Whether a row is `,0,1,2`, which pandas writes above an index and unnamed columns."""
        return len(cells) > 1 and not cells[0] and cells[1:] == [str(k) for k in range(len(cells) - 1)]

    def header(self, begin: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names and units of the columns."""
        if not self.dialect.header:
            count = max(self.filled, 1)
            return tuple(str(k + 1) for k in range(count)), ("",) * count
        if self.dialect.header_line:
            return self.header_at(self.dialect.header_line, begin)
        above = [
            row for row in self.rows.part(0, begin) if not all(_RULE.fullmatch(cell) or not cell for cell in row.cells)
        ]
        if above and self.first_names(above):
            return self.trimmed(above[-1].cells), ("",) * len(self.trimmed(above[-1].cells))
        if above and not self.names_like(above[-1]) and self.comment_header(begin) is None:
            self.refuse_mixed(above[-1])
        if above and self.names_like(above[-1]):
            last = above[-1].cells
            if len(above) > 1 and self.names_like(above[-2]) and all(unit_like(cell) for cell in last):
                names = self.trimmed(above[-2].cells)
                return names, self.padded([unit_cell(cell) for cell in last], len(names))
            names = self.trimmed(last)
            return names, ("",) * len(names)
        found = self.comment_header(begin)
        if found is not None:
            return found
        line = self.rows.row(begin).line
        if above:
            self.refuse_count(above[-1], self.rows.row(begin))
        self.refuse(
            f"no line names the columns: numbers begin in line {line}. Give --no-header and call the columns 1, 2, 3, ..., or "
            "give the number of the line of names with --header-line, or add a line such as time,torque,angle"
        )
        raise AssertionError

    def header_at(self, line: int, begin: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = [row.cells for row in self.rows if row.line == line]
        found += [self.split(body) for number, body in self.comments if number == line]
        if not found or not any(found[0]):
            self.refuse(f"--header-line {line}: there are no names in that line")
        names = self.trimmed(found[0])
        between = [row.cells for row in self.rows.part(0, begin) if row.line > line]
        if between and len(between[0]) >= self.filled and all(unit_like(cell) for cell in between[0]):
            return names, self.padded([unit_cell(cell) for cell in between[0]], len(names))
        return names, ("",) * len(names)

    def names_like(self, row: Row) -> bool:
        """Whether a row above the numbers may name the columns."""
        if len(row.cells) < self.filled or not any(row.cells):
            return False
        if self.index_names(row.cells):
            return True
        numbers = [cell for cell in row.cells if number_like(cell, self.dialect.decimal)]
        words = [cell for cell in row.cells if cell and cell not in numbers]
        return 2 * len(numbers) < len(row.cells) and not (numbers and any(re.match(r"[-+.\d]", cell) for cell in words))

    def first_names(self, above: list[Row]) -> bool:
        """Whether the only row above the numbers names some columns by numbers: `time,1,2`."""
        words = [cell for cell in above[-1].cells if cell and not number_like(cell, self.dialect.decimal)]
        lettered = bool(words) and not any(re.match(r"[-+.\d]", cell) for cell in words)
        return len(above) == 1 and lettered and len(above[-1].cells) >= self.filled

    def refuse_count(self, names: Row, row: Row) -> None:
        """Refuse a row of names that is shorter than the rows of numbers."""
        words = [cell for cell in names.cells if cell and not number_like(cell, self.dialect.decimal)]
        if not 1 < len(names.cells) < self.filled or len(words) < len(names.cells):
            return
        told = f"line {names.line} has {len(names.cells)} names but line {row.line} has {self.filled} cells"
        if self.dialect.delimiter == "," and all(cell.lstrip("+-").isdigit() for cell in row.cells if cell):
            self.refuse(
                f"{told}: commas are both the decimal sign and the separator; export it with semicolons, or with decimal points"
            )
        self.refuse(f"{told}; name every column in that line, or give --no-header and call the columns 1, 2, 3, ...")

    def refuse_mixed(self, row: Row) -> None:
        """Refuse a row above the numbers that holds numbers itself, because one of its cells is damaged."""
        cells = [row.cells[c] for c in self.numeric if c < len(row.cells)]
        numbers = sum(number_like(cell, self.dialect.decimal) for cell in cells)
        if 2 * numbers >= len(cells) > 0 and len(row.cells) >= self.filled:
            wrong = next((c for c in self.numeric if not self.readable(row.cells[c])), self.numeric[0])
            earlier = [r for r in self.rows if r.line < row.line and self.names_like(r)]
            name = earlier[-1].cells[wrong] if earlier else str(wrong + 1)
            self.refuse_cell(row, name, wrong)

    def comment_header(self, begin: int) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Names in a comment above the numbers, as numpy.savetxt writes them."""
        first = self.rows.row(begin).line
        rows = [Row(line, self.split(body)) for line, body in self.comments if line < first]
        fits = [row for row in rows if len(row.cells) in (self.filled, self.width) and self.names_like(row)]
        if not fits:
            return None
        if len(fits) > 1 and all(unit_like(cell) for cell in fits[-1].cells):
            names = self.trimmed(fits[-2].cells)
            return names, self.padded([unit_cell(cell) for cell in fits[-1].cells], len(names))
        names = self.trimmed(fits[-1].cells)
        return names, ("",) * len(names)

    def split(self, body: str) -> list[str]:
        """The cells of a comment, with whichever separator makes as many as there are columns."""
        for delimiter in sorted((self.dialect.delimiter, ",", ";", "\t", "|", " "), key=" ".__eq__):
            cells = Dialect(delimiter=delimiter).cells(body.strip())
            if len(cells) in (self.filled, self.width):
                return cells
        return self.dialect.cells(body)

    def trimmed(self, cells: list[str]) -> tuple[str, ...]:
        names = [cell.strip() for cell in cells]
        while len(names) > self.filled and not names[-1]:
            names.pop()
        return tuple(names)

    @staticmethod
    def padded(cells: list[str], count: int) -> tuple[str, ...]:
        return tuple([*cells[:count], *[""] * (count - len(cells))])

    def whole(self, names: tuple[str, ...], rows: Rows) -> Rows:
        """The rows that have a cell for each name; the last may be torn off."""
        least = min(self.width, len(names))
        if len(rows) > 1 and (len(rows.row(-1).cells) < least or self.torn(rows.row(-1))):
            self.notes.append(f"the last line ({rows.row(-1).line}) is torn off and is left out")
            rows = rows.part(0, len(rows) - 1)
        return Rows(self.fitted(names, piece, least) for piece in rows.pieces)

    def fitted(self, names: tuple[str, ...], piece: Piece, least: int) -> Piece:
        """Rows with as many cells as there are names."""
        columns = range(len(names), len(piece.cells))
        if piece.even and len(piece.cells) >= len(names) and not any(_given(piece, c) for c in columns):
            return Piece(piece.line, piece.cells[: len(names)])
        kept = []
        for row in piece.rows():
            cells = row.cells
            if any(cells[len(names) :]) or len(cells) < least:
                self.refuse(
                    f"line {row.line} has {len(cells)} cells but there are {len(names)} names of columns; repair the line, or "
                    "say how the file is written with --delimiter, --header-line or --no-header"
                )
            kept.append(Row(row.line, [*cells[: len(names)], *[""] * (len(names) - len(cells))]))
        return gathered(kept)

    def torn(self, row: Row) -> bool:
        """Whether the last line ends without a line end, inside a number."""
        last = row.cells[-1] if row.cells else ""
        cut = last in ("-", "+") or not self.readable(last)
        return self.open_ended and len(row.cells) - 1 in self.numeric and cut

    def described(self) -> tuple[str, ...]:
        """What was found out about the way the file is written, where it is not the usual one."""
        words = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
        if self.dialect.decimal == ",":
            return (
                f"cells are separated by {words.get(self.dialect.delimiter, 'commas')}, the decimal sign is a comma",
            )
        return ()

    def parse(self, names: tuple[str, ...], rows: Rows, c: int) -> tuple[int, Array]:
        parts = [self.numbers(piece, c) for piece in rows.pieces]
        whole = [part for part in parts if part is not None]
        if len(whole) == len(parts):
            values = np.concatenate(whole) if whole else np.zeros(0)
            if np.abs(values[np.isfinite(values)]).max(initial=0.0) < EXACT:
                return 0, values
        cells = [cell for piece in rows.pieces for cell in _texts(piece, c)]
        if self.guessed and any("," in cell for cell in cells):
            doubtful = undecided(cell for row in rows for cell in row.cells)
            if doubtful:
                self.refuse(
                    f"column {names[c]!r}: the comma in {doubtful!r} may be a decimal sign or separate thousands; say which "
                    "with --decimal ',' or --decimal '.'"
                )
        found = column(cells, self.dialect.decimal)
        if isinstance(found, int):
            self.refuse_cell(rows.row(found), names[c], c)
            raise AssertionError
        return found

    def refuse_cell(self, row: Row, name: str, c: int) -> None:
        other = "." if self.dialect.decimal == "," else ","
        mixed = number(row.cells[c], other) is not None
        hint = (
            f" where the decimal sign is {self.dialect.decimal!r} (--decimal {other} takes the other sign)"
            if mixed
            else ""
        )
        self.refuse(
            f"line {row.line}, column {name!r}: {shortened(row.cells[c])!r} is not a number{hint}; repair the cell, or "
            "leave it empty if nothing was measured"
        )


def _texts(piece: Piece, c: int) -> list[str]:
    """Column c of rows that have one."""
    return piece.texts(c) if piece.even else [row.cells[c] for row in piece.rows()]


def _given(piece: Piece, c: int) -> bool:
    """Whether any cell of column c holds anything."""
    return not piece.same(c, "").all() if piece.even else any(_texts(piece, c))


def _without(piece: Piece, names: tuple[str, ...]) -> Piece:
    """The rows that are not the line of names again."""
    if not piece.even:
        return piece.part(np.array([row.cells[: len(names)] != list(names) for row in piece.rows()], bool))
    if len(piece.cells) < len(names):
        return piece
    again = np.ones(len(piece), bool)
    for c, name in enumerate(names):
        again &= piece.same(c, name)
    return piece.part(~again) if again.any() else piece
