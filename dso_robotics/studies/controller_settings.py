"""What a study's `[controller.ACTUATOR]` tables may say."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from dso_robotics.errors import DsoError
from dso_robotics.parameters.gains import BIAS
from dso_robotics.physics.model import nearest
from dso_robotics.robot.controller import Controller

_EXAMPLES = {
    "gains": "gains = { elbow_pos = -5.0, elbow_vel = -0.2 }",
    "reference": 'reference = { elbow_pos = "elbow_target" }',
    "bias": "bias = 0.0",
    "hold": "hold = true",
}


def read_controllers(tables: Mapping[str, Any]) -> tuple[Controller, ...]:
    """The controllers of a study, by actuator.

    Raises:
      DsoError: a table is none, has an unknown key or an impossible value, or refers to a signal that has no gain.
    """
    return tuple(_controller(name, table) for name, table in tables.items())


def _controller(actuator: str, table: Any) -> Controller:
    where = f"controller.{actuator}"
    known = {f.name for f in dataclasses.fields(Controller)} - {"actuator"}
    if not isinstance(table, Mapping):
        raise DsoError(
            f"{where} is {table!r}; a controller is a table of its own, [controller.ACTUATOR] with {_EXAMPLES['gains']}."
        )
    for key in table:
        if key not in known:
            raise DsoError(f"{where}: unknown key '{key}'; it has {nearest(key, sorted(known), len(known))}.")
    gains, reference = table.get("gains"), table.get("reference", {})
    if not isinstance(gains, Mapping) or not all(map(_number, gains.values())):
        raise DsoError(
            f"{where}: gains is {gains!r}; give the factor of each signal, such as {_EXAMPLES['gains']}; 0.0 begins a search "
            "that knows nothing."
        )
    if BIAS in gains:
        raise DsoError(f"{where}: the constant is a key of its own; write {_EXAMPLES['bias']} beside gains.")
    if not isinstance(reference, Mapping) or not all(isinstance(v, str) or _number(v) for v in reference.values()):
        raise DsoError(
            f"{where}: reference is {reference!r}; give a channel or a number for a signal, such as {_EXAMPLES['reference']}."
        )
    for signal in reference:
        if signal not in gains:
            raise DsoError(
                f"{where}: reference names '{signal}', which has no gain; the signals are {', '.join(gains) or 'none'}."
            )
    for key, sound in (("bias", _number), ("hold", lambda value: isinstance(value, bool))):
        if key in table and not sound(table[key]):
            raise DsoError(f"{where}: {key} is {table[key]!r}; write {_EXAMPLES[key]}.")
    return Controller(
        actuator,
        {name: float(value) for name, value in gains.items()},
        dict(reference),
        float(table.get("bias", 0.0)),
        bool(table.get("hold", False)),
    )


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e100
    )
