"""A user-defined residual: knowledge about the robot that is not in the logs, such as its measured weight."""

from collections.abc import Callable

import numpy as np

from dso_robotics.costs.own_function import call, load_function
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector, values

_RETURNS = "it must return as many finite numbers, divided by their standard deviation, wherever the search looks"


def own_residual(where: str, vector: ParameterVector) -> Callable[[np.ndarray], np.ndarray]:
    """The function named by `where`, FILE.py:NAME, of coordinates z (n,).

    The user's function takes a dict of physical numbers by path (all that are free) and returns one number or an array,
    already divided by its standard deviation. Half the sum of squares is added to the cost.

    Raises:
      DsoError: no such file or function, or it fails or returns something else at the start values. What is returned here
        raises it where it fails later, or returns another count of numbers or a number that is not finite.
    """
    file, _, name = where.rpartition(":")
    if not file:
        raise DsoError(f"residual {where}: this names no function; write FILE.py:FUNCTION.")
    function = load_function(file, name, "write FILE.py:FUNCTION")
    known = ", ".join(list(values(vector, vector.initial))[:4])

    def numbers(z: np.ndarray, moment: str) -> np.ndarray:
        found = call(function, f"{where} {moment}", dict(values(vector, z)))
        try:
            return np.atleast_1d(np.asarray(found, float)).ravel()
        except (TypeError, ValueError):
            raise DsoError(f"{where} {moment}: returns {type(found).__name__}, not numbers; {_RETURNS}.") from None

    try:
        first = numbers(vector.initial, "at the start values")
    except DsoError as error:
        raise DsoError(f"{error} It is given a dict with {known}, ...") from error
    if not np.isfinite(first).all():
        raise DsoError(f"{where}: returns {first} at the start values; it must return finite numbers there.")

    def residual(z: np.ndarray) -> np.ndarray:
        found = numbers(z, "in the search")
        if found.shape != first.shape or not np.isfinite(found).all():
            at = ", ".join(f"{path} = {value:.6g}" for path, value in list(values(vector, z).items())[:4])
            shown = f"{found.size} numbers after {first.size}" if found.shape != first.shape else str(found)[:80]
            raise DsoError(f"{where} in the search: returns {shown} at {at}; {_RETURNS}.")
        return found

    return residual
