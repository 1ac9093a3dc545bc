"""The state of a robot system, and how starts are drawn."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.physics import step as physics
from dso_robotics.robot.base import displaced
from dso_robotics.robot.filter_jax import Belief

Theta = Float[Array, " n"]
# What a policy observes: the true state (or its noise-free sensors), the noisy readings, or the estimator's belief.
Sees = Literal["state", "readings", "estimate"]
# The physical model that an estimator predicts with: the world's, its own block of theta, or the model file's.
Believes = Literal["world", "own", "nominal"]


class Sensed(eqx.Module):
    """The sensors' part of the state.

    exact: noise-free readings in this state and, newest first, in earlier ones, (oldest + 1, ny). Delayed sensors need them.
    noise: standard normal noise of the reading in this state, (ny,).
    """

    exact: Float[Array, "late ny"]
    noise: Float[Array, " ny"]


class Estimated(eqx.Module):
    """The estimator's part of the state.

    belief: the estimate after the reading of this state.
    innovation: that reading minus its prediction, (ny,), in the sensors' units.
    queue: delayed actions without noise, (delay, nu), oldest first. The estimator knows them.
    """

    belief: Belief
    innovation: Float[Array, " ny"]
    queue: Float[Array, "delay nu"]


class RobotState(eqx.Module):
    """The state x of the chain.

    body: qpos [m, rad], qvel [m/s, rad/s], act, time [s].
    action: the action that was chosen in this step, (nu,), with noise, before squashing.
    ctrl, before: the controls that acted in this step and in the previous one, (nu,).
    queue: delayed actions that do not act yet, (delay, nu), oldest first.
    memory: the policy's memory, (m,).
    context: the episode's numbers, (c,).
    sensed, estimated: None if the system has no sensors of its own, and no estimator.
    shown: what costs and observations read besides (see `robot.watch`), on the C engine; None on MJX.
    """

    body: physics.State
    action: Float[Array, " nu"]
    ctrl: Float[Array, " nu"]
    before: Float[Array, " nu"]
    queue: Float[Array, "delay nu"]
    memory: Float[Array, " m"]
    context: Float[Array, " c"] = eqx.field(default_factory=lambda: jnp.zeros(0))
    sensed: Sensed | None = None
    estimated: Estimated | None = None
    shown: Float[Array, " w"] | None = None


class Starts(eqx.Module):
    """Draws one of the start states (M, ...). The probability of each is proportional to its weight (M,)."""

    states: RobotState
    weight: Float[Array, " M"]

    def __call__(self, key: PRNGKeyArray) -> RobotState:
        """Draw one of the states."""
        index = jax.random.choice(key, self.weight.shape[0], p=self.weight / jnp.sum(self.weight))
        return jax.tree.map(lambda leaf: leaf[index], self.states)


class Spread(eqx.Module):
    """Draws starts around a state: adds normal or uniform noise of the given widths to qpos and qvel, (nv,) each.

    mj: the model, if it has free or ball joints; their positions move as `base.displaced` does.
    error: standard deviation of an estimator's error at the start, in every direction of the tangent space. None: the
      estimator starts at the centre of the distribution.
    smallest: each start takes a share of the widths, drawn log-uniformly from this number to 1.
    """

    state: RobotState
    qpos: Float[Array, " nv"]
    qvel: Float[Array, " nv"]
    uniform: bool = eqx.field(static=True, default=False)
    mj: mujoco.MjModel | None = eqx.field(static=True, default=None)
    error: float | None = eqx.field(static=True, default=None)
    smallest: float = eqx.field(static=True, default=1.0)

    def __call__(self, key: PRNGKeyArray) -> RobotState:
        """Draw one start."""
        draw = (lambda k, n: jax.random.uniform(k, (n,), minval=-1.0)) if self.uniform else _normal
        one, two = jax.random.split(key)
        body = self.state.body
        share = 1.0 if self.smallest == 1.0 else self.smallest ** jax.random.uniform(jax.random.fold_in(key, 2))
        change = share * self.qpos * draw(one, self.qpos.shape[0])
        qpos = body.qpos + change if self.mj is None else displaced(self.mj, body.qpos, change)
        qvel = body.qvel + share * self.qvel * draw(two, body.qvel.shape[0])
        state = eqx.tree_at(lambda s: (s.body.qpos, s.body.qvel), self.state, (qpos, qvel))
        if state.sensed is not None:
            noise = _normal(jax.random.fold_in(key, 0), state.sensed.noise.shape[0])
            state = eqx.tree_at(lambda s: s.sensed.noise, state, noise)
        if state.estimated is not None and self.error is not None:
            # An error in qpos is not normalised for quaternions. `RobotSystem.placed` does that.
            belief = jnp.concatenate([qpos, qvel, body.act])
            off = self.error * _normal(jax.random.fold_in(key, 1), belief.shape[0])
            state = eqx.tree_at(lambda s: s.estimated.belief.state, state, belief + off)
        return state


def _normal(key: PRNGKeyArray, size: int) -> Array:
    return jax.random.normal(key, (size,))
