"""Arrays that MATLAB saved, up to version 7; a file of version 7.3 is HDF5."""

import tempfile
from pathlib import Path

import numpy as np

from dso_robotics.data.apart import NoAnswer, read_apart
from dso_robotics.data.limits import allowed_bytes, refuse_oversized
from dso_robotics.data.tree import Leaf
from dso_robotics.errors import DsoError

# Seconds for the other process, which is also limited to 60 s of computing.
_DEADLINE = 120.0
_PROGRAM = Path(__file__).with_name("mat_arrays.py")


def read_mat(path: Path) -> tuple[list[Leaf], dict[str, str]]:
    """The arrays of a MAT file, those of structs under `struct/field`, and the names of what is no array of numbers.

    Samples are the axis as long as most vectors of the file. Raises DsoError when the file is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="dso-mat-") as folder:
        target = Path(folder, "arrays.npz")
        try:
            more = str(target), str(allowed_bytes(path))
            said = read_apart(_PROGRAM, path, *more, library="SciPy", seconds=_DEADLINE)
        except NoAnswer as error:
            raise DsoError(f"{path}: is damaged and cannot be read as a MAT file ({error}); save it again.") from error
        if "claims" in said:
            refuse_oversized(said["claims"], path, "the file")
        try:
            with np.load(target, allow_pickle=False) as content:
                arrays = {name: content[f"arr_{i}"] for i, name in enumerate(said["names"])}
        except (OSError, ValueError, LookupError) as error:
            raise DsoError(f"{path}: its arrays cannot be read ({error}); save it again.") from error
    return [_leaf(name, array) for name, array in oriented(arrays).items()], said["others"]


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


def _leaf(name: str, array: np.ndarray) -> Leaf:
    return Leaf(name, array.shape, lambda: array)
