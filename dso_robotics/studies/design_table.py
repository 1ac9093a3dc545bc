"""Tables of what is designed: numbers of a mechanism, motors, and how those with a few values only are rounded."""

import dataclasses
from typing import Literal

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.map import DESIGN_MAPS, DesignMap
from dso_robotics.physics.model import Robot
from dso_robotics.physics.motor import NUMBERS
from dso_robotics.table import File, Table, key


@dataclasses.dataclass(frozen=True)
class DesignTable(Table):
    """A design number of one thing of the mechanism."""

    kind: str = key("what is designed", choices=DESIGN_MAPS, example="length")
    of: str = key("name of a body, joint, actuator, geom, site or tendon", example="forearm")
    low: float | None = key("lower bound; none: that of the kind", None, example=0.1)
    high: float | None = key("upper bound", None, example=0.6)
    choices: tuple[float, ...] | None = key(
        "the values that it can have; the search takes any between the smallest and the largest, and the result is rounded",
        None, example=[5.0, 10.0, 20.0],
    )  # fmt: skip

    def check(self) -> None:
        """Both bounds or none, and something to choose from."""
        if (self.low is None) != (self.high is None):
            raise DsoError("give low and high together, as numbers, or neither.")
        if self.choices == ():
            raise DsoError("`choices` is empty; give at least two values, such as choices = [5.0, 10.0, 20.0].")

    def map(self, robot: Robot) -> DesignMap:
        """The map of the robot. Raises DsoError for what it does not have."""
        bounds = None if self.low is None else (self.low, self.high)
        more = {} if self.choices is None else {"choices": self.choices}
        return DESIGN_MAPS[self.kind](robot, self.of, bounds=bounds, **more)


@dataclasses.dataclass(frozen=True)
class MotorTable(Table):
    """The motor of an actuator from a table of motors. With several motors or gears to choose from, it is designed."""

    of: str = key("name of the actuator, a motor or a position drive on a hinge or slide", example="knee")
    catalogue: File = key("TOML or CSV file with a motor a row", example="motors.csv")
    motors: tuple[str, ...] | None = key(
        "names of those to choose from; none: all in the file", None, example=["M60", "M80"]
    )
    gears: tuple[float, ...] | None = key(
        "ratios to choose from, turns of the motor for one of the joint; none: each motor's own", None, within="(0, inf)",
        example=[5.0, 10.0, 20.0],
    )  # fmt: skip
    drive: Literal["torque", "voltage"] = key(
        "what a control at the end of its range is. torque: the peak torque, at any speed; voltage: the voltage, so that the "
        "speed-torque line is in the physics. A position drive keeps its law",
        "torque",
    )
    order: str = key("the column by which the search passes from motor to motor", "peak_torque", choices=NUMBERS)
    start: str | None = key("the motor that the search begins with; none: the middle one", None, example="M60")
    site: str | None = key(
        "where the motor's mass is; none: at the joint, on the body that the joint moves against",
        None,
        example="knee_motor",
    )

    def check(self) -> None:
        """Something to choose from."""
        for name, example in (("motors", '["M60", "M80"]'), ("gears", "[5.0, 10.0]")):
            if getattr(self, name) == ():
                raise DsoError(
                    f"`{name}` is empty; leave it out for all of the table, or name some: {name} = {example}."
                )


@dataclasses.dataclass(frozen=True)
class RoundingTable(Table):
    """How `choices` and motors are rounded after the search."""

    tried: int = key("combinations near what the search found that are played", 12, within="[1, 1000]")
    tuned: int = key(
        "of these, how many of the best go on to be trained with what was rounded held; 0: none", 2, within="[0, 100]"
    )
    share: float = key("iterations of that, as a share of those of the search", 0.2, within="(0, 1]")
