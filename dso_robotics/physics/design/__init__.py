"""Design maps: from a few design numbers to the model fields that recompiling the edited MJCF would give.

    design = compose([LimbLength(robot, "shin"), Gear(robot, "knee")], robot)
    fields = design(numbers)

Maps act one after the other, each on what the ones before it left; inertia follows from geometry once, at the end.
Constants that MuJoCo derives from the fields are the engines' business (`constants.set_constants`, `Batch.set_const`).
What its compiler derives once, and a compiled model then holds as a number of its own, stays as it is: springs given by
`springdamper`, gains by `dampratio`, length ranges of muscles, automatic spring lengths of tendons.
"""

from dso_robotics.physics.design.compose import Design, compose
from dso_robotics.physics.design.drive import Gear, SpringReference, SpringStiffness
from dso_robotics.physics.design.joint import JointAxis, JointPosition
from dso_robotics.physics.design.limb import LimbLength, LimbRadius
from dso_robotics.physics.design.map import DesignMap
from dso_robotics.physics.design.scale import UniformScale

__all__ = [
    "Design",
    "DesignMap",
    "Gear",
    "JointAxis",
    "JointPosition",
    "LimbLength",
    "LimbRadius",
    "SpringReference",
    "SpringStiffness",
    "UniformScale",
    "compose",
]
