"""A program that `matlab` runs: read a MAT file up to version 7 and save its arrays of numbers as NPZ.

It has a limit of memory and time, because SciPy may crash on a damaged file. It imports nothing of this package.

    python mat_arrays.py FILE.mat ARRAYS.npz BYTES

BYTES: what all arrays may need together, as float64. Printed as JSON: `names` of the arrays, `others` that are no arrays of
numbers with the reason, `claims` in bytes where they are more than BYTES.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.io import loadmat, whosmat

_DEEPEST, _MEMORY, _SECONDS = 16, 2 << 30, 60
_Others = dict[str, str]


def _limit(allowed: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY + 3 * allowed, _MEMORY + 3 * allowed))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _walk(value: Any, name: str, others: _Others, depth: int) -> Iterator[tuple[str, np.ndarray]]:
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


def main(path: str, target: str, allowed: int) -> int:
    """Read the file at `path` and save its arrays at `target`; returns the exit status."""
    _limit(allowed)
    try:
        claims = sum(8 * math.prod(map(int, shape)) for _, shape, _ in whosmat(path))
        if claims > allowed:
            json.dump({"claims": claims}, sys.stdout)
            return 0
        arrays, others = dict[str, np.ndarray](), _Others()
        for name, value in loadmat(path, squeeze_me=True, struct_as_record=True, chars_as_strings=True).items():
            if not name.startswith("__"):
                arrays.update(_walk(value, name, others, 0))
        with open(target, "wb") as stream:
            np.savez(stream, *arrays.values())
    except Exception as error:
        print(" ".join(f"{error}".split())[:300] or type(error).__name__, file=sys.stderr)
        return 1
    json.dump({"names": list(arrays), "others": others}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
