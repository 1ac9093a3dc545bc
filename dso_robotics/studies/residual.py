"""A user-defined residual: knowledge about the robot that is not in the logs, such as its measured weight."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector, values


def own_residual(where: str, vector: ParameterVector) -> Callable[[np.ndarray], np.ndarray]:
    """The function named by `where`, FILE.py:NAME, of coordinates z (n,).

    The user's function takes a dict of physical numbers by path (all that are free) and returns one number or an array,
    already divided by its standard deviation. Half the sum of squares is added to the cost.

    Raises:
      DsoError: no such file or function, or it fails or returns something else at the start values.
    """
    file, _, name = where.rpartition(":")
    if not file or not Path(file).is_file():
        raise DsoError(f"residual {where}: there is no such Python file; write FILE.py:FUNCTION.")
    try:
        function = runpy.run_path(file)[name]
    except KeyError:
        raise DsoError(f"{file}: has no function '{name}'; write FILE.py:FUNCTION.") from None
    except Exception as error:
        raise DsoError(f"{file}: cannot be run: {type(error).__name__}: {error}.") from error

    def residual(z: np.ndarray) -> np.ndarray:
        return np.atleast_1d(np.asarray(function(dict(values(vector, z))), float)).ravel()

    try:
        first = residual(vector.initial)
    except Exception as error:
        known = ", ".join(list(values(vector, vector.initial))[:4])
        raise DsoError(
            f"{where}: fails at the start values: {type(error).__name__}: {error}. It is given a dict with {known}, ... and "
            "returns numbers divided by their standard deviation."
        ) from error
    if not np.isfinite(first).all():
        raise DsoError(f"{where}: returns {first} at the start values; it must return finite numbers there.")
    return residual
