"""A trained-size estimator of the test pendulum, for several tests: a log, its windows, a vector."""

import mujoco
import numpy as np

from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot import estimator_start, filter_data
from tests.pendulum import PENDULUM, record


def problem(
    kind: str = "gain", *, seconds: float = 1.0, units: int = 3, free: tuple[str, ...] = ("joint/hinge/damping",)
):
    """(vector, scales, windows) of a pendulum whose mass and friction are wrong."""
    robot = load(mujoco.MjSpec.from_string(PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0)))
    log = record(0, runs=2, seconds=2.0)
    channels = filter_data.select_channels(log, robot.mj, None)
    interval, substeps = filter_data.common_interval(log.rollouts, float(robot.mj.opt.timestep), "log")
    given = filter_data.cut_windows(
        log.rollouts, channels, robot.mj, interval=interval, substeps=substeps, seconds=seconds
    )
    vector, scales = estimator_start.begin(kind, units, given, pack([parse(path) for path in free], robot))
    return vector, scales, given


def anywhere(vector, seed: int = 0) -> np.ndarray:
    """A point with every weight in play, inside the bounds."""
    rng = np.random.default_rng(seed)
    return np.clip(vector.initial + 0.1 * vector.scale * rng.normal(size=vector.size), vector.low, vector.high)
