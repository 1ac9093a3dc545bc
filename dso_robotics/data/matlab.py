"""Arrays that MATLAB saved, up to version 7; a file of version 7.3 is HDF5."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.limits import refuse_oversized
from dso_robotics.data.tree import Leaf
from dso_robotics.errors import DsoError

_DEEPEST = 16
_FAULTS = (OSError, ValueError, TypeError, EOFError, KeyError, IndexError, OverflowError, MemoryError, zlib.error)


def read_mat(path: Path) -> tuple[list[Leaf], dict[str, str]]:
    """The arrays of a MAT file, those of structs under `struct/field`, and the names of what is no array of numbers.

    Samples are the axis as long as most vectors of the file. Raises DsoError when the file is damaged.
    """
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        claims = 0
        for _, shape, _ in whosmat(path):
            elements = 8
            for size in shape:
                elements *= int(size)
            claims += elements
        refuse_oversized(claims, path, "the file")
        content = loadmat(path, squeeze_me=True, struct_as_record=True, chars_as_strings=True)
    except (*_FAULTS, MatReadError, NotImplementedError) as error:
        if isinstance(error, DsoError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DsoError(f"{path}: is damaged and cannot be read as a MAT file ({reason}); save it again.") from error
    others: dict[str, str] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, value in content.items():
        if not name.startswith("__"):
            arrays.update(_walk(value, name, others, 0))
    return [_leaf(name, array) for name, array in oriented(arrays).items()], others


def oriented(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with samples as the first axis: the length that most vectors of a group have."""
    lengths: dict[str, list[int]] = {}
    for name, array in arrays.items():
        if array.ndim == 1:
            lengths.setdefault(name.rpartition("/")[0], []).append(len(array))
    everywhere = [length for found in lengths.values() for length in found]
    turned = {}
    for name, array in arrays.items():
        near = lengths.get(name.rpartition("/")[0]) or everywhere
        samples = max(set(near), key=lambda n: (near.count(n), n)) if near else max(array.shape, default=0)
        axis = next((k for k, size in enumerate(array.shape) if size == samples), 0)
        turned[name] = np.moveaxis(array, axis, 0) if array.ndim > 1 else array
    return turned


def _walk(value: Any, name: str, others: dict[str, str], depth: int) -> Iterator[tuple[str, np.ndarray]]:
    array = np.asarray(value)
    if array.dtype.names and depth < _DEEPEST:
        fields = [field for field in array.dtype.names if field not in ("s0", "s1", "s2")]
        for index, entry in enumerate(array.reshape(-1)):
            # One struct, or an array of structs: the runs of an experiment.
            stem = name if array.ndim == 0 else f"{name}/{index + 1}"
            for field in fields:
                yield from _walk(entry[field], f"{stem}/{field}", others, depth + 1)
    elif array.dtype == object and depth < _DEEPEST:
        for index, entry in enumerate(array.reshape(-1)):
            if isinstance(entry, np.ndarray) and entry is not value:
                yield from _walk(entry, name if array.ndim == 0 else f"{name}/{index + 1}", others, depth + 1)
    elif array.dtype.kind in "fiub" and array.ndim >= 1 and max(array.shape, default=0) > 1:
        yield name, array
    else:
        others[name] = (
            "is no array of numbers; of a timeseries or table save the parts, such as t = ts.Time; x = ts.Data"
            if array.dtype.kind not in "fiubUS"
            else "is a single value or text, which is no column"
        )


def _leaf(name: str, array: np.ndarray) -> Leaf:
    return Leaf(name, array.shape, lambda: array)
