"""The innovation gate of an estimator at run time: readings too far from their prediction count as missing."""

import math
from collections.abc import Sequence

import numpy as np

# After this many unlikely readings of a sensor in a row the estimate may be what is wrong: the sensor is let in again, until as
# many in a row are likely.
PATIENCE = 10


class InnovationGate:
    """A chi-squared test of each sensor's innovation.

    share: share of right readings that pass, in (0, 1), such as 0.999.
    sensors: name of the sensor of each channel, (ny,). Channels of one sensor pass together.

    A sensor whose last 10 readings were unlikely is let in until 10 in a row are likely, so that a lost estimate recovers.
    """

    def __init__(self, share: float, sensors: Sequence[str]):
        self._names = tuple(dict.fromkeys(sensors))
        self._member = np.array([self._names.index(name) for name in sensors], int)
        # The square that a sensor with 0, 1, ... measured channels may reach.
        self._limits = np.array([np.inf, *(chi_squared_quantile(share, k) for k in range(1, len(sensors) + 1))])
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._total, self._row = np.zeros(len(self._names), int), np.zeros(len(self._names), int)
        # A sensor that is open is let in whatever it reads; then `_row` counts likely readings, and unlikely ones otherwise.
        self._open = np.zeros(len(self._names), bool)

    @property
    def counts(self) -> dict[str, int]:
        """By sensor, how many readings were shut out since the reset."""
        return dict(zip(self._names, map(int, self._total), strict=True))

    def passed(self, white: np.ndarray) -> np.ndarray:
        """Which channels (ny,) are let in, given innovations over their predicted deviations; NaN where missing."""
        return (self._likely(white) | self._open)[self._member]

    def count(self, white: np.ndarray) -> None:
        """Count the readings of an update that was made, given what `passed` was given."""
        likely, measured = self._likely(white), np.bincount(self._member, np.isfinite(white)) > 0
        self._total += ~likely & ~self._open
        # A missing reading tells nothing.
        row = np.where(likely == self._open, self._row + 1, 0)
        self._row = np.where(measured, row, self._row)
        turned = self._row >= PATIENCE
        self._open, self._row = self._open ^ turned, np.where(turned, 0, self._row)

    def _likely(self, white: np.ndarray) -> np.ndarray:
        seen = np.isfinite(white)
        with np.errstate(over="ignore"):
            squares = np.bincount(self._member, np.where(seen, white, 0.0) ** 2)
        number = np.bincount(self._member, seen).astype(int)
        return squares <= self._limits[number]


def chi_squared_quantile(share: float, freedom: int) -> float:
    """The number below which a chi-squared variable of `freedom` degrees lies with probability `share` in (0, 1).

    By bisection, since run time does without SciPy.
    """
    low, high = 0.0, 1.0
    while _chi_squared(high, freedom) < share and high < 1e6:
        high *= 2
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _chi_squared(middle, freedom) < share else (low, middle)
    return high


def _chi_squared(x: float, freedom: int) -> float:
    """The distribution function: F_k+2(x) = F_k(x) - (x/2)^(k/2) exp(-x/2) / Gamma(k/2 + 1), from F_1 or F_2."""
    k = 1 if freedom % 2 else 2
    value = math.erf(math.sqrt(x / 2)) if k == 1 else -math.expm1(-x / 2)
    for degrees in range(k, freedom, 2):
        value -= math.exp(degrees / 2 * math.log(x / 2) - x / 2 - math.lgamma(degrees / 2 + 1))
    return value
