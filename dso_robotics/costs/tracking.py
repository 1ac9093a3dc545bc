"""Tracking: the distance of the robot's joints to a recorded motion at the same time, a time-varying cost."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.costs.task import Term
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot
from dso_robotics.robot.scene import Scene


class Tracking(Term):
    """Mean squared distance of qpos to the recording at the state's own time, in units of `scale` [rad, m].

    time: (T,) [s] from 0.
    qpos: (T, nq). After the end of the recording, its last posture is the target.
    """

    time: Float[Array, " T"]
    qpos: Float[Array, "T nq"]
    scale: float = eqx.field(static=True, default=0.1)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The distance."""
        wanted = jnp.stack([jnp.interp(scene.state.time, self.time, column) for column in self.qpos.T])
        return jnp.mean(((scene.state.qpos - wanted) / self.scale) ** 2)


def tracking(rollout: Rollout, robot: Robot, *, scale: float = 0.1, source: str = "log") -> Tracking:
    """The term for one recorded rollout.

    Raises:
      DsoError: the rollout has no qpos of this model, or the model has ball or free joints.
    """
    qpos: Any = rollout.qpos
    if qpos is None or np.shape(qpos)[1:] != (robot.mj.nq,) or not np.all(np.isfinite(qpos)):
        raise DsoError(
            f"{source}, rollout {rollout.name}: tracking needs recorded qpos of all {robot.mj.nq} coordinates of "
            f"{robot.source}; `dso simulate` writes them."
        )
    if robot.mj.nq != robot.mj.nv:
        raise DsoError(
            f"{robot.source}: tracking compares joint coordinates, and a ball or free joint has quaternions."
        )
    time = np.asarray(rollout.time) - rollout.time[0]
    return Tracking(jnp.asarray(time), jnp.asarray(qpos), float(scale))
