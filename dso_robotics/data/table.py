"""Named columns of numbers, whichever kind of file they come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np

from dso_robotics.data.rollout import Array, listed, nearest
from dso_robotics.errors import DsoError


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a file. A column is parsed only when it is requested, so unused columns may contain anything.

    path: the file.
    names: the name of each column; they may repeat, and may be empty.
    rollout: the group of the file that this table is; "" if the file is one table.
    units: the unit that the file states for each column, "" where it states none.
    notes: sentences about what was left out or found out.
    refused: names that look like columns but are not read, and why.
    """

    path: str
    names: tuple[str, ...]
    _parse: Callable[[int], tuple[int, Array]]
    rollout: str = ""
    units: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            found.setdefault(name, []).append(i)
        return found

    @cached_property
    def _loose(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            found.setdefault(name.replace("/", "."), []).append(i)
        return found

    def find(self, name: str) -> int | None:
        """The index of a column; None if there is none, or if several have this name.

        `name` is the name of one column; NAME#2 for the second of that name; #3, or 3 if no column is called so, for the third
        column.
        """
        places = self._places.get(name, []) if name else []
        if len(places) == 1:
            return places[0]
        if len(places) > 1:
            first, *rest = (self._parse_quietly(i) for i in places)
            same = first is not None and all(r is not None and np.array_equal(first, r, equal_nan=True) for r in rest)
            return places[0] if same else None
        if name.endswith("[0]") and name.removesuffix("[0]") in self._places:
            return self.find(name.removesuffix("[0]"))
        base, sign, place = name.rpartition("#")
        if sign and base and place.isdigit():
            places = self._places.get(base, [])
            return places[int(place) - 1] if 0 < int(place) <= len(places) else None
        digits = place if sign and not base else name
        if digits.isdigit() and digits.isascii() and 0 < int(digits[:9]) <= len(self.names):
            return int(digits) - 1
        loose = self._loose.get(name.replace("/", "."), [])
        return loose[0] if len(loose) == 1 else None

    def column(self, name: str) -> Array:
        """Values (T,) of one column, NaN where a cell is empty. Raises DsoError listing the columns when there is none."""
        origin, values = self.exact(name)
        return values + float(origin) if origin else values

    def exact(self, name: str) -> tuple[int, Array]:
        """The values of one column as `origin + values`; the origin holds what float64 would round away."""
        index = self.find(name)
        if index is None:
            raise DsoError(f"{self.path}: {self.missing(name)}")
        return self._parse(index)

    def unit(self, name: str) -> str:
        """The unit that the file states for a column, "" if none."""
        index = self.find(name)
        return self.units[index] if index is not None and self.units else ""

    def missing(self, name: str) -> str:
        """The sentence that says why there is no column `name`, and what there is."""
        places = [i + 1 for i in self._places.get(name, [])] if name else []
        if len(places) > 1:
            numbers = ", ".join(str(place) for place in places[:-1]) + f" and {places[-1]}"
            return (
                f"the name {name!r} stands above {len(places)} columns that differ ({numbers}); say which with {name}#1, "
                f"{name}#2, ..., or with #{places[0]}, #{places[1]}, the number of the column."
            )
        if name in self.refused:
            return f"{name!r} {self.refused[name]}."
        shown = tuple(dict.fromkeys(other for other in self.names if other))
        parts = tuple(other for other in shown if other.startswith(f"{name}["))
        if parts:
            return f"{name!r} has several columns; say which: {listed(parts)}."
        return f"there is no column {name!r}.{nearest(name, shown)} The file's columns: {listed(shown)}."

    def _parse_quietly(self, index: int) -> Array | None:
        try:
            origin, values = self._parse(index)
        except DsoError:
            return None
        return values + float(origin)
