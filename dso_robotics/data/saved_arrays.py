"""Arrays that NumPy saved: NPZ archives and NPY files. Nothing is ever unpickled."""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dso_robotics.data.limits import refuse_oversized
from dso_robotics.data.tree import Leaf
from dso_robotics.errors import DsoError

Leaves = tuple[list[Leaf], dict[str, str]]
_FAULTS = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
)


def read_npz(path: Path) -> Leaves:
    """The arrays of an NPZ archive, and the names of those that are no columns with the reason."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.startswith("xl/") for name in names):
                raise DsoError(f"{path}: is an Excel workbook; save the sheet as CSV.")
            if not any(name.endswith(".npy") for name in names):
                raise DsoError(
                    f"{path}: is a ZIP archive without arrays of NumPy; unpack it and convert the files in it."
                )
            # numpy allocates the size in a member's header, so the headers are checked first.
            arrays = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            claims = 0
            for info in arrays:
                with archive.open(info) as stream:
                    claims += _claim(stream)
            refuse_oversized(claims, path, "the archive")
        with np.load(path, allow_pickle=False) as content:
            return _sorted({name: content[name] for name in content.files})
    except _FAULTS as error:
        if isinstance(error, DsoError):
            raise
        cure = "save plain number arrays" if "pickle" in str(error) else "save it again with numpy.savez"
        raise DsoError(f"{path}: cannot be read as an NPZ archive ({_reason(error)}); {cure}.") from error


def read_npy(path: Path) -> Leaves:
    """The one array of an NPY file. Its columns are 1, 2, 3, ..., or the fields of a structured array."""
    try:
        with path.open("rb") as stream:
            refuse_oversized(_claim(stream), path, "the array")
        return _sorted({"": np.load(path, allow_pickle=False)})
    except _FAULTS as error:
        if isinstance(error, DsoError):
            raise
        cure = "save plain number arrays" if "pickle" in str(error) else "save it again with numpy.save"
        raise DsoError(f"{path}: cannot be read as an NPY file ({_reason(error)}); {cure}.") from error


def _reason(error: Exception) -> str:
    """What an error says, in one line: some repeat the bytes of the file."""
    return " ".join(ascii(str(error))[1:-1].split())[:200]


def _sorted(arrays: dict[str, np.ndarray]) -> Leaves:
    leaves, others = [], {}
    for name, array in arrays.items():
        if array.dtype.names and array.ndim == 1:
            stem = f"{name}/" if name else ""
            leaves += [
                _leaf(stem + field, array[field]) for field in array.dtype.names if array[field].dtype.kind in "fiubM"
            ]
        elif array.dtype.kind in "fiubMm" and array.ndim >= 1:
            leaves.append(_leaf(name, array))
        else:
            # Text, scalars such as a time step.
            others[name or "the array"] = (
                f"has shape {array.shape} and type {array.dtype}, which is no column of numbers"
            )
    return leaves, others


def _leaf(name: str, array: np.ndarray) -> Leaf:
    return Leaf(name, array.shape, lambda: array)


def _claim(stream) -> int:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    # An array without samples still claims its columns: (0, 10^14) is a forged shape.
    return math.prod(max(int(size), 1) for size in shape) * max(8, dtype.itemsize)
