"""Tables in text files of any usual dialect: where the names stand, where the numbers begin, and what stands around them."""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dso_robotics.data.cell import column, number, undecided
from dso_robotics.data.conversion import unit_cell, unit_in_name, unit_like
from dso_robotics.data.dialect import Dialect, decode, number_like
from dso_robotics.data.rollout import Array
from dso_robotics.data.table import Table
from dso_robotics.errors import DsoError, shortened

_COMMENT = re.compile(r"^\s*(?:#+|%+|//+)")
_PREAMBLE = 80
_RULE = re.compile(r"[-=+*_]{2,}")


@dataclass(frozen=True)
class _Row:
    line: int
    cells: list[str]


def read_text(path: Path, dialect: Dialect) -> Table:
    """The table in a text file. Raises DsoError naming the file, the line and the option that decides what is not certain."""
    text = decode(path, dialect.encoding)
    lines = re.split(r"\r\n|\n|\r", text)
    comments = [(i, _COMMENT.sub("", line, count=1)) for i, line in enumerate(lines, 1) if _COMMENT.match(line)]
    plain = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not _COMMENT.match(line)]
    settled = dialect.settled([line for _, line in plain])
    return _Reader(path, settled, dialect.decimal == "", comments, _rows(plain, settled), lines).table()


def _rows(plain: list[tuple[int, str]], dialect: Dialect) -> list[_Row]:
    if dialect.delimiter == " ":
        return [_Row(i, dialect.cells(line)) for i, line in plain]
    source = iter([line + "\n" for _, line in plain])
    reader = csv.reader(source, delimiter=dialect.delimiter, skipinitialspace=True)
    rows, before = [], 0
    try:
        for cells in reader:  # a quoted cell may go on over several lines
            rows.append(_Row(plain[before][0], [" ".join(cell.split()) for cell in cells]))
            before = reader.line_num
    except csv.Error:
        return [_Row(i, dialect.cells(line)) for i, line in plain]
    return rows


