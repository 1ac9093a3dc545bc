"""How a text file writes a table: its encoding, the separator of its cells, and its decimal sign."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dso_robotics.data.cell import nanoseconds, number
from dso_robotics.errors import DsoError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b]")
_BLANK = " "
_SEPARATORS = (",", ";", "\t", "|", _BLANK)
_NAMED = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "blank": _BLANK, "space": _BLANK}
_SAMPLE = 200


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
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise DsoError(f"--encoding {self.encoding!r}: is not known; utf-16 or cp1252 are.") from error

    def settled(self, lines: Sequence[str]) -> "Dialect":
        """This dialect with the delimiter and the decimal sign that fit `lines` best."""
        if self.delimiter and self.decimal:
            return self
        # The end of a file is data; what stands at its beginning may be a preamble.
        sample = [line for line in lines[-_SAMPLE:] if line.strip()]
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


def decode(path: Path, encoding: str = "") -> str:
    """The text of a file; the encoding is found out unless given. Raises DsoError when it is no text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DsoError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    found = encoding or next((name for mark, name in _BOMS if content.startswith(mark)), "") or _wide(content)
    if found in ("utf-16", "utf-16-le", "utf-16-be"):
        content = content[: len(content) // 2 * 2]  # a torn file may end within a character
    text = ""
    if found:
        try:
            text = content.decode(found)
        except UnicodeError as error:
            raise DsoError(f"{path}: is not {found} text ({error}); give the right one with --encoding.") from error
    else:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            torn = error.start >= len(content) - 3 and error.start > 0
            text = content[: error.start].decode() if torn and error.reason == "unexpected end of data" else ""
            text = text or content.decode("cp1252", errors="replace")
    text = text.lstrip("\ufeff").rstrip("\0")
    if _CONTROL.search(text):
        raise DsoError(
            f"{path}: is no text file, nor one of the other kinds that can be read (NPZ, NPY, JSON, MAT, HDF5); export it as "
            "CSV, or name its encoding with --encoding."
        )
    return text


def _wide(content: bytes) -> str:
    """UTF-16 without a mark, as its zero bytes show; "" if it is not."""
    head = content[:2000]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < 0.3 * len(head) or min(even, odd) > 0.05 * len(head):
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


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
