"""The table of a training study on the model that its policy is planned with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.studies.declaration import FREE, MODEL
from dso_robotics.table import Table, key


@dataclasses.dataclass(frozen=True)
class PlanTable(Table):
    """The model that the policy is planned with: the policy is its linear-quadratic regulator about a posture. The study's own
    model stands for the real robot, which this one may describe wrongly.
    """

    model: Any = key(
        "MJCF or URDF file; its joints and actuators are found in the study's model by name",
        **(MODEL | {"example": "plan.xml"}),
    )
    free: tuple[Declaration, ...] = key("numbers of it that are moved by the costs of the study", **FREE)
    keyframe: str | None = key(
        "name of its keyframe with the posture; none: the model's qpos0", None, example="upright"
    )
    position: Mapping[str, float] = key("of joints, in the posture", {}, unit="rad, m", example={"hinge": 0.0})
    position_cost: Mapping[str, float] = key(
        'weight of the square of the position of joints; "*": all others, 1 by default', {}, within="[0, inf)",
        example={"hinge": 20.0, "*": 1.0},
    )  # fmt: skip
    velocity_cost: Mapping[str, float] = key(
        'weight of the square of the velocity of joints; "*": all others, 0 by default', {}, within="[0, inf)",
        example={"*": 0.1},
    )  # fmt: skip
    control_cost: Mapping[str, float] = key(
        'weight of the square of the control of actuators; "*": all others, 1 by default', {}, within="(0, inf)",
        example={"drive": 0.1},
    )  # fmt: skip

    def check(self) -> None:
        """Something to find."""
        if not self.free:
            raise DsoError(
                '`free` is empty, so there is nothing to find; name numbers of this model, such as free = ["body/*/mass"].'
            )
