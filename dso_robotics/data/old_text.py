"""A program that `archive` runs: print every text of variable length in an HDF5 file, as JSON.

It has a limit of memory and time, because HDF5 may loop or crash on a damaged file. It imports nothing of this package.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

_MEMORY, _MAX_DEPTH = 4 << 30, 32
_MAX_TEXTS, _MAX_CHARACTERS = 2_000_000, 1 << 28


def _limit(seconds: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _is_old(dtype: np.dtype) -> bool:
    found = h5py.check_string_dtype(dtype)
    return found is not None and found.length is None


def _fits(shape: tuple[int, ...] | None) -> bool:
    total = math.prod(map(int, shape or ()))
    if total > _MAX_TEXTS:
        raise ValueError(f"{total:,} texts in one place")
    return shape is not None


def _items(group: h5py.Group, depth: int) -> Iterator[h5py.Group | h5py.Dataset]:
    yield group
    if depth > _MAX_DEPTH:
        raise ValueError("groups nested too deeply")
    for name in group:
        item = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(item, h5py.Group):
            yield from _items(item, depth + 1)
        elif isinstance(item, h5py.Dataset):
            yield item


def _text(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_text(entry) for entry in value]
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _found(file: h5py.File) -> Iterator[tuple[str, str | None, Any]]:
    for item in _items(file, 0):
        for key in item.attrs:
            handle = item.attrs.get_id(key)
            if _is_old(handle.dtype) and _fits(handle.shape):
                yield str(item.name), key, _text(item.attrs[key])
        here = isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual
        if here and _is_old(item.dtype) and _fits(item.shape):
            yield str(item.name), None, _text(item[()])


def main(path: str, seconds: str) -> int:
    """Print the texts of the file at `path`, within so many seconds of computing; returns the exit status."""
    _limit(int(seconds))
    texts, characters = [], 0
    try:
        with h5py.File(path, "r") as file:
            for entry in _found(file):
                texts.append(entry)
                characters += sum(map(len, entry[2])) if isinstance(entry[2], list) else len(entry[2])
                if len(texts) > _MAX_TEXTS or characters > _MAX_CHARACTERS:
                    raise ValueError("more text than any log or run has")
    except Exception as error:
        print(" ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
        return 1
    json.dump(texts, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
