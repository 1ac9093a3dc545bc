"""Python files of configurations: calls with one argument a line, and where each number is from."""

from collections.abc import Iterator, Sequence

from dso_robotics.report.export.drives import Number
from dso_robotics.report.export.finished import Finished


def heading(result: Finished, use: str) -> list[str]:
    """The docstring and a comment on units."""
    return [
        f'"""Actuators identified by `dso {result.command}`. {use}"""',
        "",
        "# At the joint, after the gear: N*m, rad, s of hinges; N, m, s of slides.",
        "# 'identified' marks what the run found; the other numbers are those of the model.",
        "",
    ]


def call(name: str, fields: Sequence[tuple[str, str, Number | None]], key: str | None = None) -> Iterator[str]:
    """The lines of a call with keyword arguments, as an entry of a tuple, or of a dictionary under `key`."""
    yield f"    {name}(" if key is None else f"    {key!r}: {name}("
    for field, text, number in fields:
        yield f"        {field}={text},{'  # identified' if number is not None and number.identified else ''}"
    yield "    ),"
