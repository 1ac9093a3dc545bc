"""The motors of a study: read from their tables, built into the robot where they are fixed, or as maps of its design."""

import dataclasses
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.motor_table import read_motors
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.design.compose import compose
from dso_robotics.physics.design.motor import MotorChoice, limited_to, with_motors
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, compile_spec
from dso_robotics.physics.motor import Motor
from dso_robotics.studies.design_table import MotorTable


def equipped(study: Any, robot: Robot) -> Robot:
    """The robot with actuators that are ready for the motors of [motor.NAME], and those built in that are not designed.

    Raises:
      DsoError: a table of motors cannot be read, or names what is not there.
    """
    if not study.motor:
        return robot
    _refuse_twice(study)
    robot = with_motors(robot, {table.of: table.drive for table in study.motor.values()})
    fixed = [choice for choice in motor_maps(study, robot).values() if not choice.size]
    if not fixed:
        return robot
    fields = compose(fixed, robot)(np.zeros(0))
    spec = mujoco.MjSpec.from_string(to_mjcf(robot, fields))
    return dataclasses.replace(robot, mj=compile_spec(spec, robot.source), spec=spec)


def motor_maps(study: Any, robot: Robot) -> dict[str, MotorChoice]:
    """The motors of a study by name, of a robot made by `equipped`; those without numbers are fixed."""
    found = {}
    for name, table in study.motor.items():
        try:
            more = {"drive": table.drive, "order": table.order, "start": table.start, "site": table.site}
            choice = MotorChoice(robot, table.of, motors=_chosen_from(table), **more)
            if lacking := choice.unknown(table.order):
                raise DsoError(
                    f"order = '{table.order}': the table says none of motor '{lacking}'; take another column."
                )
        except DsoError as error:
            raise DsoError(f"{study.source}: [motor.{name}]: {error}") from error
        found[name] = choice
    return found


def _chosen_from(table: MotorTable) -> tuple[Motor, ...]:
    """The motors that a table names, with the gears that it allows."""
    rows = {motor.name: motor for motor in read_motors(table.catalogue)}
    names = tuple(rows) if table.motors is None else table.motors
    for name in names:
        if name not in rows:
            raise DsoError(f"{table.catalogue}: there is no motor '{name}'; there are {nearest(name, rows, 8)}.")
    if len(set(names)) < len(names):
        raise DsoError(f"motors = {list(names)}: a name stands there twice; keep one.")
    return limited_to([rows[name] for name in names], table.gears or ())


def _refuse_twice(study: Any) -> None:
    """Raise DsoError if two tables are of one actuator."""
    names: dict[str, str] = {}
    for name, table in study.motor.items():
        if table.of in names:
            raise DsoError(
                f"{study.source}: [motor.{names[table.of]}] and [motor.{name}] are both of actuator '{table.of}'; keep one."
            )
        names[table.of] = name
    for name, table in study.design.items():
        if table.kind == "gear" and table.of in names:
            raise DsoError(
                f"{study.source}: [design.{name}] designs the gear of '{table.of}', whose motor [motor.{names[table.of]}] "
                "comes with its gears; leave it out, and give that table gears = [5.0, 10.0, 20.0]."
            )
