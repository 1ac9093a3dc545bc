"""Cloning: -log-likelihood of recorded actions under the policy; supervised, so it needs no rollout of the chain."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.costs.recorded import recorded_states
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.robot import noise
from dso_robotics.robot.observation import StateObservation
from dso_robotics.robot.stepwise import differentiable
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState


class Cloning(eqx.Module):
    """Mean of -log N(u; pi(x, theta), Sigma) over all recorded numbers u of actions, before squashing.

    A policy that observes readings or an estimate sees the readings of the recorded state, without noise, or that state.

    Sigma comes from theta, even if a schedule changes the noise of the simulated actions.
    """

    states: RobotState
    actions: Float[Array, "M nu"]

    def __call__(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The mean over all numbers."""
        chain = differentiable(chain)
        shows = chain.sees == "readings" or not isinstance(chain.observation, StateObservation)

        def one(state: RobotState, action: Array) -> Array:
            state = chain.watched(state, theta) if shows else state
            mean, _ = chain.act(chain.read(state, theta), theta)
            return -noise.log_density(action - mean, chain.layout.split(theta)["action noise"])

        return jnp.sum(jax.vmap(one)(self.states, self.actions)) / self.count

    @property
    def count(self) -> int:
        """How many numbers of actions there are."""
        return int(np.size(self.actions))


def cloning(rollouts: list[Rollout], chain: RobotSystem, *, source: str = "log") -> Cloning:
    """The cost of the given rollouts, whose qpos, qvel and ctrl must be recorded at the same times.

    Raises:
      DsoError: states or controls are missing or of another width, or the policy has a memory, which no log holds.
    """
    if chain.policy.memory:
        raise DsoError(
            f"{source}: a log does not hold what a recurrent policy remembers; clone a policy without memory."
        )
    mj, parts = chain.mj, []
    for rollout in rollouts:
        state, ctrl = recorded_states(rollout, mj, source, "cloning"), rollout.ctrl
        if ctrl is None or np.shape(ctrl) != (len(rollout.time), mj.nu) or not np.all(np.isfinite(ctrl)):
            raise DsoError(
                f"{source}, rollout {rollout.name!r}: cloning needs ctrl of width {mj.nu} at every time; it is missing or does "
                "not fit the model."
            )
        parts.append([state[:, : mj.nq], state[:, mj.nq :], np.asarray(ctrl)])
    if not parts:
        raise DsoError(f"{source}: there is no rollout to clone.")
    qpos, qvel, ctrl = (np.concatenate(column) for column in zip(*parts, strict=True))
    states = jax.vmap(lambda q, v: chain.rest(q, v))(jnp.asarray(qpos), jnp.asarray(qvel))
    return Cloning(states, chain.squash.action(jnp.asarray(ctrl)))
