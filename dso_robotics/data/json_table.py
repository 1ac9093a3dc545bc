"""Tables in JSON: an object of arrays, an array of objects, either below other keys, or one object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.text_file import text_file
from dso_robotics.data.tree import Leaf
from dso_robotics.errors import DsoError

# The longest list in a record that is a vector, not a recording of its own.
_VECTOR = 64
_DEEPEST = 32


def read_json(path: Path, encoding: str = "") -> tuple[list[Leaf], list[str]]:
    """The arrays of a JSON file or of JSON lines, and notes. Raises DsoError naming the line that is no JSON."""
    text = text_file(path, encoding).read()
    notes: list[str] = []
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        whole = isinstance(error, json.JSONDecodeError) and _lines(lines, notes)
        if not whole:
            raise DsoError(
                f"{path}: is damaged or torn off and cannot be read as JSON ({error}); record it again, or cut it where it is "
                "whole."
            ) from error
        content = whole
    try:
        return list(_walk(content, "", 0)), notes
    except (OverflowError, RecursionError) as error:
        raise DsoError(f"{path}: holds numbers or nesting beyond what can be read ({error}).") from error


def _lines(lines: list[str], notes: list[str]) -> list[Any]:
    """The values of JSON lines; empty if a line other than the last is none."""
    values = []
    for number, line in enumerate(lines):
        try:
            values.append(json.loads(line))
        except (json.JSONDecodeError, RecursionError):
            if number < len(lines) - 1 or number < 2:
                return []
            notes.append("the last line is torn off and is left out")
    return values


def _walk(value: Any, name: str, depth: int) -> Iterator[Leaf]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, _below(name, str(key)), depth + 1)
    elif isinstance(value, list) and value:
        if all(isinstance(part, dict) for part in value):
            records = [_flat(part, 0) for part in value]
            if any(_is_recording(part, len(records)) for record in records for part in record.values()):
                for i, part in enumerate(value):
                    yield from _walk(part, _below(name, str(i)), depth + 1)
                return
            for key in dict.fromkeys(key for record in records for key in record):
                yield from _leaf(_below(name, key), [record.get(key) for record in records])
        else:
            yield from _leaf(name, value)


def _below(name: str, key: str) -> str:
    return f"{name}/{key}" if name else key


def _flat(record: dict[str, Any], depth: int) -> dict[str, Any]:
    """The values of a record, those of records in it under `outer/inner`."""
    found = {}
    for key, value in record.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            found |= {_below(str(key), inner): part for inner, part in _flat(value, depth + 1).items()}
        else:
            found[str(key)] = value
    return found


def _is_recording(value: Any, samples: int) -> bool:
    """Whether a value of a record is a recording of its own: records in records, or more values than there are records."""
    if not isinstance(value, list) or not value:
        return False
    return isinstance(value[0], dict) or len(value) > max(_VECTOR, samples) or (len(value) > samples and samples < 10)


def _leaf(name: str, values: list[Any]) -> Iterator[Leaf]:
    """A column, or several if each sample is a list of the same length."""
    if len(values) < 2:
        return
    lists = [value for value in values if isinstance(value, list)]
    if not lists:
        if not any(isinstance(value, dict) for value in values):
            yield Leaf(name, (len(values),), lambda: _column(values))
        return
    width = len(lists[0])
    plain = all(not isinstance(part, list | dict) for value in lists for part in value)
    if plain and width and all(len(value) == width for value in lists):
        rows = [value if isinstance(value, list) else [None] * width for value in values]

        def load() -> np.ndarray:
            table = np.empty((len(rows), width), dtype=object)
            for i, row in enumerate(rows):
                table[i] = row
            return table

        yield Leaf(name, (len(values), width), load)


def _column(values: list[Any]) -> np.ndarray:
    if all(type(value) is float or (type(value) is int and abs(value) < 2**53) for value in values):
        return np.array(values, dtype=np.float64)
    return np.array([None if value is None else str(value) for value in values], dtype=object)
