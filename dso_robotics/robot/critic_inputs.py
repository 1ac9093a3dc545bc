"""What the critic sees of a robot's state: all that the cost after it depends on, whatever the policy sees.

The cost of the state itself is known and not fitted. For what follows, the policy's observation is not enough where a cost
follows a recording (time) or charges changes of the control (the action), or where the policy does not see the whole state.
What else counts is found by trial: parts of states are changed, and costs, observations, accelerations and readings compared.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.core.compiling import quick_jit
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.observation import StateObservation
from dso_robotics.robot.policy import TimedPolicy
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState

_SLIDE, _HINGE = int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE)
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
# States that are tried, and waves of the time over an episode.
_STATES, _WAVES = 12, 8
# Largest change of accelerations and readings, relative to their size, that counts as rounding of the constraint solver.
_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class Dependence:
    """The parts of a state, besides the policy's observation, that the cost after it depends on.

    places: entries of qpos seen as they are: coordinates [m, rad] and the numbers of quaternions.
    angles: hinges without limits, entries of qpos seen as sine and cosine.
    turns: such hinges whose number of turns counts, as in a cost of the angle itself or with a spring.
    moves: whether velocities and activations are hidden.
    time: whether it counts. ctrl: whether the control that acted last does, as where costs charge its changes or the robot
      limits its rate.
    centre, scale: (nq,) of the coordinates.
    seconds: length of an episode [s].
    """

    places: tuple[int, ...] = ()
    angles: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    moves: bool = False
    time: bool = False
    ctrl: bool = False
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    seconds: float = 1.0


class CriticInputs(eqx.Module):
    """The critic's inputs from a robot's state, for one theta.

    The scaled observation, the policy's memory, the queued actions, the drawn context, and what `depends` names. With sensors
    and an estimator also earlier readings that are not yet seen, the estimator's error and its memory: the critic is used in
    training only. Numbers without bounds are seen as arcsinh, which no distance saturates.
    """

    chain: RobotSystem
    theta: Array
    depends: Dependence = eqx.field(static=True)

    def __call__(self, state: RobotState) -> Float[Array, " size"]:
        """The inputs, of order one."""
        chain, depends = self.chain, self.depends
        seen = chain.scaling(chain.observe(state, self.theta))
        state = chain.sound(state)
        parts = [seen, state.memory, self._acting(state.queue), chain.context.normalised(state.context)]
        parts += [self._body(state), self._sensed(state)]
        if depends.time:
            parts.append(self._time(state.body.time))
        if depends.ctrl:
            parts.append(self._placed(state.ctrl))
        return jnp.concatenate(parts)

    def _acting(self, action: Float[Array, "*queue nu"]) -> Float[Array, " k"]:
        """The controls that actions ask for, see `_placed`."""
        return self._placed(self.chain.squash(action))

    def _placed(self, ctrl: Float[Array, "*queue nu"]) -> Float[Array, " k"]:
        """Controls as places in their ranges, -1 to 1; without a range, their arcsinh."""
        squash = self.chain.squash
        return jnp.where(np.array(squash.limited), squash.place(ctrl), jnp.arcsinh(ctrl)).ravel()

    def _body(self, state: RobotState) -> Float[Array, " k"]:
        depends, qpos = self.depends, state.body.qpos
        at, angles = np.array(depends.places + depends.turns, int), qpos[np.array(depends.angles, int)]
        centre, scale = (np.array(row)[at] for row in (depends.centre, depends.scale))
        parts = [jnp.arcsinh((qpos[at] - centre) / scale), jnp.sin(angles), jnp.cos(angles)]
        if depends.moves:
            parts += [jnp.arcsinh(state.body.qvel), jnp.arcsinh(state.body.act)]
        return jnp.concatenate(parts)

    def _sensed(self, state: RobotState) -> Float[Array, " k"]:
        """What sensors and estimator keep besides the body."""
        chain, parts = self.chain, [jnp.zeros(0)]
        if state.sensed is None or chain.sensing is None:
            return parts[0]
        exact = state.sensed.exact
        unit = 10.0 * chain.sensing.sigma if chain.filter is None else chain.filter.scales.innovation
        parts.append(jnp.arcsinh((exact[1:] - exact[:1]) / unit).ravel())
        if chain.filter is None or state.estimated is None:
            return jnp.concatenate(parts)
        space, belief, body = Space(chain.mj), state.estimated.belief, state.body
        truth = jnp.concatenate([body.qpos, body.qvel, body.act])
        off = space.difference(belief.state, truth) / (10.0 * chain.filter.scales.change)
        past = (belief.past - exact[1:]) / unit
        parts += [jnp.arcsinh(off), jnp.tanh(belief.memory), jnp.arcsinh(past).ravel()]
        parts.append(self._acting(state.estimated.queue))
        return jnp.concatenate(parts)

    def _time(self, time: Array) -> Float[Array, " k"]:
        """The time as a part of an episode, cosine waves of it, and what a timed policy sees of it."""
        part = time / self.depends.seconds
        waves = jnp.cos(jnp.pi * part * jnp.arange(1, _WAVES + 1))
        own = self.chain.policy.features(time) if isinstance(self.chain.policy, TimedPolicy) else jnp.zeros(0)
        return jnp.concatenate([jnp.atleast_1d(2.0 * part - 1.0), waves, own])


def dependence(chain: RobotSystem, explore: Callable[[Any], RobotState], steps: int) -> Dependence:
    """What the cost after a state of a chain depends on, by trial on states from its start and from `explore`.

    steps: control steps of an episode.
    """
    seconds = steps * chain.control_step
    states = _tried(chain, explore, seconds)
    qpos = np.asarray(states.body.qpos, float)
    sure, angles, shifts = _hidden(chain)
    rng = np.random.default_rng(0)
    draws = {entry: size * rng.uniform(0.2, 1.0, _STATES) * rng.choice([-1.0, 1.0], _STATES) for entry, size in shifts}
    turning = [entry for entry, _ in shifts if entry in _unlimited(chain.mj)]
    for entry in turning:
        draws[entry] = 2 * np.pi * rng.choice([-2.0, -1.0, 1.0, 2.0], _STATES)
    found = _by_physics(chain, states, draws) | {entry for entry in draws if _fixed(chain.mj) and entry not in turning}
    changed = {str(entry): _shifted(states, entry, shift) for entry, shift in draws.items() if entry not in found}
    changed |= _besides(chain, states, rng, seconds)
    counts = _by_costs(chain, states, changed)
    found |= {entry for entry in draws if str(entry) in counts}
    whole = chain.sees == "state" and isinstance(chain.observation, StateObservation)
    return Dependence(
        places=tuple(sorted(sure | found - set(turning))),
        angles=tuple(sorted(angles)),
        turns=tuple(entry for entry in turning if entry in found),
        moves=not whole,
        time="time" in counts or isinstance(chain.policy, TimedPolicy),
        # The control of now is the one before in the next state.
        ctrl="before" in counts or chain.squash.slow,
        centre=tuple(map(float, qpos.mean(0))),
        scale=tuple(map(float, _scales(chain.mj, qpos))),
        seconds=seconds,
    )


def _unlimited(mj: mujoco.MjModel) -> set[int]:
    """Entries of qpos of hinges without limits."""
    hinges = (mj.jnt_type == _HINGE) & (mj.jnt_limited == 0)
    return {int(q) for q in mj.jnt_qposadr[hinges]}


def _hidden(chain: RobotSystem) -> tuple[set[int], set[int], list[tuple[int, float]]]:
    """Entries of qpos that the policy does not see: those seen plainly, those seen as sine and cosine, and those to be tried.

    To try, with the size of the change: coordinates that shift the whole robot, and hinges that turn without end.
    """
    mj, unlimited = chain.mj, _unlimited(chain.mj)
    seen: set[int] = set()
    if chain.sees == "state" and isinstance(chain.observation, StateObservation):
        seen = {*chain.observation.plain, *chain.observation.turning}
    shifts = [(entry, 1.0) for entry in sorted(unlimited)]
    for kind, q in zip(mj.jnt_type, mj.jnt_qposadr, strict=True):
        width = {_SLIDE: 1, _FREE: 3}.get(int(kind), 0)
        shifts += [(int(q) + k, 4.0 * float(mj.stat.extent)) for k in range(width) if int(q) + k not in seen]
    tried = {entry for entry, _ in shifts}
    return set(range(mj.nq)) - seen - tried - unlimited, unlimited - seen, shifts


def _fixed(mj: mujoco.MjModel) -> bool:
    """Whether something is fixed to the world that a robot may meet somewhere, other than planes."""
    world = mj.body_weldid[mj.geom_bodyid] == 0
    meets = (mj.geom_contype != 0) | (mj.geom_conaffinity != 0)
    return bool(np.any(world & meets & (mj.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)))


def _scales(mj: mujoco.MjModel, qpos: np.ndarray) -> np.ndarray:
    """Typical sizes (nq,) of the coordinates: 1 rad, and of lengths the spread of the tried states or a tenth of the robot."""
    scale = np.ones(mj.nq)
    for kind, q in zip(mj.jnt_type, mj.jnt_qposadr, strict=True):
        at = slice(int(q), int(q) + {_SLIDE: 1, _FREE: 3}.get(int(kind), 0))
        scale[at] = np.maximum(qpos[:, at].std(0), 0.1 * max(float(mj.stat.extent), 1e-6))
    return scale


def _tried(chain: RobotSystem, explore: Callable[[Any], RobotState], seconds: float) -> RobotState:
    """States (M, ...), half of them from `explore`, that move, at any time of an episode, after random actions."""

    def one(key: Any, wide: Array) -> RobotState:
        keys = jax.random.split(key, 6)
        state = jax.tree.map(lambda a, b: jnp.where(wide, a, b), explore(keys[0]), chain.start(keys[0]))
        body = dataclasses.replace(
            state.body,
            qvel=state.body.qvel + jax.random.normal(keys[1], state.body.qvel.shape),
            act=jax.random.uniform(keys[2], state.body.act.shape),
            time=jax.random.uniform(keys[3], maxval=seconds),
        )
        action, before = jax.random.normal(keys[4], (2, *state.action.shape))
        controls = {"ctrl": chain.squash(action), "before": chain.squash(before)}
        return dataclasses.replace(state, body=body, action=action, **controls)

    return quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(0), _STATES), jnp.arange(_STATES) % 2 == 0)


def _shifted(states: RobotState, entry: int, shift: np.ndarray) -> RobotState:
    return eqx.tree_at(lambda s: s.body.qpos, states, states.body.qpos.at[:, entry].add(shift))


def _besides(chain: RobotSystem, states: RobotState, rng: np.random.Generator, seconds: float) -> dict[str, RobotState]:
    """States with another time, and with another control before."""
    other = jax.vmap(chain.squash)(jnp.asarray(rng.normal(size=states.before.shape)))
    return {
        "time": eqx.tree_at(lambda s: s.body.time, states, jnp.asarray(seconds * rng.uniform(size=_STATES))),
        "before": dataclasses.replace(states, before=other),
    }


def _by_physics(chain: RobotSystem, states: RobotState, draws: dict[int, np.ndarray]) -> set[int]:
    """Entries of qpos whose change by `draws` changes accelerations, or readings of the system's sensors, on C MuJoCo."""
    model = copy.copy(chain.mj)
    model.opt.tolerance, model.opt.iterations = 1e-12, max(int(model.opt.iterations), 200)
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_WARMSTART)
    data, columns = mujoco.MjData(model), list(chain.sensing.addresses) if chain.sensing is not None else []
    body, ctrl = jax.tree.map(np.asarray, states.body), np.asarray(states.ctrl)

    def moved(m: int, entry: int | None = None) -> np.ndarray:
        data.qpos[:], data.qvel[:], data.ctrl[:] = body.qpos[m], body.qvel[m], ctrl[m]
        if model.na:
            data.act[:] = body.act[m]
        if entry is not None:
            data.qpos[entry] += draws[entry][m]
        mujoco.mj_forward(model, data)
        return np.concatenate([data.qacc, data.act_dot, data.sensordata[columns]])

    found: set[int] = set()
    for m in range(_STATES if draws else 0):
        here = moved(m)
        size = 1.0 + np.abs(here).max(initial=0.0)
        found |= {
            e for e in draws if e not in found and not np.abs(moved(m, e) - here).max(initial=0.0) <= _ROUNDING * size
        }
    return found


