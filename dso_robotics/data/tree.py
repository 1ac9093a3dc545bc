"""Files of named arrays in groups: which groups are rollouts follows from the columns that are asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.cell import column
from dso_robotics.data.mapping import known
from dso_robotics.data.rollout import Array, listed
from dso_robotics.data.table import Table
from dso_robotics.errors import DsoError

_MOST, _MOST_OF_MATRICES = 256, 64
_EXACT = 2**53


@dataclass(frozen=True, eq=False)
class Leaf:
    """An array of a file. name: with its groups, `data/demo_0/actions`. shape: (T, ...). load: reads it."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Any]

    def columns(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and index of each column: `x`, `x[0]` and `x[1]`, or `x[0,1]`; none if there are too many to be one reading."""
        rest = self.shape[1:]
        if prod(rest) == 1:
            return [(self.name or "1", (0,) * len(rest))]
        if prod(rest) > (_MOST if len(rest) == 1 else _MOST_OF_MATRICES):
            return []
        places = list(product(*(range(size) for size in rest)))
        if not self.name:
            return [(",".join(str(i + 1) for i in place), place) for place in places]
        return [(f"{self.name}[{','.join(map(str, place))}]", place) for place in places]


def tables(
    path: Path, leaves: Sequence[Leaf], wanted: Sequence[str], time: str | None, refused: Mapping[str, str]
) -> tuple[Table, ...]:
    """The tables of a file, one for each rollout.

    wanted: mappings of columns. The whole file is one table if it has all their columns under their full names. Otherwise each
      group that has all of them is a rollout, at the smallest depth at which there is such a group.
    time: mapping of the time, None if there is none.
    refused: names of arrays that are not read, and why.
    Raises DsoError when the file has no array of numbers.
    """
    usable = [leaf for leaf in leaves if leaf.columns()]
    many = {leaf.name: f"has shape {leaf.shape}, which is no column" for leaf in leaves if not leaf.columns()}
    refused = {**refused, **many}
    if not usable:
        found = listed(tuple(f"{name} ({why})" for name, why in refused.items()))
        raise DsoError(f"{path}: has no array of numbers with shape (samples,) or (samples, k); it contains {found}.")
    loaded: dict[str, Any] = {}
    depths = range(max(leaf.name.count("/") for leaf in usable) + 1)
    views = [_view(path, usable, depth, refused, loaded) for depth in depths]
    for asked in ([*wanted, time] if time else [*wanted], [*wanted]):
        if not asked:
            continue
        for view in views:
            if chosen := [table for table in view if all(known(text, table) for text in asked)]:
                return tuple(chosen) if len(chosen) > 1 else (_alone(chosen[0]),)
    closest = max((table for view in views for table in view), key=lambda table: sum(known(t, table) for t in wanted))
    return (_alone(closest),)


def exact(values: Any) -> tuple[int, Array]:
    """An array of numbers, dates or texts (T,) as `origin + values`; dates are in seconds since the first of them.

    Raises ValueError when a text is not a number.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        stamps = array.astype("datetime64[ns]")
        first = stamps[~np.isnat(stamps)][:1]
        return 0, np.where(
            np.isnat(stamps), np.nan, (stamps - (first[0] if len(first) else 0)).astype(np.float64) * 1e-9
        )
    if array.dtype.kind == "m":
        return 0, array.astype("timedelta64[ns]").astype(np.float64) * 1e-9
    if array.dtype.kind in "iu":
        if len(array) and max(abs(int(array.min())), abs(int(array.max()))) >= _EXACT:
            origin = int(array[0])
            return origin, np.array([float(int(value) - origin) for value in array])
        return 0, array.astype(np.float64)
    if array.dtype.kind in "fb":
        return 0, array.astype(np.float64)
    cells = ["" if value is None else str(value) for value in array.tolist()]
    found = column(cells)
    if isinstance(found, int):
        raise ValueError(f"sample {found} is {cells[found]!r}, not a number")
    return found


def _view(
    path: Path, leaves: Sequence[Leaf], depth: int, refused: Mapping[str, str], loaded: dict[str, Any]
) -> list[Table]:
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        parts = leaf.name.split("/")
        if len(parts) > depth:
            groups.setdefault("/".join(parts[:depth]), []).append(leaf)
    outside: dict[str, dict[str, str]] = {}
    for name, why in refused.items():
        parts = name.split("/")
        if len(parts) > depth:
            outside.setdefault("/".join(parts[:depth]), {})[name] = why
    return [_table(path, group, members, outside.get(group, {}), loaded) for group, members in groups.items()]


def _table(path: Path, group: str, leaves: Sequence[Leaf], refused: Mapping[str, str], loaded: dict[str, Any]) -> Table:
    cut = len(group) + 1 if group else 0
    places = [(name[cut:], leaf, index) for leaf in leaves for name, index in leaf.columns()]

    def parse(number: int) -> tuple[int, Array]:
        _, leaf, index = places[number]
        if leaf.name not in loaded:
            loaded[leaf.name] = leaf.load()
        try:
            return exact(np.asarray(loaded[leaf.name])[(slice(None), *index)])
        except ValueError as error:
            raise DsoError(f"{path}: column {leaf.name!r}: {error}; map a column of numbers.") from error

    own = {name[cut:]: why for name, why in refused.items()}
    return Table(str(path), tuple(name for name, _, _ in places), parse, rollout=group, refused=own)


def _alone(table: Table) -> Table:
    return Table(table.path, table.names, table._parse, refused=table.refused)
