"""Which column becomes which channel: the mappings `channel=column[*factor][+offset][:unit]`, `(column+offset)*factor` too."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dso_robotics.data.rollout import Array, nearest
from dso_robotics.data.table import Table
from dso_robotics.errors import DsoError

_NUMBER = r"(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_FACTOR = re.compile(rf"\s*(?P<sign>[*/])\s*(?P<value>[+-]?(?:{_NUMBER}|pi\b))")
# A number that is added, or a part of pi. Other products are refused: `ticks-2048*2*pi/4096` means `(ticks-2048)*2*pi/4096`.
_PI = rf"(?:{_NUMBER}\s*\*\s*)?pi(?:\s*/\s*{_NUMBER})?"
_OFFSET = re.compile(rf"\s*(?:{_NUMBER}|{_PI})\s*$")
_SIGN = re.compile(r"\s*(?P<sign>[+-])\s*")
_ARITHMETIC = re.compile(
    rf"^\(?\s*(?P<column>.+?)(?:\s*[+-]\s*{_NUMBER}\s*\))?(?:\s*[*/]\s*[+-]?(?:{_NUMBER}|pi))*"
    rf"(?:\s*[+-]\s*(?:{_NUMBER}|pi)(?:\s*[*/]\s*(?:{_NUMBER}|pi))*)?$"
)
_PLACE = re.compile(r"#?\d+")
_FORM = (
    " Write channel=column[*factor][+offset][:unit], such as angle=ticks*0.0015:rad, or with an offset of the column, "
    "angle=(ticks-2048)*2*pi/4096:rad."
)


@dataclass(frozen=True)
class Column:
    """A channel made from columns: `channel = column * scale + ... + offset`.

    unit: the unit after scaling, "" if unknown.
    more: further columns that are added, each with its factor: seconds and nanoseconds of one time.
    stated: whether the mapping gives a factor; then the unit of the file never changes it.
    """

    channel: str
    column: str
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    more: tuple[tuple[str, float], ...] = ()
    stated: bool = field(default=False, compare=False)

    @property
    def terms(self) -> tuple[tuple[str, float], ...]:
        """Every column that is added, with its factor."""
        return ((self.column, self.scale), *self.more)

    def read(self, table: Table) -> Array:
        """Values (T,) of the channel."""
        origin, values = self.since(table, first=False)
        return values + (origin + self.offset) if origin or self.offset else values

    def since(self, table: Table, *, first: bool = True) -> tuple[float, Array]:
        """The sum of the columns as `origin + values`, without the offset.

        first: each column is taken since its first number, so that float64 rounds nothing away of a clock that counts
          from 1970.
        """
        origin, total = 0.0, None
        for name, scale in self.terms:
            start, values = table.exact(name)
            finite = values[np.isfinite(values)][:1]
            begin = float(finite[0]) if first and len(finite) else 0.0
            origin += scale * (start + begin)
            scaled = (values - begin) * scale if begin else values * scale
            if total is not None and len(scaled) != len(total):
                raise DsoError(
                    f"{table.path}: columns {self.column!r} and {name!r} differ in length, so they have no sum."
                )
            total = scaled if total is None else total + scaled
        assert total is not None
        return origin, total


def parse_column(text: str, columns: Table | Sequence[str]) -> Column:
    """Parse `channel=column[*factor][+offset][:unit]`, or `column` alone if channel and column have the same name.

    `column` may be a sum of several, each with a factor: `sec+nanosec*1e-9`. A factor is a number or pi, after `*` or `/`.
    An offset is a number, or a part of pi: `+pi/2`. `(ticks-2048)*2*pi/4096` adds an offset of the column before the factors.
    If the text is one of `columns`, it is the name of that column, so names may contain any of `= * + - / :` and blanks.
    Raises DsoError listing `columns` when the column is not one of them.
    """
    table = columns if isinstance(columns, Table) else _bare(tuple(columns))
    whole = text.strip()
    if whole in table.names and table.find(whole) is not None:
        return Column(whole, whole)
    equals = [i for i, sign in enumerate(whole) if sign == "="]
    for i in [*equals, None]:
        channel, expression = ("", whole) if i is None else (whole[:i].strip(), whole[i + 1 :].strip())
        if i is not None and not channel:
            continue
        if found := _measure(expression, table):
            terms, offset, unit, stated = found
            (column, scale), *more = terms
            return Column(channel or column, column, scale, offset, unit, tuple(more), stated)
    _, equal, expression = whole.partition("=")
    # A bare name, such as that of the time, needs no lesson in formulas.
    form = "" if whole.isidentifier() else _FORM
    raise DsoError(f"{text!r}: {table.missing(_meant(expression.strip() if equal else whole, table))}{form}")


_Terms = list[tuple[str, float]]


def _measure(expression: str, table: Table) -> tuple[_Terms, float, str, bool] | None:
    """Terms, offset, unit, and whether a factor is given; None if a column is unknown."""
    cuts = [i for i, sign in enumerate(expression) if sign == ":"]
    for i in (None, *reversed(cuts)):
        formula, unit = (expression, "") if i is None else (expression[:i], expression[i + 1 :].strip())
        if found := _sum(formula.strip(), table):
            terms, offset, stated = found
            return terms, offset, unit, stated
    return None


def _sum(formula: str, table: Table) -> tuple[_Terms, float, bool] | None:
    names = sorted({name for name in table.names if name}, key=len, reverse=True)

    def rest(at: int, sign: float, first: bool) -> tuple[_Terms, float, bool] | None:
        if not first and _OFFSET.fullmatch(formula[at:]):
            size = _factors(f"*{formula[at:]}", 0)
            return None if size is None else ([], sign * size[0], False)
        for name, end in _named(formula, at, names, table):
            if (size := _factors(formula, end)) is None:
                return None
            scale, stated, here = sign * size[0], size[1] > end, size[1]
            if not formula[here:].strip():
                return [(name, scale)], 0.0, stated
            if (plus := _SIGN.match(formula, here)) and (
                found := rest(plus.end(), -1.0 if plus["sign"] == "-" else 1.0, False)
            ):
                return [(name, scale), *found[0]], found[1], stated or found[2]
        return None

    if formula.startswith("-") and formula not in table.names:
        found = rest(1, -1.0, True)
        return found and (found[0], found[1], True)
    return rest(0, 1.0, True) or (_bracketed(formula, table) if formula.startswith("(") else None)


def _bracketed(formula: str, table: Table) -> tuple[_Terms, float, bool] | None:
    """`(column+offset)*factor`: the factors act on the offset too. None if it is no such formula."""
    for close in (i for i, sign in enumerate(formula) if sign == ")"):
        size = _factors(formula, close + 1)
        if size is None or formula[size[1] :].strip() or not (inner := _sum(formula[1:close].strip(), table)):
            continue
        return (
            [(name, scale * size[0]) for name, scale in inner[0]],
            inner[1] * size[0],
            inner[2] or size[1] > close + 1,
        )
    return None


def _factors(text: str, at: int) -> tuple[float, int] | None:
    """The product of the factors that begin at a place of a formula, and where they end; None if one divides by 0."""
    size = 1.0
    while factor := _FACTOR.match(text, at):
        value = _value(factor["value"])
        if factor["sign"] == "/" and value == 0:
            return None
        size, at = size * value if factor["sign"] == "*" else size / value, factor.end()
    return size, at


def _value(text: str) -> float:
    """A number, or pi, with a sign."""
    return math.copysign(math.pi, -1.0 if text[0] == "-" else 1.0) if text.endswith("pi") else float(text)


def _named(formula: str, at: int, names: list[str], table: Table) -> list[tuple[str, int]]:
    """Columns whose name begins at a place of the formula, the longest first, and where each ends."""
    found, dotted = [], formula.replace("/", ".")
    for name in names:
        if formula.startswith(name, at):
            end = at + len(name)
            if (numbered := re.compile(r"#\d+").match(formula, end)) and table.find(
                formula[at : numbered.end()]
            ) is not None:
                found.append((formula[at : numbered.end()], numbered.end()))
            if table.find(name) is not None:
                # The one column of an array may be called by its place too.
                found += [(name, end + 3)] if formula.startswith("[0]", end) else []
                found.append((name, end))
        elif "/" in name and dotted.startswith(name.replace("/", "."), at) and table.find(name) is not None:
            found.append((name, at + len(name)))
    place = _PLACE.match(formula, at)
    if place and table.find(place[0]) is not None:
        found.append((place[0], place.end()))
    return found


def _meant(expression: str, table: Table) -> str:
    """The name of the column that an expression probably means."""
    if expression in table.names or expression in table.refused:
        return expression
    name = expression.rpartition(":")[0].strip() or expression
    if ":" in expression and not nearest(name, table.names) and nearest(expression, table.names):
        name = expression
    match = _ARITHMETIC.match(name)
    return match["column"].strip() if match else name


def _bare(names: tuple[str, ...]) -> Table:
    def parse(index: int):
        raise DsoError(f"column {names[index]!r} has no values.")

    return Table("", names, parse)


def known(text: str, table: Table) -> bool:
    """Whether `parse_column` finds the columns of `text`."""
    try:
        parse_column(text, table)
    except DsoError:
        return False
    return True
