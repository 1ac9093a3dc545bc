"""How long the files of tests take, so that the longest begin first and no process is left alone with one at the end.

    make check PYTEST=--junitxml=times.xml
    python -m tests.seconds times.xml > tests/seconds.txt

renews the table. Files of less than five seconds are left out, and come last.
"""

import functools
import sys
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_suffix(".txt")
_LEAST = 5.0


@functools.cache
def seconds() -> dict[str, float]:
    """Seconds of each file that takes long, by its path from the root of the repository."""
    rows = (line.split() for line in TABLE.read_text().splitlines())
    return {name: float(time) for time, name in rows}


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests in place: files by their time, the tests of a file as they stand in it."""
    known = seconds()
    items.sort(key=lambda item: -known.get(item.path.relative_to(ROOT).as_posix(), 0.0))


def table(report: str | Path) -> str:
    """The lines of the table from a report that pytest wrote with --junitxml."""
    total: Counter[str] = Counter()
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        total[case.attrib["classname"].replace(".", "/") + ".py"] += float(case.attrib["time"])
    rows = sorted(((time, name) for name, time in total.items() if time >= _LEAST), reverse=True)
    return "".join(f"{time:.0f} {name}\n" for time, name in rows)


if __name__ == "__main__":
    print(table(sys.argv[1]), end="")
