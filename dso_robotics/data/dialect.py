"""How a text file writes a table: its encoding, the separator of its cells, and its decimal sign."""

import contextlib
import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dso_robotics.data.cell import nanoseconds, number
from dso_robotics.errors import DsoError

_BLANK = " "
_SEPARATORS = (",", ";", "\t", "|", _BLANK)
_NAMED = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "blank": _BLANK, "space": _BLANK}
SAMPLE = 200
"""So many lines at the end of a file tell its dialect."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What the user says about a text file. Whatever is empty is found out from the file.

    header: whether a line names the columns; without one the columns are called 1, 2, 3, ...
    header_line: the number of that line, counting from 1.
    delimiter: `,`, `;`, `|`, `tab`, `blank` or another character between the cells.
    decimal: `.` or `,`.
    encoding: a name that Python knows, such as `utf-16` or `cp1252`.

    Raises DsoError for any other value.
    """

    header: bool = True
    header_line: int | None = None
    delimiter: str = ""
    decimal: str = ""
    encoding: str = ""

    def __post_init__(self):
        object.__setattr__(self, "delimiter", _NAMED.get(self.delimiter.lower(), self.delimiter))
        if len(self.delimiter) > 1 or self.delimiter in ('"', "\n", "\r"):
            raise DsoError(f"--delimiter {self.delimiter!r}: give one character, or tab or blank.")
        if self.decimal not in ("", ".", ","):
            raise DsoError(f"--decimal {self.decimal!r}: the decimal sign is . or , (a comma in quotes).")
        if self.header_line is not None and self.header_line < 1:
            raise DsoError(f"--header-line {self.header_line}: lines count from 1.")
        if self.encoding:
            try:
                with contextlib.suppress(UnicodeError):
                    b"a".decode(self.encoding)
            except LookupError as error:
                raise DsoError(f"--encoding {self.encoding!r}: is not known; utf-16 or cp1252 are.") from error

    def settled(self, lines: Iterable[str]) -> "Dialect":
        """This dialect with the delimiter and the decimal sign that fit `lines` best."""
        if self.delimiter and self.decimal:
            return self
        # The end of a file is data; what stands at its beginning may be a preamble.
        sample = [line for line in list(lines)[-SAMPLE:] if line.strip()]
        sample = sample[len(sample) // 2 :] if len(sample) > 4 else sample
        best, score = (self.delimiter or ",", self.decimal or "."), -1.0
        for decimal in (self.decimal,) if self.decimal else (".", ","):
            for delimiter in (self.delimiter,) if self.delimiter else _SEPARATORS:
                if (found := _score(sample, delimiter, decimal)) > score + 1e-9:
                    best, score = (delimiter, decimal), found
        return Dialect(
            header=self.header,
            header_line=self.header_line,
            delimiter=best[0],
            decimal=best[1],
            encoding=self.encoding,
        )

    def cells(self, line: str) -> list[str]:
        """The cells of one line, without blanks around them."""
        try:
            if self.delimiter == _BLANK:
                return next(csv.reader([line.replace("\t", " ").strip()], delimiter=" ", skipinitialspace=True), [])
            reader = csv.reader([line], delimiter=self.delimiter, skipinitialspace=True)
            return [cell.strip() for cell in next(reader, [])]
        except csv.Error:
            return [cell.strip() for cell in line.split(self.delimiter)]


def number_like(cell: str, decimal: str) -> bool:
    """Whether a cell holds a number, a date or a time of day."""
    value = number(cell, decimal)
    return value == value if value is not None else nanoseconds(cell) is not None


def _score(lines: Sequence[str], delimiter: str, decimal: str) -> float:
    """How many numbers a line of the usual width has, less the more of its cells are something else."""
    trial = Dialect(delimiter=delimiter, decimal=decimal)
    rows = [trial.cells(line) for line in lines]
    if not rows:
        return 0.0
    width, often = Counter(len(row) for row in rows).most_common(1)[0]
    usual = [row for row in rows if len(row) == width]
    numbers = sum(number_like(cell, decimal) for row in usual for cell in row) / len(usual)
    good = sum(number(cell, decimal) is not None or number_like(cell, decimal) for row in usual for cell in row)
    return numbers * (good / len(usual) / width) ** 2 * often / len(rows)
