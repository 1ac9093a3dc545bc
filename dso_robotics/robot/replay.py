"""The chain of a robot along windows that C MuJoCo simulated: the same states, with their derivatives.

The step of C MuJoCo is no JAX function. But after a window is simulated, the linearisation of each of its steps is known:

    x'(x, u, z) = x'_t + A_t (x - x_t) + B_t (u - u_t) + Z_t (z - z_t)

in tangent coordinates of the state, with the numbers z of the mechanism. At the states of the window this function has the
value and the first derivative of the step, so every cost has too, in forward and in reverse mode. What the watch reads is
linearised in the same way. Nothing of the physics is compiled.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.physics import step as physics
from dso_robotics.robot.filter_jax import Belief, Forecast
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState, Theta


class Seen(eqx.Module):
    """What the watch reads in T states: values (T, w), and derivatives by state (T, w, k), control (T, w, nu), z (T, w, nz).

    by_ctrl is zero unless forces or accelerations are read.
    """

    value: Float[Array, "T w"]
    by_state: Float[Array, "T w k"]
    by_ctrl: Float[Array, "T w nu"]
    by_numbers: Float[Array, "T w nz"]


class Moves(eqx.Module):
    """T steps that C MuJoCo simulated: the bodies after them, and derivatives in tangent coordinates of k = 2 nv + na numbers.

    All derivatives are zero where the simulation diverged.

    believed: what the estimator predicted in the same steps; None without an estimator.
    """

    body: physics.State
    by_state: Float[Array, "T k k"]
    by_ctrl: Float[Array, "T k nu"]
    by_numbers: Float[Array, "T k nz"]
    seen: Seen
    believed: "Believed | None" = None


class Believed(eqx.Module):
    """T predictions of an estimator, as functions of the estimates, the controls and `RobotSystem.believed_numbers`.

    moves: the predicted states, with the readings in them.
    before: the readings in the estimates themselves, which delayed sensors still show; None without such sensors.
    """

    moves: Moves
    before: Seen | None


class Record(eqx.Module):
    """A window of T steps.

    noise: standard normal noise of the actions and readings, (T, noises).
    moves: the steps.
    drawn: what is read in the drawn start, before it is placed.
    start: what is read in the start.
    begun: the readings in the start's estimate, which delayed sensors show at first; None without such sensors.
    """

    noise: Float[Array, "T noises"]
    moves: Moves
    drawn: Seen
    start: Seen
    begun: Seen | None = None


class Linearised(RobotSystem):
    """A robot system whose steps C MuJoCo simulated, as functions with value and first derivative."""

    @property
    def tangent_size(self) -> int:
        """Size k of the tangent space."""
        return 2 * self.mj.nv + self.mj.na

    def read_in(
        self, seen: Seen, change: Float[Array, " k"], ctrl: Float[Array, " nu"] | None, numbers: Float[Array, " nz"]
    ) -> Float[Array, " w"]:
        """What is read in one state, as a function of the change of the state, of the control and of the model's numbers."""
        found = seen.value + seen.by_state @ change + seen.by_numbers @ _moving(numbers)
        return found if ctrl is None else found + seen.by_ctrl @ _moving(ctrl)

    def moving(
        self, moves: Moves, body: physics.State, ctrl: Float[Array, " nu"], numbers: Float[Array, " nz"]
    ) -> tuple[physics.State, Float[Array, " w"]]:
        """The body after one recorded step from `body`, and what is read there."""
        change = moves.by_state @ self.change(body) + moves.by_ctrl @ _moving(ctrl)
        change = change + moves.by_numbers @ _moving(numbers)
        return self.moved(moves.body, change), self.read_in(moves.seen, change, ctrl, numbers)

    def predicting(self, believed: Believed, belief: Belief, ctrl: Float[Array, " nu"], theta: Theta) -> Forecast:
        """One recorded prediction of the estimator, from `belief`."""
        here, numbers = self.body_of(belief.state), self.believed_numbers(theta)
        body, reading = self.moving(believed.moves, here, ctrl, numbers)
        before = believed.before
        if before is not None:
            before = self.read_in(before, self.change(here), belief.ctrl, numbers)
        return Forecast(jnp.concatenate([body.qpos, body.qvel, body.act]), reading, before)

    def body_of(self, state: Float[Array, " nx"]) -> physics.State:
        """An estimate as a body."""
        nq, nv = self.mj.nq, self.mj.nv
        return physics.make_state(self.base, state[:nq], state[nq : nq + nv], state[nq + nv :])

    def change(self, body: physics.State) -> Float[Array, " k"]:
        """Zero, with the derivative of the body's place in tangent coordinates."""
        parts, still = [], jax.lax.stop_gradient(body.qpos)
        for kind, q in zip(self.mj.jnt_type, self.mj.jnt_qposadr, strict=True):
            if kind == mujoco.mjtJoint.mjJNT_FREE:
                parts += [
                    body.qpos[q : q + 3] - still[q : q + 3],
                    _turned(still[q + 3 : q + 7], body.qpos[q + 3 : q + 7]),
                ]
            elif kind == mujoco.mjtJoint.mjJNT_BALL:
                parts.append(_turned(still[q : q + 4], body.qpos[q : q + 4]))
            else:
                parts.append(body.qpos[q : q + 1] - still[q : q + 1])
        return jnp.concatenate([jnp.zeros(0), *parts, _moving(body.qvel), _moving(body.act)])

    def moved(self, body: physics.State, change: Float[Array, " k"]) -> physics.State:
        """The body, with the derivative of `change`, which is zero."""
        nv, parts, at = self.mj.nv, [], 0
        for kind, q in zip(self.mj.jnt_type, self.mj.jnt_qposadr, strict=True):
            if kind == mujoco.mjtJoint.mjJNT_FREE:
                parts.append(body.qpos[q : q + 3] + change[at : at + 3])
                parts.append(_turning(body.qpos[q + 3 : q + 7], change[at + 3 : at + 6]))
                at += 6
            elif kind == mujoco.mjtJoint.mjJNT_BALL:
                parts.append(_turning(body.qpos[q : q + 4], change[at : at + 3]))
                at += 3
            else:
                parts.append(body.qpos[q : q + 1] + change[at : at + 1])
                at += 1
        qpos = jnp.concatenate([jnp.zeros(0), *parts])
        return dataclasses.replace(
            body, qpos=qpos, qvel=body.qvel + change[nv : 2 * nv], act=body.act + change[2 * nv :]
        )


