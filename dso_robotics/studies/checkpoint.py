"""Convert a state of the descent loop to named arrays, and back. A run file stores them, and a resumed run starts from them.

A state consists of dataclasses (including equinox modules), tuples, dictionaries, arrays and numbers. Each array or number
is stored under its path, such as "critic.layers.0.weight". Functions and settings are not stored. They come from the initial
state of a new run of the same study. JAX is imported only if the state holds JAX arrays.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError, shortened

_AGAIN = "run the study again without --resume"
# The path of a state that is a single array.
_BARE = "value"


def flatten(state: Any) -> dict[str, Any]:
    """Every array and number of a state by its path."""
    return dict(_leaves(state, ""))


def restore(template: Any, stored: Mapping[str, Any], path: Path) -> Any:
    """`template` with the arrays and numbers of `stored`, a result of `flatten`.

    Raises:
      DsoError: one is missing, or has another shape or type; the message names the file `path`.
    """

    def fill(leaf: Any, place: str) -> Any:
        try:
            return _like(leaf, stored[place or _BARE])
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise DsoError(f"{path}: its '{place}' does not fit the study; {_AGAIN}.") from error

    return _filled(template, "", fill)


def columns(records: Sequence[Any]) -> dict[str, Any]:
    """Records of one class as a table: every field by name, one row per record."""
    if not records:
        return {}
    names = [field.name for field in dataclasses.fields(records[0])]
    table: dict[str, Any] = {}
    for name in names:
        values = [getattr(record, name) for record in records]
        table[name] = values if isinstance(values[0], str) else np.array([np.asarray(value) for value in values])
    return table


def records(kind: type, table: Mapping[str, Any], path: Path) -> list[Any]:
    """The records of `table`, a result of `columns`.

    Raises:
      DsoError: a column is missing or has another length.
    """
    with Reading(path):
        rows = zip(*(table[field.name] for field in dataclasses.fields(kind)), strict=True) if table else ()
        return [
            kind(*(value.item() if getattr(value, "shape", None) == () else value for value in row)) for row in rows
        ]


def joined(tables: Sequence[Mapping[str, Any]], path: Path) -> dict[str, np.ndarray]:
    """The rows of tables with the same columns, some of them from a file, one table after the other.

    Raises:
      DsoError: they have other columns, or columns of other shapes.
    """
    with Reading(path):
        if any(table.keys() != tables[0].keys() for table in tables):
            raise ValueError("two tables of steps have other columns")
        return {name: np.concatenate([np.asarray(table[name]) for table in tables]) for name in tables[0]}


class Reading:
    """A context in which stored values of the file `path` are read: what goes wrong becomes a DsoError that names the file."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LookupError | TypeError | ValueError | ArithmeticError | AttributeError):
            raise damaged(self._path, error) from error


def count(spent: Mapping[str, Any], name: str, path: Path) -> int:
    """A whole number that was stored with a search, such as simulated steps; 0 if there is none.

    Raises:
      DsoError: it is no whole number.
    """
    found = spent.get(name, 0)
    try:
        if int(found) == found >= 0:
            return int(found)
    except (TypeError, ValueError, ArithmeticError):
        pass
    raise damaged(path, f"{name} is {found}")


def rows(spent: Mapping[str, Any], name: str, width: int, path: Path) -> list[tuple[float, ...]]:
    """The rows of a table of numbers that was stored with a search; none if there is no such table.

    Raises:
      DsoError: it is no table of so many columns.
    """
    try:
        table = np.asarray(spent.get(name, np.zeros((0, width))), float)
        if table.ndim == 2 and table.shape[1] == width:
            return [tuple(row) for row in table.tolist()]
    except (TypeError, ValueError):
        pass
    raise damaged(path, f"{name} is no table of {width} columns")


def damaged(path: Path, reason: object) -> DsoError:
    """What is said of a run file that holds something else than a run writes."""
    return DsoError(f"{path}: the run file is damaged ({shortened(str(reason))}); {_AGAIN}.")


def _parts(value: Any) -> dict[str, Any] | None:
    """The components of a part of a state, by name; None for a leaf."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in dataclasses.fields(value) if not (f.metadata.get("cache") or f.metadata.get("static")))
        return {f.name: getattr(value, f.name) for f in kept if hasattr(value, f.name)}
    if isinstance(value, Mapping):
        return {str(name): part for name, part in value.items()}
    if isinstance(value, tuple | list):
        return dict(zip(getattr(value, "_fields", map(str, range(len(value)))), value, strict=True))
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _is_key(value: Any) -> bool:
    """Whether this is a JAX random key. It holds numbers but is not a numeric array."""
    return str(getattr(value, "dtype", "")).startswith("key<")


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    parts = _parts(value)
    if parts is not None:
        for name, part in parts.items():
            yield from _leaves(part, f"{place}.{name}" if place else name)
    elif _is_key(value):
        from jax import random

        yield place or _BARE, np.asarray(random.key_data(value))
    elif _is_number(value):
        yield place or _BARE, np.asarray(_whole(value))


def _whole(value: Any) -> Any:
    """An array whose rows may lie on devices of other processes."""
    if getattr(value, "is_fully_addressable", True):
        return value
    from dso_robotics.core.devices import read

    return read(value)


def _filled(value: Any, place: str, fill: Callable[[Any, str], Any]) -> Any:
    parts = _parts(value)
    if parts is None:
        return fill(value, place) if _is_number(value) or _is_key(value) else value
    new = {name: _filled(part, f"{place}.{name}" if place else name, fill) for name, part in parts.items()}
    if isinstance(value, Mapping):
        return new
    if isinstance(value, tuple | list):
        return type(value)(*new.values()) if hasattr(value, "_fields") else type(value)(new.values())
    # Create the object without its constructor, as `copy` does: the constructor may not accept the fields.
    made = object.__new__(type(value))
    for field in dataclasses.fields(value):
        if hasattr(value, field.name):
            cached = None if field.metadata.get("cache") else getattr(value, field.name)
            object.__setattr__(made, field.name, new.get(field.name, cached))
    return made


def _like(leaf: Any, found: Any) -> Any:
    """A stored array or number, converted to the type of `leaf`."""
    found = np.asarray(found)
    if _is_key(leaf):
        from jax import numpy, random

        key = random.wrap_key_data(numpy.asarray(found))
        if key.shape != leaf.shape:
            raise ValueError("another shape")
        return key
    # The numbers of an array may lie with other processes; its type is known here.
    kind = leaf.dtype.kind if hasattr(leaf, "dtype") else np.asarray(leaf).dtype.kind
    if found.shape != np.shape(leaf) or found.dtype.kind != kind:
        raise ValueError("another shape or type")
    if isinstance(leaf, bool | int | float):
        return type(leaf)(found.item())
    if isinstance(leaf, np.ndarray | np.generic):
        return found.astype(leaf.dtype)[()]
    from jax import numpy

    return numpy.asarray(found, leaf.dtype)
