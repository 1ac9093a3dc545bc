"""Design numbers that can have a few values only: what they may be, and how far each is from numbers in between.

A search treats them as numbers between the smallest and the largest value. They are rounded when it is done.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dso_robotics.errors import DsoError

# The search may go so far beyond the ends, as a part of the range: its coordinates reach a bound only at infinity.
_ROOM = 0.005


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """Numbers that are chosen together.

    names: of the numbers (k,).
    options: (N, k) what they may be.
    labels: (N,) what each option is called.
    """

    names: tuple[str, ...]
    options: np.ndarray
    labels: tuple[str, ...]

    def near(self, numbers: np.ndarray) -> np.ndarray:
        """The options (N,) from the nearest to the farthest of `numbers` (k,)."""
        return np.argsort(self.distance(numbers), kind="stable")

    def distance(self, numbers: np.ndarray) -> np.ndarray:
        """Squared distance (N,) of each option from `numbers` (k,): 1 between two neighbouring values of a number."""
        found = np.zeros(len(self.options))
        for column, number in zip(self.options.T, numbers, strict=True):
            values = np.unique(column)
            found += (_place(column, values) - _place(np.asarray(number), values)) ** 2
        return found


def _place(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where numbers are among ascending values: i at the one of index i, and between them in proportion."""
    return np.interp(numbers, values, np.arange(len(values)))


def checked_values(name: str, values: Sequence[float], low: float, high: float) -> tuple[float, ...]:
    """The values that a number may have, ascending.

    Raises:
      DsoError: fewer than two, one twice, one that is no number, or one outside the bounds.
    """
    found = tuple(map(float, values))
    told = ", ".join(f"{value:g}" for value in found)
    if len(found) < 2:
        raise DsoError(
            f"{name}: choices = [{told}] leaves nothing to choose; give at least two values, or write the one into the model."
        )
    if len(set(found)) < len(found) or not np.all(np.isfinite(found)):
        raise DsoError(f"{name}: choices = [{told}]: each value is to be a number and to stand there once.")
    for value in found:
        if not low <= value <= high:
            raise DsoError(
                f"{name}: the choice {value:g} is outside the bounds {low:g} to {high:g}; leave it out, or widen the bounds."
            )
    return tuple(sorted(found))


def room(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of a search among the values, which go a little beyond them; a positive number stays positive."""
    low, high = min(values), max(values)
    beyond = _ROOM * (high - low)
    return (max(low - beyond, low / 2) if low > 0 else low - beyond), high + beyond
