"""Converts tables to logs: which column is which channel, in which unit."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dso_robotics.data.conversion import factor
from dso_robotics.data.dialect import Dialect
from dso_robotics.data.formats import read_tables
from dso_robotics.data.log import Log
from dso_robotics.data.mapping import Column, parse_column
from dso_robotics.data.order import Repair, held
from dso_robotics.data.resample import resample
from dso_robotics.data.rollout import Array, Rollout, listed, nearest
from dso_robotics.data.state_columns import stacked_state
from dso_robotics.data.table import Table
from dso_robotics.errors import DsoError

if TYPE_CHECKING:
    import mujoco

# Clocks that count from 1970 or 1904 are beyond this [s]; the difference of two such times is beyond float64's microseconds.
_EPOCH = 1e8


@dataclass(frozen=True)
class Use:
    """What became of a column.

    column: its formula, as mapped. unit: what the file says, "" if nothing. channel: what it became. kind: time, ctrl, sensor,
    qpos or qvel. becomes: the unit of the channel. scale: the factor of the first column. low, high: range of the channel.
    """

    column: str
    unit: str
    channel: str
    kind: str
    becomes: str
    scale: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Converted:
    """The rollouts of a file, what became of each column, the columns that were not used, and notes."""

    rollouts: tuple[Rollout, ...]
    uses: tuple[Use, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]


def convert_table(
    path: str | Path,
    ctrl: Sequence[str] = (),
    sensors: Sequence[str] = (),
    *,
    qpos: Sequence[str] = (),
    qvel: Sequence[str] = (),
    model: "mujoco.MjModel | None" = None,
    time: str = "time",
    rate: float | None = None,
    name: str | None = None,
    dialect: Dialect | None = None,
    repair: Repair | None = None,
    resample_rate: float | None = None,
) -> Converted:
    """Rollouts from one file of any kind that `formats.read_tables` knows.

    ctrl, sensors: mappings in the format of `parse_column`.
    qpos, qvel: the same for the recorded state, `JOINT=column`, or `JOINT[i]=column` for a joint of several numbers. They need
      `model`, which says the order of the joints.
    time: mapping of the time column [s]; `t*0.001` or `t:ms` for milliseconds, `sec+nanosec*1e-9` for two columns. Of a clock
      that counts from 1970 the time since the first sample is kept.
    rate: samples per second [Hz], for files without a time column.
    name: name of the rollout; the file's stem if None. The groups of a file of several keep their own names.
    dialect: what the user says about a text file. repair: what may be done where time is not in order.
    resample_rate: samples per second to put the rollouts on [Hz]; as recorded if None.
    Where a mapping gives no factor, a unit that the file states is converted to the unit of the mapping, and refused if that is
    impossible. Empty cells of sensors become NaN: not measured. Raises DsoError naming the file and the column.
    """
    mapped = [*ctrl, *sensors, *qpos, *qvel]
    found = read_tables(path, dialect, wanted=mapped, time=None if rate is not None else time, ctrl=ctrl)
    if not mapped:
        names = tuple(dict.fromkeys(name for name in found[0].names if name))
        raise DsoError(
            f"{path}: nothing to convert; map at least one channel with --ctrl or --sensor. Its columns: {listed(names)}."
        )
    for value, what in ((rate, "rate"), (resample_rate, "rate to resample to")):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise DsoError(f"{path}: the {what} is {value:g} Hz; give a positive number of samples per second.")
    if (qpos or qvel) and model is None:
        raise DsoError(
            f"{path}: --qpos and --qvel need --model MODEL, which says in which order a state has its joints."
        )
    stem = Path(path).stem if name is None else name
    parts = [
        _converted(table, named, ctrl, sensors, qpos, qvel, model, time, rate, repair or Repair())
        for table, named in zip(found, _named(found, stem), strict=True)
    ]
    rollouts = tuple(rollout for part in parts for rollout in part.rollouts)
    if resample_rate is not None:
        rollouts = tuple(_resampled(rollout, resample_rate, path) for rollout in rollouts)
    uses = tuple(
        replace(use, low=min(part.uses[i].low for part in parts), high=max(part.uses[i].high for part in parts))
        for i, use in enumerate(parts[0].uses)
    )
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Converted(rollouts, uses, parts[0].unused, notes)


def rescale(log: Log, scales: Mapping[str, tuple[float, str]]) -> Log:
    """The log with channels multiplied by a factor and given a new unit: `{"angle": (0.0174533, "rad")}`.

    Raises DsoError listing the channels when a channel is in no rollout.
    """
    known = tuple(dict.fromkeys(name for r in log.rollouts for name in (*r.ctrl_names, *r.sensor_names)))
    for name, (size, _) in scales.items():
        if name not in known:
            raise DsoError(
                f"{log.label}: has no channel {name!r}.{nearest(name, known)} Its channels: {listed(known)}."
            )
        if not np.isfinite(size) or size == 0:
            raise DsoError(f"{log.label}: channel {name!r} cannot be scaled by {size:g}; give a finite factor, not 0.")
    rollouts = []
    for rollout in log.rollouts:
        changes: dict[str, Any] = {}
        for kind, prefix in (("ctrl", "ctrl"), ("sensordata", "sensor")):
            names, units = getattr(rollout, f"{prefix}_names"), getattr(rollout, f"{prefix}_units")
            if (values := getattr(rollout, kind)) is not None:
                changes[kind] = values * [scales.get(name, (1.0, ""))[0] for name in names]
                new = [scales[name][1] if name in scales else "" for name in names]
                changes[f"{prefix}_units"] = tuple(n or old for n, old in zip(new, units, strict=True))
        rollouts.append(replace(rollout, **changes))
    return replace(log, rollouts=tuple(rollouts))


def unwrap(log: Log, names: Sequence[str]) -> Log:
    """The log with jumps of a full turn taken out of sensor channels, in their unit: 360 for deg, 1 for turns, otherwise 2 pi.

    Raises DsoError listing the channels when a channel is in no rollout.
    """
    known = tuple(dict.fromkeys(name for r in log.rollouts for name in r.sensor_names))
    for name in names:
        if name not in known:
            raise DsoError(
                f"{log.label}: has no sensor channel {name!r}.{nearest(name, known)} Its channels: {listed(known)}."
            )
    rollouts = []
    for rollout in log.rollouts:
        if rollout.sensordata is None:
            rollouts.append(rollout)
            continue
        values = rollout.sensordata.copy()
        for name in set(names) & set(rollout.sensor_names):
            c = rollout.sensor_names.index(name)
            turn = factor("rev", rollout.sensor_units[c]) or 2 * np.pi
            seen = np.isfinite(values[:, c])
            values[seen, c] = np.unwrap(values[seen, c], period=turn)
        rollouts.append(replace(rollout, sensordata=values))
    return replace(log, rollouts=tuple(rollouts))


def _converted(
    table: Table,
    name: str,
    ctrl: Sequence[str],
    sensors: Sequence[str],
    qpos: Sequence[str],
    qvel: Sequence[str],
    model: "mujoco.MjModel | None",
    time: str,
    rate: float | None,
    repair: Repair,
) -> Converted:
    notes = list(table.notes)
    columns = {
        kind: [_in_unit(_parse(text, table), table, notes) for text in texts]
        for kind, texts in (("ctrl", ctrl), ("sensor", sensors), ("qpos", qpos), ("qvel", qvel))
    }
    values = {kind: _stack(parts, table) for kind, parts in columns.items()}
    state = {kind: stacked_state(model, kind, columns[kind], values[kind], table.path) for kind in ("qpos", "qvel")}
    samples = next(len(part) for part in values.values() if part is not None)
    if rate is not None:
        clock, stamps = None, np.arange(samples) / rate
    else:
        clock = _clock(time, table, notes)
        stamps = _since_first(clock, table, notes)
    lengths = {"time": len(stamps), **{kind: len(part) for kind, part in values.items() if part is not None}}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{kind} {length}" for kind, length in lengths.items())
        raise DsoError(
            f"{table.path}: the mapped columns differ in length ({shown}); use columns of the same recording."
        )
    controls = values["ctrl"]
    if controls is not None and repair.hold_ctrl:
        controls = held(controls)
    known = [part for part in (controls, state["qpos"], state["qvel"]) if part is not None]
    pieces = repair.pieces(table.path, stamps, np.concatenate(known, axis=1) if known else None)
    left = samples - sum(len(piece) for piece in pieces)
    if left:
        notes.append(f"{left} of {samples} samples are left out")
    labels: dict[str, Any] = {
        "ctrl_names": tuple(c.channel for c in columns["ctrl"]),
        "ctrl_units": tuple(c.unit for c in columns["ctrl"]),
        "sensor_names": tuple(c.channel for c in columns["sensor"]),
        "sensor_units": tuple(c.unit for c in columns["sensor"]),
    }
    rollouts = []
    for number, piece in enumerate(pieces):
        arrays = {"ctrl": controls, "sensordata": values["sensor"], **state}
        try:
            rollout = Rollout(
                name=name if number == 0 else f"{name}.{number}",
                time=stamps[piece],
                **{kind: None if part is None else part[piece] for kind, part in arrays.items()},
                **labels,
            )
        except DsoError as error:
            gap = controls is not None and np.isnan(controls[piece]).any() and not np.isnan(controls).all(axis=0).any()
            cure = (
                " --hold-ctrl repeats the value before, --trim leaves out the samples before the first." if gap else ""
            )
            raise DsoError(f"{table.path}: {error}{cure}") from error
        rollouts.append(rollout)
    uses = [] if clock is None else [_use(clock, table, "time", stamps)]
    for kind, parts in columns.items():
        stack = values[kind]
        uses += [_use(c, table, kind, stack[:, i]) for i, c in enumerate(parts) if stack is not None]
    taken = {
        table.find(part)
        for c in [*(c for cs in columns.values() for c in cs), *filter(None, [clock])]
        for part, _ in c.terms
    }
    unused = tuple(other or f"#{i + 1}" for i, other in enumerate(table.names) if i not in taken)
    return Converted(tuple(rollouts), tuple(uses), unused, tuple(notes))


def _named(tables: Sequence[Table], stem: str) -> list[str]:
    """The names of the tables' rollouts: the end of a group's name, or all of it where two end alike."""
    ends = [table.rollout.rpartition("/")[2] for table in tables]
    often = Counter(ends)
    return [
        (end if often[end] == 1 else table.rollout.replace("/", "_")) if table.rollout else stem
        for table, end in zip(tables, ends, strict=True)
    ]


def _parse(text: str, table: Table) -> Column:
    try:
        return parse_column(text, table)
    except DsoError as error:
        raise DsoError(f"{table.path}: {error}") from error


def _clock(text: str, table: Table, notes: list[str]) -> Column:
    """The mapping of the time. A unit, of the mapping or of the file, is the one that the column is in."""
    try:
        column = parse_column(text, table)
    except DsoError as error:
        raise DsoError(
            f"{table.path}: {error} --time COLUMN names the column of the time; of a file without one give the samples per "
            "second, --rate HZ."
        ) from error
    unit = column.unit or ("" if column.stated or column.more else table.unit(column.column))
    size = factor(unit, "s") if unit else 1.0
    if column.unit and size is None:
        raise DsoError(
            f"{table.path}: time is in {unit!r}, which is no unit of time; give the factor, such as t*0.001."
        )
    if size not in (None, 1.0):
        notes.append(f"time is in {unit}, as {'the mapping' if column.unit else 'the file'} says, and becomes seconds")
        terms = [(name, scale * size) for name, scale in column.terms]
        column = replace(column, scale=terms[0][1], more=tuple(terms[1:]), offset=column.offset * size)
    return replace(column, unit="s", channel="time")


def _since_first(clock: Column, table: Table, notes: list[str]) -> Array:
    """The time [s]; of a clock that counts from long ago, the time since the first sample."""
    origin, values = clock.since(table)
    if abs(origin + clock.offset) < _EPOCH:
        return clock.read(table)
    steps = np.diff(values[np.isfinite(values)])
    usual = float(np.median(np.abs(steps))) if len(steps) else 0.0
    # Nanoseconds taken for seconds are said by `problems`, and not hidden here.
    if abs(origin) < 1e10 or usual < 1e3:
        notes.append(f"time counts from {origin + clock.offset:.9g} s; the log has the time since the first sample")
    return values


def _in_unit(column: Column, table: Table, notes: list[str]) -> Column:
    """The mapping with the unit of the file taken into account, if it gives no factor of its own."""
    unit = table.unit(column.column)
    if not unit and (named := _named_unit(column)):
        notes.append(
            f"{column.column!r} is taken as it is, in {column.unit}; if it is in {named[0]}, as its name says, write "
            f"{column.channel}={column.column}*{named[1]:.9g}:{column.unit}"
        )
    if not unit or column.stated or column.more:
        return column
    if not column.unit:
        return replace(column, unit=unit)
    size = factor(unit, column.unit)
    if size is None:
        raise DsoError(
            f"{table.path}: column {column.column!r} is in {unit!r}, as the file says, but is mapped to {column.unit}; give "
            f"the factor, such as {column.channel}={column.column}*FACTOR:{column.unit}."
        )
    if size != 1:
        notes.append(
            f"{column.column!r} is in {unit}, as the file says, and is multiplied by {size:.6g} to be in {column.unit}"
        )
    return replace(column, scale=column.scale * size)


def _named_unit(column: Column) -> tuple[str, float] | None:
    """The unit at the end of a column's name, as in `pos_mm`, and its factor, if the mapping has another one and no factor."""
    unit = re.split(r"[_ ]", column.column.strip())[-1]
    if column.stated or column.more or not column.unit or unit == column.column.strip():
        return None
    unit = {"pct": "%", "percent": "%"}.get(unit.lower(), unit)
    size = factor(unit, column.unit)
    return None if size in (None, 1.0) else (unit, size)


def _use(column: Column, table: Table, kind: str, values: Array) -> Use:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (np.nan, np.nan)
    formula = column.column
    for name, size in column.more:
        formula += f" + {name}*{size:g}"
    unit = table.unit(column.column)
    return Use(formula, unit, column.channel, kind, column.unit, column.scale, low, high)


def _stack(columns: Sequence[Column], table: Table) -> Array | None:
    values = [column.read(table) for column in columns]
    lengths = {column.column: len(v) for column, v in zip(columns, values, strict=True)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{column} {length}" for column, length in lengths.items())
        raise DsoError(
            f"{table.path}: the mapped columns differ in length ({found}); use columns of the same recording."
        )
    return np.stack(values, axis=1) if values else None


def _resampled(rollout: Rollout, rate: float, path: str | Path) -> Rollout:
    try:
        return resample(rollout, 1.0 / rate)
    except DsoError as error:
        raise DsoError(f"{path}: {error}") from error
