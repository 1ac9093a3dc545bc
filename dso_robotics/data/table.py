"""Named columns of numbers from a CSV file or an NPZ archive."""

import csv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dso_robotics.data.limits import refuse_oversized
from dso_robotics.data.rollout import Array, listed, nearest
from dso_robotics.errors import DsoError

_MISSING = {"", "nan", "na", "n/a", "null", "none"}
_DELIMITERS = ",;\t"


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a file. A column is parsed only when it is requested, so unused columns may contain anything."""

    path: str
    names: tuple[str, ...]
    _parse: Callable[[str], Array]

    def column(self, name: str) -> Array:
        """Values (T,) of one column, NaN where a cell is empty. Raises DsoError listing the columns when there is none."""
        if name not in self.names:
            raise DsoError(
                f"{self.path}: has no column {name!r}.{nearest(name, self.names)} Its columns: {listed(self.names)}."
            )
        return self._parse(name)


def read_table(path: str | Path) -> Table:
    """Open a CSV file (comma, semicolon or tab; the first line names the columns) or an NPZ archive of arrays.

    A two-dimensional array `x` (T, k) of an archive becomes the columns `x[0]` ... `x[k-1]`. Raises DsoError for a file that
    is missing, empty or damaged, or whose rows differ in length. Parsing a column raises it for a cell that is not a number.
    """
    path = Path(path)
    if not path.exists():
        raise DsoError(f"{path}: there is no such file; check the path.")
    if path.is_dir():
        raise DsoError(f"{path}: is a folder; give the CSV or NPZ files in it.")
    return _npz(path) if path.suffix.lower() == ".npz" else _csv(path)


def _csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            head = stream.readline()
            delimiter = max(_DELIMITERS, key=head.count)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True)
            numbered = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DsoError(
            f"{path}: cannot be read as a CSV text file ({error}); export it as UTF-8 CSV or NPZ."
        ) from error
    if len(numbered) < 2:
        raise DsoError(f"{path}: has no rows of data; the first line names the columns and the rows follow.")
    names = tuple(name.strip().lstrip("#").strip() for name in numbered.pop(0)[1])
    if all(_number(name) is not None for name in names):
        raise DsoError(
            f"{path}: the first line contains numbers, not column names; add a line such as `time,torque,angle`."
        )
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise DsoError(f"{path}: the column name {repeated[0]!r} occurs more than once in the first line; rename one.")
    for line, row in numbered:
        if len(row) != len(names):
            raise DsoError(
                f"{path}: line {line} has {len(row)} cells but the first line names {len(names)} columns; repair the "
                "line."
            )

    def parse(name: str) -> Array:
        column = names.index(name)
        values = np.empty(len(numbered))
        for i, (line, row) in enumerate(numbered):
            value = _number(row[column])
            if value is None:
                hint = " (a decimal comma? use points)" if _number(row[column].replace(",", ".")) is not None else ""
                raise DsoError(
                    f"{path}: line {line}, column {name!r}: {row[column]!r} is not a number{hint}; repair the cell, or "
                    "leave it empty if nothing was measured."
                )
            values[i] = value
        return values

    return Table(str(path), names, parse)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return np.nan if cell.strip().lower() in _MISSING else None


def _npz(path: Path) -> Table:
    try:
        with zipfile.ZipFile(path) as archive:
            # numpy allocates the size in a member's header, so the headers are checked first.
            refuse_oversized(sum(_claim(archive, info) for info in archive.infolist()), path, "the archive")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        cure = "save plain number arrays" if "pickle" in str(error) else "save it again with numpy.savez"
        raise DsoError(f"{path}: cannot be read as an NPZ archive ({error}); {cure}.") from error
    columns: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
            continue  # text, scalars such as a time step, and images are not columns
        if array.ndim == 1:
            columns[name] = array.astype(np.float64)
        else:
            columns.update({f"{name}[{k}]": array[:, k].astype(np.float64) for k in range(array.shape[1])})
    if not columns:
        shapes = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items()) or "nothing"
        raise DsoError(f"{path}: has no array of numbers with shape (samples,) or (samples, k); it contains {shapes}.")
    return Table(str(path), tuple(columns), columns.__getitem__)


def _claim(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    elements = 1
    for size in shape:
        elements *= int(size)
    return elements * max(8, dtype.itemsize)
