"""HDF5 files of other tools. Only what is asked for is read, and its declared size is checked first."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dso_robotics.data.archive import Archive, open_archive
from dso_robotics.data.hdf5 import SCHEMA
from dso_robotics.data.limits import refuse_oversized
from dso_robotics.data.matlab import oriented
from dso_robotics.data.tree import Leaf
from dso_robotics.errors import DsoError

_DEEPEST = 12
_MOST = 100_000
_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, MemoryError, OverflowError)


def is_log(path: Path) -> bool:
    """Whether an HDF5 file calls itself a log of this toolkit, or is so damaged that only its reader can say why."""
    try:
        with open_archive(path, "log file", "copy or record it again") as archive:
            return archive.has_attribute(archive.file, "schema") and archive.label(archive.file, "schema") == SCHEMA
    except DsoError:
        return True


def read_hdf5(path: Path) -> tuple[list[Leaf], dict[str, str]]:
    """The arrays of numbers of an HDF5 file, and the names of what is not read with the reason.

    Links to other places, data outside the file, and texts are not read. Arrays of MATLAB 7.3 are turned as MATLAB shows them.
    Raises DsoError when the file is damaged.
    """
    leaves: list[Leaf] = []
    others: dict[str, str] = {}
    try:
        with h5py.File(path, "r") as file:
            matlab = file.userblock_size >= 512 and path.open("rb").read(6) == b"MATLAB"
            _walk(file, "", path, leaves, others, set(), 0)
            if matlab:
                leaves = _matlab(path, [leaf for leaf in leaves if not leaf.name.startswith("#")])
    except DsoError:
        raise
    except _FAULTS as error:
        raise _damaged(path, error) from error
    return leaves, others


def _walk(
    group: h5py.Group, name: str, path: Path, leaves: list[Leaf], others: dict[str, str], seen: set[Any], depth: int
) -> None:
    for key in map(str, group):
        below = f"{name}/{key}" if name else key
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            others[below] = "is a link to another place, which is not followed; copy the data to where they are needed"
            continue
        member = group[key]
        address = h5py.h5o.get_info(member.id).addr
        if isinstance(member, h5py.Group):
            if address in seen or depth > _DEEPEST:
                continue
            if len(leaves) > _MOST:
                raise DsoError(f"{path}: has more than {_MOST:,} arrays; cut it into several files.")
            _walk(member, below, path, leaves, others, seen | {address}, depth + 1)
        elif isinstance(member, h5py.Dataset):
            _add(member, below, path, leaves, others)


def _add(dataset: h5py.Dataset, name: str, path: Path, leaves: list[Leaf], others: dict[str, str]) -> None:
    if dataset.external or dataset.is_virtual:
        others[name] = "is stored outside this file, which is not read; store the numbers themselves"
        return
    kind = dataset.dtype
    if dataset.shape is None or not dataset.shape or dataset.shape[0] < 1:
        return
    if kind.names and len(dataset.shape) == 1:
        for field in kind.names:
            if kind[field].kind in "fiub" and not kind[field].shape:
                leaves.append(Leaf(f"{name}/{field}", dataset.shape, _loader(path, name, field)))
        return
    if kind.kind not in "fiub":
        others[name] = f"has values of type {kind}, which are no numbers"
        return
    leaves.append(Leaf(name, tuple(int(size) for size in dataset.shape), _loader(path, name, None)))


def _loader(path: Path, name: str, field: str | None) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        try:
            with h5py.File(path, "r") as file:
                dataset = file[name]
                assert isinstance(dataset, h5py.Dataset)
                Archive(path, file, "copy or record it again").claim(dataset)
                claimed = max(math.prod(map(int, dataset.shape)), math.prod(map(int, dataset.chunks or ())))
                refuse_oversized(claimed * max(8, dataset.dtype.itemsize), path, f"the array {name!r}")
                return dataset[()] if field is None else dataset.fields(field)[()]
        except DsoError:
            raise
        except _FAULTS as error:
            raise _damaged(path, error) from error

    return load


def _matlab(path: Path, leaves: list[Leaf]) -> list[Leaf]:
    """MATLAB stores arrays column by column, so HDF5 shows their axes in the opposite order."""
    refuse_oversized(sum(8 * math.prod(map(int, leaf.shape)) for leaf in leaves), path, "the file")
    arrays = {leaf.name: np.squeeze(leaf.load().T) for leaf in leaves}
    turned = oriented({name: array for name, array in arrays.items() if array.ndim})
    return [Leaf(name, array.shape, lambda array=array: array) for name, array in turned.items()]


def _damaged(path: Path, error: Exception) -> DsoError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    fault = "is truncated" if "truncated" in reason else "is damaged"
    return DsoError(f"{path}: {fault} and cannot be read as HDF5 ({reason}); copy or record it again.")
