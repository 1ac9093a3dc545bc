"""What a study's `[network]` table may say."""

import dataclasses

from dso_robotics.robot.joint_network import INPUTS
from dso_robotics.table import Table, key


@dataclasses.dataclass(frozen=True)
class NetworkSettings(Table):
    """Learn what the parameters leave over, as a torque of some joints."""

    joints: tuple[str, ...] = key("joints that get a torque, with wildcards", ("*",))
    inputs: tuple[str, ...] = key("what the torque may depend on", ("velocity",), choices=INPUTS)
    hidden: tuple[int, ...] = key("widths of the layers", (48, 48), within="[1, 100000]")
    iterations: int = key("steps of Adam", 300, within="[1, 100000]")
    batch: int = key("windows a step", 32, within="[1, 100000]")
