"""The physical numbers of a result as rows, for tables in files."""

import dataclasses
import math
from collections.abc import Iterator

from dso_robotics.errors import DsoError
from dso_robotics.report.export.finished import Finished


@dataclasses.dataclass(frozen=True)
class Number:
    """One physical number of a result.

    path: its parameter path. value, start: in `unit`; start is where the search began.
    low, high: ends of the 95% interval; None where the run states none.
    determined: whether the data determine it; None where the run does not say.
    at_bound: whether a bound holds it.
    """

    path: str
    value: float
    low: float | None
    high: float | None
    unit: str
    start: float | None
    determined: bool | None
    at_bound: bool

    @property
    def digits(self) -> int:
        """Significant digits of the value that show two digits of the interval's half-width; four without an interval."""
        ends = [end for end in (self.low, self.high) if end is not None and math.isfinite(end)]
        half = max((abs(end - self.value) for end in ends), default=0.0)
        if not half or not self.value:
            return 4
        return min(max(math.floor(math.log10(abs(self.value))) - math.floor(math.log10(half)) + 2, 2), 15)


def read_numbers(result: Finished) -> list[Number]:
    """Every physical number of the result.

    Raises:
      DsoError: it has none.
    """
    numbers = list(_numbers(result))
    if not numbers:
        raise DsoError(f"{result.folder}: no physical number was free in this run, so there is no table of them.")
    return numbers


def _numbers(result: Finished) -> Iterator[Number]:
    for path, row in result.summary["parameters"].items():
        low, high = row.get("low95"), row.get("high95")
        start, determined = row.get("initial"), row.get("determined")
        yield Number(path, row["value"], low, high, row["unit"], start, determined, bool(row.get("at_bound")))