def _by_costs(chain: RobotSystem, states: RobotState, changed: dict[str, RobotState]) -> set[str]:
    """Which of the changed states (M, ...) have another cost, or look different to the policy."""
    theta = jnp.asarray(chain.layout.initial)
    if not getattr(chain.scene_cost, "names", ("cost",)):
        return set()

    def look(state: RobotState) -> Float[Array, " k"]:
        bound = chain.bind(theta, state)
        state = bound.watched(state, theta)
        scene = bound.scene(state, theta)
        costs = jnp.atleast_1d(getattr(chain.scene_cost, "terms", chain.scene_cost)(scene))
        ends = jnp.zeros(0) if chain.termination is None else jnp.atleast_1d(1.0 * chain.termination(scene))
        return jnp.concatenate([costs, bound.observe(state, theta), ends])

    every = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), states, *changed.values())
    rows = np.asarray(quick_jit(jax.vmap(look))(every))
    here, others = rows[:_STATES], rows[_STATES:].reshape(len(changed), _STATES, -1)
    least = np.sqrt(np.finfo(rows.dtype).eps) * (1.0 + np.abs(here))
    differs = ~(np.abs(others - here) <= least) & np.isfinite(here)
    return {name for name, different in zip(changed, differs, strict=True) if different.any()}
