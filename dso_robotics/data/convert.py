"""Converts tables to logs: which column is which channel, in which unit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Array, Rollout, listed, nearest
from dso_robotics.data.table import Table, read_table
from dso_robotics.errors import DsoError

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_ARITHMETIC = re.compile(rf"^(?P<column>.+?)(?:\*(?P<scale>[+-]?{_NUMBER}))?(?P<offset>[+-]{_NUMBER})?$")


@dataclass(frozen=True)
class Column:
    """A channel made from a column: `channel = column * scale + offset`. `unit` is the unit after scaling ("" if unknown)."""

    channel: str
    column: str
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""

    def read(self, table: Table) -> Array:
        """Values (T,) of the channel."""
        return table.column(self.column) * self.scale + self.offset


def parse_column(text: str, columns: Sequence[str]) -> Column:
    """Parse `channel=column[*scale][+offset][:unit]`, or `column` alone if channel and column have the same name.

    If the text is one of `columns`, it is the name of that column, so names may contain `*`, `+`, `-` and `:`.
    Raises DsoError listing `columns` when the column is not one of them.
    """
    channel, equals, expression = text.partition("=")
    channel, expression = (channel.strip(), expression.strip()) if equals else ("", text.strip())
    unit, scale, offset, name = "", 1.0, 0.0, expression
    if name not in columns and ":" in name:
        name, _, unit = (part.strip() for part in name.rpartition(":"))
    if name not in columns and (match := _ARITHMETIC.match(name.replace(" ", ""))):
        name = match["column"]
        scale, offset = float(match["scale"] or 1.0), float(match["offset"] or 0.0)
    if name not in columns:
        raise DsoError(
            f"{text!r}: there is no column {name!r}.{nearest(name, tuple(columns))} The file's columns: "
            f"{listed(tuple(columns))}. Write channel=column[*scale][+offset][:unit], such as angle=ticks*0.0015:rad."
        )
    return Column(channel or name, name, scale, offset, unit)


def convert_table(
    path: str | Path,
    ctrl: Sequence[str] = (),
    sensors: Sequence[str] = (),
    *,
    time: str = "time",
    rate: float | None = None,
    name: str | None = None,
    split_gap: float | None = None,
    hold_ctrl: bool = False,
) -> tuple[Rollout, ...]:
    """Rollouts from one CSV or NPZ file.

    ctrl, sensors: mappings in the format of `parse_column`.
    time: mapping of the time column [s]; `t*0.001` for milliseconds.
    rate: samples per second [Hz], for files without a time column.
    name: name of the rollout; the file's stem if None.
    hold_ctrl: an empty cell of a control takes the previous value; otherwise it is an error.
    split_gap: a new rollout, called `name.1`, `name.2`, ..., begins after a pause longer than this [s]. A piece of one sample
      is dropped.
    Empty cells of sensors become NaN: not measured.
    Raises DsoError naming the file and the column.
    """
    table = read_table(path)
    if not ctrl and not sensors:
        raise DsoError(
            f"{path}: nothing to convert; map at least one channel with --ctrl or --sensor. The file's columns: "
            f"{listed(table.names)}."
        )
    if rate is not None and not rate > 0:
        raise DsoError(f"{path}: the rate is {rate:g} Hz; give a positive number of samples per second.")
    ctrl_columns = [_parse(text, table) for text in ctrl]
    sensor_columns = [_parse(text, table) for text in sensors]
    controls, measured = _stack(ctrl_columns, table), _stack(sensor_columns, table)
    samples = len(measured if measured is not None else controls if controls is not None else ())
    stamps = np.arange(samples) / rate if rate is not None else _parse(time, table).read(table)
    arrays = {"time": stamps, "ctrl": controls, "sensordata": measured}
    lengths = {kind: len(values) for kind, values in arrays.items() if values is not None}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{kind} {length}" for kind, length in lengths.items())
        raise DsoError(f"{path}: the mapped columns differ in length ({found}); use columns of the same recording.")
    if controls is not None and hold_ctrl:
        controls = _held(controls)
    labels: dict[str, Any] = {
        "ctrl_names": tuple(c.channel for c in ctrl_columns),
        "ctrl_units": tuple(c.unit for c in ctrl_columns),
        "sensor_names": tuple(c.channel for c in sensor_columns),
        "sensor_units": tuple(c.unit for c in sensor_columns),
    }
    stem = Path(path).stem if name is None else name
    pieces = [piece for piece in _pieces(stamps, split_gap) if piece.stop - piece.start > 1 or split_gap is None]
    if not pieces:
        raise DsoError(f"{path}: time pauses for over {split_gap:g} s after every sample; split at longer pauses.")
    rollouts = []
    for number, piece in enumerate(pieces):
        try:
            rollout = Rollout(
                name=stem if number == 0 else f"{stem}.{number}",
                time=stamps[piece],
                ctrl=None if controls is None else controls[piece],
                sensordata=None if measured is None else measured[piece],
                **labels,
            )
        except DsoError as error:
            raise DsoError(f"{path}: {error}") from error
        rollouts.append(rollout)
    return tuple(rollouts)


def rescale(log: Log, scales: Mapping[str, tuple[float, str]]) -> Log:
    """The log with channels multiplied by a factor and given a new unit: `{"angle": (0.0174533, "rad")}`.

    Raises DsoError listing the channels when a channel is in no rollout.
    """
    known = tuple(dict.fromkeys(name for r in log.rollouts for name in (*r.ctrl_names, *r.sensor_names)))
    for name, (factor, _) in scales.items():
        if name not in known:
            raise DsoError(
                f"{log.label}: has no channel {name!r}.{nearest(name, known)} Its channels: {listed(known)}."
            )
        if not np.isfinite(factor) or factor == 0:
            raise DsoError(
                f"{log.label}: channel {name!r} cannot be scaled by {factor:g}; give a finite factor, not 0."
            )
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


def _parse(text: str, table: Table) -> Column:
    try:
        return parse_column(text, table.names)
    except DsoError as error:
        raise DsoError(f"{table.path}: {error}") from error


def _stack(columns: Sequence[Column], table: Table) -> Array | None:
    values = [column.read(table) for column in columns]
    lengths = {column.column: len(v) for column, v in zip(columns, values, strict=True)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{column} {length}" for column, length in lengths.items())
        raise DsoError(
            f"{table.path}: the mapped columns differ in length ({found}); use columns of the same recording."
        )
    return np.stack(values, axis=1) if values else None


def _held(values: Array) -> Array:
    """Each NaN replaced by the last number before it. A NaN without a number before it stays and is refused later."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0)


def _pieces(time: Array, split_gap: float | None) -> list[slice]:
    cuts = [] if split_gap is None else (np.flatnonzero(np.diff(time) > split_gap) + 1).tolist()
    edges = [0, *cuts, len(time)]
    return [slice(a, b) for a, b in pairwise(edges)]
