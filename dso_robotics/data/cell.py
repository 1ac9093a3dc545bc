"""Numbers and times in the cells of a table of text."""

import datetime
import re
from collections.abc import Iterable, Sequence

import numpy as np

from dso_robotics.data.rollout import Array

MISSING = {
    "",
    "nan",
    "na",
    "n/a",
    "#n/a",
    "null",
    "none",
    "-",
    "--",
    "?",
    "nil",
    "missing",
    "1.#qnan",
    "-1.#ind",
    "1.#io",
}
"""Cells, in lower case, of what was not measured."""
_WORDS = {"true": 1.0, "false": 0.0}
_COMMA = re.compile(r"[+-]?(?:\d+|[1-9]\d{0,2}(?:[.']\d{3})+)?,\d+(?:[eE][+-]?\d+)?")
_COMMA_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+")
_POINT_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:[,']\d{3})+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_FORTRAN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[dD][+-]?\d+")
_INTEGER = re.compile(r"[+-]?\d+")
_TIME = re.compile(
    r"(?:(?:(?P<y>\d{4})[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})|(?P<gd>\d{1,2})\.(?P<gm>\d{1,2})\.(?P<gy>\d{4}))[T ]+)?"
    r"(?P<H>\d{1,2}):(?P<M>\d{2}):(?P<S>\d{2})(?:[.,](?P<f>\d+))?\s*(?P<z>Z|UTC|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE,
)
_DAY = 86_400 * 10**9
EXACT = 2**53
"""Beyond this, float64 cannot hold every integer."""


def number(cell: str, decimal: str = ".") -> float | None:
    """The number in a cell, NaN for a missing one, None if it is neither. `decimal` is "." or ","."""
    text = cell.strip()
    if decimal == "," and "," in text:
        if not _COMMA.fullmatch(text):
            return None
        return float(text.replace(".", "").replace("'", "").replace(",", "."))
    if decimal == "," and "." in text:
        return float(text.replace(".", "")) if _COMMA_THOUSANDS.fullmatch(text) else None
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        pass
    if text.lower() in MISSING:
        return float("nan")
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if decimal == "." and _POINT_THOUSANDS.fullmatch(text):
        return float(text.replace(",", "").replace("'", ""))
    if _FORTRAN.fullmatch(text):
        return float(text.lower().replace("d", "e"))
    return None


def nanoseconds(cell: str) -> int | None:
    """A date with a time of day as nanoseconds since 1970, or a time of day since midnight; None if it is neither."""
    found = _TIME.fullmatch(cell.strip())
    if not found:
        return None
    hour, minute, second = (int(found[part]) for part in "HMS")
    if hour > 24 or minute > 59 or second > 60:
        return None
    whole = (hour * 60 + minute) * 60 + second
    if year := found["y"] or found["gy"]:
        try:
            day = datetime.date(int(year), int(found["m"] or found["gm"]), int(found["d"] or found["gd"]))
        except ValueError:
            return None
        whole += (day - datetime.date(1970, 1, 1)).days * 86_400
    if (zone := found["z"]) and zone.upper() not in ("Z", "UTC"):
        digits = zone[1:].replace(":", "")
        whole -= (1 if zone[0] == "+" else -1) * (int(digits[:2]) * 60 + int(digits[2:])) * 60
    return whole * 10**9 + int((found["f"] or "0")[:9].ljust(9, "0"))


def stamps(cells: Sequence[str]) -> Array | int:
    """Dates and times as seconds (T,) since the first of them, NaN where missing; the row of a cell that is none.

    Times of day go on after midnight.
    """
    parsed = [nanoseconds(cell) for cell in cells]
    days, before = 0, None
    for i, (cell, value) in enumerate(zip(cells, parsed, strict=True)):
        if value is None:
            if cell.strip().lower() not in MISSING:
                return i
            continue
        if before is not None and value + days < before - _DAY // 2 and value < _DAY:
            days += _DAY
        before = value + days
        parsed[i] = before
    origin = next((value for value in parsed if value is not None), 0)
    return np.array([np.nan if value is None else (value - origin) * 1e-9 for value in parsed])


def column(cells: Sequence[str], decimal: str = ".") -> tuple[int, Array] | int:
    """The numbers of a column as `origin + values`, or the row of the first cell that is not a number.

    origin: 0, except where a column holds integers so large that float64 would round them, such as nanoseconds since 1970:
      then it is the first of them.
    values: (T,), NaN where a cell is missing. A column of dates or times is in seconds since the first of them.
    """
    first = next((cell for cell in cells if cell.strip().lower() not in MISSING), "")
    if nanoseconds(first) is not None:
        found = stamps(cells)
        return found if isinstance(found, int) else (0, found)
    values = None
    if decimal == "." and not any("_" in cell for cell in cells):  # NumPy takes 1_000 for a number
        try:
            values = np.array(cells).astype(np.float64)
        except ValueError:
            values = None
    if values is None:
        values = np.empty(len(cells))
        for i, cell in enumerate(cells):
            value = number(cell, decimal)
            if value is None:
                return i
            values[i] = value
    if np.abs(values[np.isfinite(values)]).max(initial=0.0) >= EXACT:
        whole = [int(cell) if _INTEGER.fullmatch(cell.strip()) else None for cell in cells]
        if all(w is not None or np.isnan(v) for w, v in zip(whole, values, strict=True)):
            origin = next(w for w in whole if w is not None)
            return origin, np.array([np.nan if w is None else float(w - origin) for w in whole])
    return 0, values


def undecided(cells: Iterable[str]) -> str | None:
    """A cell such as `1,234` if commas occur and nothing tells whether they are decimal; None if it is certain."""
    doubtful = None
    for cell in cells:
        if "," not in cell:
            if re.fullmatch(r"\s*[+-]?\d*\.\d+\s*", cell):
                return None
            continue
        text = cell.strip()
        if number(text, ",") is None or number(text, ".") is None:
            if number(text, ",") is not None or number(text, ".") is not None:
                return None
        else:
            doubtful = doubtful or text
    return doubtful
