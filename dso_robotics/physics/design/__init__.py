"""Design maps: from a few design numbers to the model fields that MuJoCo's compiler would give for the edited MJCF.

    design = compose([LimbLength(robot, "shin"), Gear(robot, "knee")], robot)
    fields = design(numbers)

Maps are applied in order, each to the result of the ones before it. Inertia is computed from geometry once, at the end.
The engines compute the constants that MuJoCo derives from the fields (`constants.set_constants`, `Batch.set_const`).
What is fixed to a body moves with it, anchors of connects and welds included; loops stay closed in the reference posture
(`reference.py`), and automatic rest lengths of tendons follow (`tendon.py`). Numbers that MuJoCo's compiler derives once do
not change: springs given by `springdamper`, gains given by `dampratio`.
"""

from dso_robotics.physics.design.compose import Design, compose
from dso_robotics.physics.design.drive import Gear, SpringReference, SpringStiffness
from dso_robotics.physics.design.joint import JointAxis, JointPosition
from dso_robotics.physics.design.limb import LimbLength, LimbRadius
from dso_robotics.physics.design.map import DesignMap
from dso_robotics.physics.design.routing import PulleyRadius, RestLength, SiteX, SiteY, SiteZ
from dso_robotics.physics.design.scale import UniformScale

__all__ = [
    "Design",
    "DesignMap",
    "Gear",
    "JointAxis",
    "JointPosition",
    "LimbLength",
    "LimbRadius",
    "PulleyRadius",
    "RestLength",
    "SiteX",
    "SiteY",
    "SiteZ",
    "SpringReference",
    "SpringStiffness",
    "UniformScale",
    "compose",
]
