"""The numbers in a message of ROS, by the names that `dso convert` knows them by."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

_NAMES = ("name", "names", "joint_names")
# Longer arrays are images and scans.
_MOST, _MOST_MESSAGES, _DEEPEST = 256, 16, 8


def numbers(message: Any) -> Iterator[tuple[str, float]]:
    """Name and value of each number: `pose/position/x`, `data[0]`.

    Where a field `name` names the entries of arrays, they are called so: `position[elbow]`.
    Texts, and arrays of over 256 numbers, are left out.
    """
    yield from _walk(message, "", 0)


def stamp(message: Any) -> int | None:
    """The time of the header [ns]; None if there is no header, or if its time is 0, which means that it was not set."""
    header = getattr(message, "header", None)
    found = getattr(header, "stamp", None)
    seconds, rest = (getattr(found, key, None) for key in ("sec", "nanosec"))
    if not isinstance(seconds, int) or not isinstance(rest, int):
        return None
    return seconds * 10**9 + rest or None


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool | int | float | np.number | np.bool_):
        yield name, _float(value)
    elif isinstance(value, np.ndarray | list | tuple):
        yield from _array(value, name, (), depth)
    elif not isinstance(value, str | bytes | type(None)) and depth < _DEEPEST:
        fields = {key: part for key, part in vars(value).items() if not key.startswith("__")}
        labels = next((_labels(fields[key]) for key in _NAMES if key in fields), ())
        for key, part in fields.items():
            below = f"{name}/{key}" if name else key
            if isinstance(part, np.ndarray | list | tuple):
                yield from _array(part, below, labels, depth)
            else:
                yield from _walk(part, below, depth + 1)


def _array(values: Any, name: str, labels: tuple[str, ...], depth: int) -> Iterator[tuple[str, float]]:
    named = len(labels) == len(values)
    if isinstance(values, np.ndarray):
        if values.dtype.kind in "fiub" and values.ndim == 1 and len(values) <= _MOST:
            for i, value in enumerate(values.tolist()):
                yield f"{name}[{labels[i] if named else i}]", _float(value)
        return
    for i, value in enumerate(values[:_MOST_MESSAGES] if len(values) > _MOST else values):
        if len(values) > _MOST_MESSAGES and not isinstance(value, int | float):
            return
        yield from _walk(value, f"{name}[{labels[i] if named else i}]", depth + 1)


def _labels(value: Any) -> tuple[str, ...]:
    texts = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    return tuple(value) if texts and len(set(value)) == len(value) else ()


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
