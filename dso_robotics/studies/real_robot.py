"""A robot that training does not see, with its own physics and sensors, on which a result is judged."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import mujoco
import numpy as np

from dso_robotics.data.match import sensor_channels
from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.path import Declaration, has_noise, noise_named
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load
from dso_robotics.robot.play import Reality
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies.action import driven
from dso_robotics.studies.motors import equipped
from dso_robotics.studies.train_study import TrainStudy


@dataclasses.dataclass(frozen=True, eq=False)
class RealRobot:
    """The robot of [judge].

    robot: as loaded.
    fields: model fields of the values that were given.
    sensors: scale, bias, delay [s] and log noise of its channels; None without [sensors].
    """

    robot: Robot
    fields: Mapping[str, np.ndarray]
    sensors: Reality | None

    def model(self, design: Mapping[str, np.ndarray] = MappingProxyType({})) -> mujoco.MjModel:
        """The compiled model, with the model fields of a `design`: it is built as designed."""
        fields = {**self.fields, **design}
        return mujoco.MjModel.from_xml_string(to_mjcf(self.robot, fields)) if fields else self.robot.mj


def real_robot(study: TrainStudy, chain: RobotSystem) -> RealRobot:
    """The robot of [judge].

    Raises:
      DsoError: it is another kind of robot than the study's, or a value is of a path that it does not have.
    """
    table = study.judge
    assert table is not None
    source = f"{study.source}: [judge]"
    if all(cost.supervised for cost in study.cost.values()):
        raise DsoError(f"{source}: no cost is of the motion, so there is nothing to judge by; leave it out.")
    try:
        robot = driven(study.action, load(study.model if table.model is None else table.model))
    except DsoError as error:
        raise DsoError(f"{source} {error}") from error
    robot = equipped(study, robot)
    ours, theirs = chain.mj, robot.mj
    sizes = ("nq", "nv", "nu", "na", "nsensordata")
    if any(getattr(ours, name) != getattr(theirs, name) for name in sizes) or set(sensor_channels(ours)) != set(
        sensor_channels(theirs)
    ):
        raise DsoError(f"{source} {robot.source}: has other joints, actuators or sensors than the study's model.")
    if ours.opt.timestep != theirs.opt.timestep:
        raise DsoError(
            f"{source} {robot.source}: its time step is {theirs.opt.timestep:g} s and the study's {ours.opt.timestep:g} s; "
            "give both models the same."
        )
    noise = {path: value for path, value in table.values.items() if noise_named(path)}
    rest = [Declaration(path, init=value) for path, value in table.values.items() if path not in noise]
    try:
        vector = pack(rest, robot) if rest else None
    except DsoError as error:
        raise DsoError(f"{source} {error}") from error
    fields = {} if vector is None else vector.fields(vector.initial)
    if chain.mechanism is not None and chain.mechanism.design is not None:
        both = set(fields) & set(chain.mechanism.design(chain.mechanism.design.initial))
        if both:
            raise DsoError(
                f"{source} values: they and the design both set the model's {', '.join(sorted(both))}; give the judge a model "
                "file with these values in the place of `values`."
            )
    if chain.sensing is None:
        if noise or (vector is not None and vector.signals(vector.initial)):
            raise DsoError(f"{source} values: a sensor is named, but the study has no [sensors] table; add one.")
        return RealRobot(robot, fields, None)
    names, at = chain.sensing.names, np.array(chain.sensing.addresses, int)
    scale, bias, late = chain.sensing.plain
    if vector is not None:
        scale, bias = vector.sensors(vector.initial, at)
        known = vector.late(vector.initial, at)
        late = late if known is None else known
    if np.any(late > chain.sensing.oldest * chain.sensing.interval + 1e-9):
        raise DsoError(
            f"{source} values: a sensor is {1e3 * np.max(late):g} ms late, longer than the study simulates; free that sensor's "
            "delay with an upper bound above it."
        )
    sigma = np.array(chain.sensing.sigma)
    for path, value in noise.items():
        named = noise_named(path)
        mine = [c for c, part in enumerate(chain.sensing.parts) if named and has_noise(named, *part)]
        if not mine or not value > 0:
            what = "is not positive" if mine else f"is of no channel that is read; those are {nearest(path, names, 8)}"
            raise DsoError(f"{source} values: {path} = {value:g} {what}.")
        sigma[mine] = value
    return RealRobot(robot, fields, (np.asarray(scale), np.asarray(bias), np.asarray(late), np.log(sigma)))
