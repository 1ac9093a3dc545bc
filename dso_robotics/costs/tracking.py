"""Tracking: the distance of the robot's joints to a recorded motion at the same time, a time-varying cost."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.costs.task import Term
from dso_robotics.data.quaternion import Places, continuous
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.scene import Scene


class Tracking(Term):
    """Mean squared distance of qpos to the recording at the state's own time, in units of `scale` [rad, m].

    A rotation of a ball or free joint counts by its rotation vector [rad].

    time: (T,) [s] from 0.
    qpos: (T, nq). After the end of the recording, its last posture is the target.
    space: the states of a model with ball or free joints, else None.
    """

    time: Float[Array, " T"]
    qpos: Float[Array, "T nq"]
    scale: float = eqx.field(static=True, default=0.1)
    space: Space | None = eqx.field(static=True, default=None)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The distance."""
        wanted, here = (
            jnp.stack([jnp.interp(scene.state.time, self.time, column) for column in self.qpos.T]),
            scene.state,
        )
        if self.space is None:
            return jnp.mean(((here.qpos - wanted) / self.scale) ** 2)
        none = jnp.zeros(self.space.nv + self.space.na)
        # Moving by nothing normalises the interpolated quaternions.
        target = self.space.move(jnp.concatenate([wanted, none]), jnp.zeros(self.space.size))
        gap = self.space.difference(target, jnp.concatenate([here.qpos, none]))[: self.space.nv]
        return jnp.mean((gap / self.scale) ** 2)


def tracking(rollout: Rollout, robot: Robot, *, scale: float = 0.1, source: str = "log") -> Tracking:
    """The term for one recorded rollout.

    Raises:
      DsoError: the rollout has no qpos of this model.
    """
    qpos: Any = rollout.qpos
    if qpos is None or np.shape(qpos)[1:] != (robot.mj.nq,) or not np.all(np.isfinite(qpos)):
        raise DsoError(
            f"{source}, rollout {rollout.name}: tracking needs recorded qpos of all {robot.mj.nq} coordinates of "
            f"{robot.source}; `dso simulate` writes them."
        )
    time = np.asarray(rollout.time) - rollout.time[0]
    flat = robot.mj.nq == robot.mj.nv
    space = None if flat else Space(robot.mj)
    # Each quaternion is on the side of the one before, so that they can be interpolated.
    qpos, _ = continuous(np.asarray(qpos, float), _quaternions(robot.mj))
    return Tracking(jnp.asarray(time), jnp.asarray(qpos), float(scale), space)


def _quaternions(model: mujoco.MjModel) -> Places:
    """The four places in qpos of each free or ball joint's orientation."""
    offsets = {int(mujoco.mjtJoint.mjJNT_FREE): 3, int(mujoco.mjtJoint.mjJNT_BALL): 0}
    starts = [
        int(start) + offsets[int(kind)]
        for kind, start in zip(model.jnt_type, model.jnt_qposadr, strict=True)
        if int(kind) in offsets
    ]
    return tuple(tuple(range(start, start + 4)) for start in starts)