class ReplayedSystem(Linearised):
    """A robot system along one recorded window. Its rollout must begin at the window's start and have its length."""

    record: Record | None = None

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Any:
        """The window's own noise, and its steps."""
        assert self.record is not None
        return self.record.noise, self.record.moves

    def move(self, noise: Any, state: RobotState, theta: Theta) -> RobotState:
        """The step of the window, with its derivative."""
        return _Step(**fields_of(self), now=noise[1]).move(noise[0], state, theta)

    def placed(self, state: RobotState, theta: Theta) -> RobotState:
        """The start, placed at theta, with what is read there."""
        assert self.record is not None
        zero = jnp.zeros(self.tangent_size)
        numbers = self.numbers(theta)
        drawn = eqx.tree_at(lambda s: s.shown, state, self.read_in(self.record.drawn, zero, None, numbers))
        return self.read(self.started(self.placement(self, drawn, theta), theta), theta)

    def begun(self, start: Float[Array, " nx"], ctrl: Float[Array, " nu"], theta: Theta) -> Float[Array, " ny"] | None:
        """See `RobotSystem.begun`."""
        if self.record is None or self.record.begun is None:
            return None
        return self.read_in(self.record.begun, self.change(self.body_of(start)), None, self.believed_numbers(theta))

    def started(self, state: RobotState, theta: Theta) -> RobotState:
        """A state at which the window begins, with what the watch reads there."""
        assert self.record is not None
        shown = self.read_in(self.record.start, self.change(state.body), state.ctrl, self.numbers(theta))
        return eqx.tree_at(lambda s: s.shown, state, shown)


class _Step(ReplayedSystem):
    """A robot system at one recorded step."""

    now: Moves | None = None

    def move(self, noise: Any, state: RobotState, theta: Theta) -> RobotState:
        return RobotSystem.move(self, noise, state, theta)

    def simulated(self, state: RobotState, ctrl: Array, theta: Theta) -> tuple[physics.State, Array | None, Array]:
        assert self.now is not None
        body, shown = self.moving(self.now, state.body, ctrl, self.numbers(theta))
        return body, self.shown_readings(shown), shown

    def foreseen(self, belief: Belief, ctrl: Array, theta: Theta) -> Forecast | None:
        assert self.now is not None
        believed = self.now.believed
        return None if believed is None else self.predicting(believed, belief, ctrl, theta)


def replayed(chain: RobotSystem, record: Record) -> ReplayedSystem:
    """The chain along a recorded window. Its derivatives are those of the physics of C MuJoCo."""
    return ReplayedSystem(**fields_of(chain), record=record)


def fields_of(chain: RobotSystem) -> dict:
    """The parts of a system, to make one of another class."""
    known = {field.name for field in dataclasses.fields(RobotSystem)}
    return {field.name: getattr(chain, field.name) for field in dataclasses.fields(chain) if field.name in known}


def _moving(value: Array) -> Array:
    """Zero, with the derivative of the value."""
    return value - jax.lax.stop_gradient(value)


def _turned(still: Float[Array, "4"], now: Float[Array, "4"]) -> Float[Array, "3"]:
    """Twice the vector part of conj(still) * now: the rotation vector between equal unit quaternions, to first order."""
    w, v = still[0], still[1:]
    return 2.0 * (w * now[1:] - now[0] * v - jnp.cross(v, now[1:]))


def _turning(still: Float[Array, "4"], change: Float[Array, "3"]) -> Float[Array, "4"]:
    """`still` turned by a small rotation vector in its own axes, to first order. NaN has no derivative."""
    w, v = jnp.split(jnp.where(jnp.isfinite(still), still, 0.0), [1])
    return still + 0.5 * jnp.concatenate([-(v @ change)[None], w * change + jnp.cross(v, change)])