class _Reader:
    def __init__(self, path: Path, dialect: Dialect, guessed: bool, comments, rows: list[_Row], lines: list[str]):
        self.path, self.dialect, self.guessed = path, dialect, guessed
        self.comments: list[tuple[int, str]] = comments
        self.rows, self.lines, self.notes = rows, lines, list[str]()
        if not rows:
            self.refuse("has no rows of data; a line names the columns and the rows follow")
        tail = rows[len(rows) // 2 :] if len(rows) > _PREAMBLE else rows
        widths = Counter(len(row.cells) for row in tail)
        self.width = max(widths, key=lambda width: (widths[width], width))
        # Names, units and a preamble stand in the first half.
        lower = [row.cells for row in rows[len(rows) // 2 :] if len(row.cells) == self.width]
        usual = lower or [row.cells for row in tail if len(row.cells) == self.width]
        self.numeric = [c for c in range(self.width) if self.mostly_numbers([cells[c] for cells in usual])]
        filled = [c for c in range(self.width) if any(cells[c] for cells in usual)]
        # Columns that hold anything: a separator at the end of every line makes one that does not.
        self.filled = max(filled, default=-1) + 1

    def refuse(self, text: str):
        raise DsoError(f"{self.path}: {text}.")

    def mostly_numbers(self, cells: list[str]) -> bool:
        given = [cell for cell in cells if number(cell, self.dialect.decimal) == number(cell, self.dialect.decimal)]
        count = sum(number_like(cell, self.dialect.decimal) for cell in given)
        return count > 0 and count >= 0.6 * len(given)

    def table(self) -> Table:
        if not self.numeric:
            self.refuse(
                "has no rows of data: no column of it holds numbers; export it as a table of numbers, or say how it is "
                "written with --delimiter and --decimal"
            )
        begin = self.begin()
        names, units = self.header(begin)
        rows = [row for row in self.rows[begin:] if row.cells[: len(names)] != list(names)]
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
        above = [row for row in self.rows[:begin] if not all(_RULE.fullmatch(cell) or not cell for cell in row.cells)]
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
        line = self.rows[begin].line
        if above:
            self.refuse_count(above[-1], self.rows[begin])
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
        between = [row.cells for row in self.rows[:begin] if row.line > line]
        if between and len(between[0]) >= self.filled and all(unit_like(cell) for cell in between[0]):
            return names, self.padded([unit_cell(cell) for cell in between[0]], len(names))
        return names, ("",) * len(names)

    def names_like(self, row: _Row) -> bool:
        """Whether a row above the numbers may name the columns."""
        if len(row.cells) < self.filled or not any(row.cells):
            return False
        if self.index_names(row.cells):
            return True
        numbers = [cell for cell in row.cells if number_like(cell, self.dialect.decimal)]
        words = [cell for cell in row.cells if cell and cell not in numbers]
        return 2 * len(numbers) < len(row.cells) and not (numbers and any(re.match(r"[-+.\d]", cell) for cell in words))

    def first_names(self, above: list[_Row]) -> bool:
        """Whether the only row above the numbers names some columns by numbers: `time,1,2`."""
        words = [cell for cell in above[-1].cells if cell and not number_like(cell, self.dialect.decimal)]
        lettered = bool(words) and not any(re.match(r"[-+.\d]", cell) for cell in words)
        return len(above) == 1 and lettered and len(above[-1].cells) >= self.filled

    def refuse_count(self, names: _Row, row: _Row) -> None:
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

    def refuse_mixed(self, row: _Row) -> None:
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
        first = self.rows[begin].line
        rows = [_Row(line, self.split(body)) for line, body in self.comments if line < first]
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

    def whole(self, names: tuple[str, ...], rows: list[_Row]) -> list[_Row]:
        """The rows that have a cell for each name; the last may be torn off."""
        least, kept = min(self.width, len(names)), []
        for row in rows:
            cells = row.cells
            excess = [cell for cell in cells[len(names) :] if cell]
            last = row is rows[-1]
            if (len(cells) < least or self.torn(row)) and last and len(rows) > 1:
                self.notes.append(f"the last line ({row.line}) is torn off and is left out")
                continue
            if excess or len(cells) < least:
                self.refuse(
                    f"line {row.line} has {len(cells)} cells but there are {len(names)} names of columns; repair the line, or "
                    "say how the file is written with --delimiter, --header-line or --no-header"
                )
            kept.append(_Row(row.line, [*cells[: len(names)], *[""] * (len(names) - len(cells))]))
        return kept

    def torn(self, row: _Row) -> bool:
        """Whether the last line ends without a line end, inside a number."""
        last = row.cells[-1] if row.cells else ""
        cut = last in ("-", "+") or not self.readable(last)
        return bool(self.lines[-1].strip()) and len(row.cells) - 1 in self.numeric and cut

    def described(self) -> tuple[str, ...]:
        """What was found out about the way the file is written, where it is not the usual one."""
        words = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
        if self.dialect.decimal == ",":
            return (
                f"cells are separated by {words.get(self.dialect.delimiter, 'commas')}, the decimal sign is a comma",
            )
        return ()

    def parse(self, names: tuple[str, ...], rows: list[_Row], c: int) -> tuple[int, Array]:
        cells = [row.cells[c] for row in rows]
        if self.guessed and any("," in cell for cell in cells):
            doubtful = undecided([cell for row in rows for cell in row.cells])
            if doubtful:
                self.refuse(
                    f"column {names[c]!r}: the comma in {doubtful!r} may be a decimal sign or separate thousands; say which "
                    "with --decimal ',' or --decimal '.'"
                )
        found = column(cells, self.dialect.decimal)
        if isinstance(found, int):
            self.refuse_cell(rows[found], names[c], c)
            raise AssertionError
        return found

    def refuse_cell(self, row: _Row, name: str, c: int) -> None:
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
