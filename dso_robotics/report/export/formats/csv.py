"""The parameters as comma-separated values."""

import csv
import dataclasses
import io

from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.report.export.numbers import read_numbers

COLUMNS = ("parameter", "value", "low95", "high95", "unit", "start", "determined", "at_bound")


@FORMATS.register("csv")
@dataclasses.dataclass(frozen=True)
class Csv(Format):
    """One row for each number, in full precision; an empty cell where the run does not state it."""

    commands = ("identify", "train", "design", "estimate")
    filename = "parameters.csv"
    about = "the parameters with intervals as a table (RFC 4180, UTF-8)"

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for n in read_numbers(result):
            ends = (n.value, n.low, n.high, n.unit, n.start)
            marks = ("" if mark is None else str(mark).lower() for mark in (n.determined, n.at_bound))
            writer.writerow([n.path, *map(_cell, ends), *marks])
        return Export({name: text.getvalue()})


def _cell(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
