"""Parquet tables, one file or a folder of them, and data sets of LeRobot (versions 2 and 3), whose episodes are rollouts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dso_robotics.data.limits import allowed_bytes, refuse_oversized
from dso_robotics.data.rollout import listed
from dso_robotics.data.table import Table
from dso_robotics.data.tree import Leaf, tables
from dso_robotics.errors import DsoError
from dso_robotics.extras import require

if TYPE_CHECKING:
    import pyarrow as pa

_WIDEST = 256


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a data set of LeRobot."""
    return (folder / "meta" / "info.json").is_file()


def read_parquet(path: Path, wanted: Sequence[str], time: str | None) -> tuple[Table, ...]:
    """The table in a Parquet file, or in all those of a folder in the order of their names.

    Of a data set of LeRobot each episode is a table with the rollout `episode_N`; `time` is its column `timestamp`, unless
    it has one of its own. Columns of lists are `observation.state[0]`.

    Raises:
      MissingExtra: pyarrow is not installed.
      DsoError: a file is damaged, or the files of a folder have different columns.
    """
    require("parquet", f"{path}: is a Parquet table, and reading it")
    dataset = path.is_dir() and is_dataset(path)
    files = sorted((path / "data" if dataset else path).rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DsoError(f"{path}: has no Parquet file{' in its folder data' if dataset else ''}; check the path.")
    store = _Store(path, files)
    if not dataset:
        return tables(path, store.leaves(), wanted, time, store.others)
    if _version(path) < 2:
        raise DsoError(
            f"{path}: is a data set of LeRobot before version 2; convert it with LeRobot's own scripts first."
        )
    return _episodes(path, store, wanted, time)


def _version(path: Path) -> float:
    try:
        info = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
        return float(".".join(str(info["codebase_version"]).lstrip("v").split(".")[:2]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DsoError(
            f"{path}: meta/info.json is damaged or states no codebase_version ({error}); copy the data set again."
        ) from error


def _episodes(path: Path, store: "_Store", wanted: Sequence[str], time: str | None) -> tuple[Table, ...]:
    leaves = {leaf.name: leaf for leaf in store.leaves()}
    if "episode_index" not in leaves:
        raise DsoError(
            f"{path}: has no column 'episode_index', which says where an episode begins; copy the data set again."
        )
    if "time" not in leaves and "timestamp" in leaves:
        leaves["time"] = Leaf("time", leaves["timestamp"].shape, leaves["timestamp"].load)
    loaded: dict[str, Any] = {}

    def read(leaf: Leaf) -> np.ndarray:
        if leaf.name not in loaded:
            loaded[leaf.name] = leaf.load()
        return loaded[leaf.name]

    index = read(leaves["episode_index"])
    order = np.argsort(index, kind="stable")
    numbers, begins = np.unique(index[order], return_index=True)
    found = []
    for number, rows in zip(numbers.tolist(), np.split(order, begins[1:]), strict=True):
        parts = [Leaf(leaf.name, (len(rows), *leaf.shape[1:]), _rows(read, leaf, rows)) for leaf in leaves.values()]
        (table,) = tables(path, parts, wanted, time, store.others)
        found.append(Table(table.path, table.names, table._parse, f"episode_{int(number)}", refused=table.refused))
    return tuple(found)


def _rows(read: Callable[[Leaf], np.ndarray], leaf: Leaf, rows: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: read(leaf)[rows]


class _Store:
    """The columns of Parquet files that are one table. A column is read when it is asked for.

    others: names of the columns that hold no numbers, and why they are not read.
    """

    def __init__(self, path: Path, files: Sequence[Path]):
        self.path, self.files = path, files
        self.others: dict[str, str] = {}
        self._claimed = 0
        self._allowed = allowed_bytes(path)
        self._rows, self._schema = self._opened()

    def _opened(self) -> tuple[int, "pa.Schema"]:
        rows, schema = 0, None
        for file in self.files:
            found, here = _guarded(file, _head)
            rows += found
            if schema is not None and here.names != schema.names:
                raise DsoError(
                    f"{file}: has other columns than {self.files[0]}: {listed(tuple(here.names))}; convert them one by one."
                )
            schema = schema or here
        assert schema is not None
        return rows, schema

    def leaves(self) -> list[Leaf]:
        """The columns of numbers and dates; a column of lists of one length has the shape (T, k)."""
        found: list[Leaf] = []
        for entry in self._schema:
            self._add(found, entry.name, (entry.name,), entry.type)
        return found

    def _add(self, found: list[Leaf], name: str, keys: tuple[str, ...], kind: "pa.DataType") -> None:
        import pyarrow.types as types

        if types.is_struct(kind):
            for part in kind:
                self._add(found, f"{name}/{part.name}", (*keys, part.name), part.type)
        elif _numeric(kind):
            found.append(Leaf(name, (self._rows,), lambda: self._column(keys)))
        elif _listed(kind) and _numeric(kind.value_type):
            width = kind.list_size if types.is_fixed_size_list(kind) else self._width(keys)
            if width:
                found.append(Leaf(name, (self._rows, width), lambda: self._column(keys, width)))
            else:
                self.others[name] = "has lists that differ in length, or are empty, so it is no column"
        else:
            self.others[name] = f"has values of type {kind}, which are no numbers"

    def _width(self, keys: tuple[str, ...]) -> int:
        """The length of the first list of a column; 0 where it is missing."""
        return next((width for file in self.files for width in [_guarded(file, _first, keys)] if width), 0)

    def _column(self, keys: tuple[str, ...], width: int = 1) -> np.ndarray:
        self._claimed += 8 * self._rows * width
        if self._claimed > self._allowed:
            refuse_oversized(self._claimed, self.path, f"column {'/'.join(keys)!r}")
        return np.concatenate([_guarded(file, _values, keys, width) for file in self.files])


def _guarded(file: Path, function: Callable[..., Any], *given: Any) -> Any:
    import pyarrow as pa

    try:
        return function(file, *given)
    except DsoError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError) as error:
        reason = " ".join(ascii(str(error))[1:-1].split())[:200]
        raise DsoError(
            f"{file}: is damaged and cannot be read as Parquet ({reason}); copy or write it again."
        ) from error


def _head(file: Path) -> tuple[int, "pa.Schema"]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        return max(parquet.metadata.num_rows, 0), parquet.schema_arrow


def _first(file: Path, keys: tuple[str, ...]) -> int:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=64, columns=[".".join(keys)]):
            for value in _inner(batch.column(0), keys).to_pylist():
                if value:
                    return len(value) if len(value) <= _WIDEST else 0
    return 0


def _values(file: Path, keys: tuple[str, ...], width: int) -> np.ndarray:
    """The values of a column (T,) or (T, width), NaN where they are missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.types as types

    with pq.ParquetFile(file) as parquet:
        column = _inner(parquet.read(columns=[".".join(keys)]).column(0).combine_chunks(), keys)
        if parquet.metadata.num_rows != len(column):
            raise ValueError(f"{len(column)} rows instead of {parquet.metadata.num_rows}")
    if not _listed(column.type):
        array = column.cast(pa.int64()) if types.is_duration(column.type) else column
        return _plain(array)
    lengths = np.asarray(column.value_lengths().fill_null(0)) if not types.is_fixed_size_list(column.type) else None
    flat = _plain(column.flatten())
    if lengths is None:
        lengths = np.where(np.asarray(column.is_null()), 0, width)
    if not np.isin(lengths, (0, width)).all():
        raise DsoError(f"{file}: column {'/'.join(keys)!r} has lists that differ in length; map another column.")
    values = np.full((len(column), width), np.nan)
    values[lengths == width] = flat.reshape(-1, width)
    return values


def _plain(array: "pa.Array") -> np.ndarray:
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == object:  # booleans or integers with missing values
        return np.array([np.nan if value is None else float(value) for value in values.tolist()])
    return values


def _inner(array: Any, keys: tuple[str, ...]) -> Any:
    import pyarrow.compute as pc

    return pc.struct_field(array, list(keys[1:])) if len(keys) > 1 else array


def _numeric(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return plain or types.is_timestamp(kind) or types.is_duration(kind)


def _listed(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
