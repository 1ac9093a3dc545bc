"""Tables of motors that users have, as TOML or CSV, with the units of data sheets.

name,  mass [g], rotor_inertia [g cm^2], continuous_torque, peak_torque, no_load_speed [rpm], gears
M60,   290,      61,                     0.35,              1.1,         3900,                5 10 20

[M60]                         # the same as TOML: SI units, or a text with a unit
mass = "290 g"
rotor_inertia = "61 g*cm^2"
continuous_torque = 0.35
peak_torque = 1.1
no_load_speed = "3900 rpm"
gears = [5, 10, 20]
"""

import csv
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dso_robotics.data.conversion import factor
from dso_robotics.errors import DsoError, shortened
from dso_robotics.physics.motor import Motor

# Every number with its unit.
_UNITS = {
    "mass": "kg",
    "rotor_inertia": "kg*m^2",
    "continuous_torque": "N*m",
    "peak_torque": "N*m",
    "no_load_speed": "rad/s",
    "stall_torque": "N*m",
    "torque_constant": "N*m/A",
    "resistance": "ohm",
    "peak_power": "W",
    "price": "1",
}
_MUST = ("mass", "rotor_inertia", "continuous_torque", "peak_torque", "no_load_speed")
# No number of a motor is smaller than this in SI units, or larger than its inverse.
_LEAST = 1e-15
_MAY_BE_ZERO = ("mass", "rotor_inertia", "price")
_TEXTS = ("gears", "note")
COLUMNS = ("name", *_UNITS, *_TEXTS)
_HEADING = re.compile(r"(.+?)\s*[\[(]([^\[\]()]*)[\])]\s*")
_VALUE = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(.*)")


def read_motors(path: str | Path) -> tuple[Motor, ...]:
    """The motors in a file, in its order.

    Raises:
      DsoError: there is no such file, it is no table of motors, or a number of a motor is missing or impossible.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise DsoError(f"{path}: the table of motors cannot be read ({reason}); give a TOML or CSV file.") from error
    rows = list(_toml(path, text) if path.suffix.lower() == ".toml" else _csv(path, text))
    if not rows:
        raise DsoError(f"{path}: there is no motor in it; {_like(path)}.")
    found = tuple(_motor(path, name, row) for name, row in rows)
    names = [motor.name for motor in found]
    for name in names:
        if names.count(name) > 1:
            raise DsoError(f"{path}: two motors are called '{shortened(name)}'; give one of them another name.")
    return found


def _like(path: Path) -> str:
    if path.suffix.lower() == ".toml":
        return "write a table for each, such as [M60] with mass = 0.29, rotor_inertia = 6.1e-6 and so on"
    return f"the first line names the columns, {', '.join(('name', *_MUST))} and others, and each line below is a motor"


def _toml(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DsoError(f"{path}: not a TOML file ({str(error)[:200]}); mend the line named.") from error
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise DsoError(f"{path}: '{shortened(name)}' stands outside a table; {_like(path)}.")
        _known(path, table)
        yield name, {key: (value, "") for key, value in table.items()}


def _csv(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = [line for line in text.splitlines() if line.strip(" \t,;") and not line.lstrip().startswith("#")]
    if not lines:
        return
    delimiter = max(",;\t", key=lines[0].count)
    try:
        heading, *rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    except csv.Error as error:
        raise DsoError(f"{path}: not a table of motors ({error}); {_like(path)}.") from error
    parts = [_HEADING.fullmatch(cell) for cell in heading]
    names = [(cell if part is None else part[1]).strip().lower() for cell, part in zip(heading, parts, strict=True)]
    units = ["" if part is None else part[2].strip() for part in parts]
    _known(path, names)
    for name in names:
        if names.count(name) > 1:
            raise DsoError(f"{path}: two columns are called '{shortened(name)}'; keep one of them.")
    if "name" not in names:
        raise DsoError(f"{path}: there is no column 'name'; {_like(path)}.")
    for row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) > len(names) and any(cells[len(names) :]):
            raise DsoError(
                f"{path}: the line of '{shortened(cells[0])}' has more cells than the first line has columns."
            )
        if delimiter != ",":
            cells = [re.sub(r"(?<=\d),(?=\d)", ".", cell) for cell in cells]
        found = {n: (cell, unit) for n, cell, unit in zip(names, cells, units, strict=False) if cell}
        yield found.pop("name", ("", ""))[0], found


def _known(path: Path, names: Any) -> None:
    for name in names:
        if name not in COLUMNS:
            raise DsoError(
                f"{path}: '{shortened(str(name))}' is no column of a table of motors; columns are {', '.join(COLUMNS)}, "
                "with a unit behind where it is not SI, such as mass [g]."
            )


def _motor(path: Path, name: str, row: Mapping[str, Any]) -> Motor:
    if not name:
        raise DsoError(f"{path}: a motor has no name; fill in the column 'name'.")
    here = f"{path}: motor '{shortened(name)}'"
    numbers = {key: _number(here, key, *row[key]) for key in _UNITS if key in row}
    for key in _MUST:
        if key not in numbers:
            raise DsoError(f"{here} has no {key}; give it in {_UNITS[key]}, or with a unit.")
    if numbers["peak_torque"] < numbers["continuous_torque"]:
        raise DsoError(
            f"{here}: peak_torque {numbers['peak_torque']:g} N*m is below continuous_torque "
            f"{numbers['continuous_torque']:g} N*m; mend one of them."
        )
    if "stall_torque" not in numbers:
        by_winding = "torque_constant" in numbers and "resistance" in numbers
        numbers["stall_torque"] = (
            numbers["torque_constant"] ** 2 * numbers["no_load_speed"] / numbers["resistance"]
            if by_winding
            else numbers["peak_torque"]
        )
    numbers.setdefault("peak_power", numbers["peak_torque"] * numbers["no_load_speed"])
    gears = _gears(here, *row["gears"]) if "gears" in row else (1.0,)
    return Motor(name, gears=gears, **numbers)


def _number(here: str, key: str, value: Any, unit: str) -> float:
    given, number = value, math.nan
    if isinstance(value, str) and (match := _VALUE.fullmatch(value)):
        value, unit = match[1], match[2] or unit
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    times = 1.0 if not unit or key == "price" else factor(unit, _UNITS[key])
    if times is None:
        raise DsoError(f"{here}: {key} has the unit '{shortened(unit)}', which is not known; give {_UNITS[key]}.")
    number *= times
    least = "not below zero" if key in _MAY_BE_ZERO else "above zero"
    zero = number == 0 and key in _MAY_BE_ZERO
    if not (zero or _LEAST <= number <= 1 / _LEAST):
        least = f"from {_LEAST:g} to {1 / _LEAST:g}" if number > 0 else least
        raise DsoError(
            f"{here}: {key} = {shortened(repr(given))}: expected a number {least} in {_UNITS[key]}, or with a unit."
        )
    return number


def _gears(here: str, value: Any, unit: str) -> tuple[float, ...]:
    given = re.split(r"[\s;|/]+", value.strip()) if isinstance(value, str) else value
    given = given if isinstance(given, list) else [given]
    try:
        ratios = [float(ratio) for ratio in given if not isinstance(ratio, bool)]
    except (TypeError, ValueError, OverflowError):
        ratios = []
    if not ratios or len(ratios) < len(given) or not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise DsoError(
            f"{here}: gears = {shortened(repr(value))}: expected ratios above zero, turns of the motor for one of the joint, "
            "such as 5 10 20 in CSV or [5, 10, 20] in TOML."
        )
    return tuple(sorted(set(ratios)))
