"""Simulates a chain on C MuJoCo: whole episodes without noise, and batches of short windows with noise."""

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
from mujoco import batch

from dso_robotics.physics import step as physics
from dso_robotics.physics.batch import set_fields
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T control steps.

    time: (T+1,) [s].
    qpos: (T+1, nq) [m, rad].
    qvel: (T+1, nv) [m/s, rad/s].
    ctrl: controls, (T, nu).
    terms: weighted cost terms, (T, k).
    ended: whether the simulation diverged early. The arrays then have fewer rows.
    readings: noisy readings, (T+1, ny); None if the system has no sensors of its own.
    estimate: the estimator's states, (T+1, nq+nv+na); None without an estimator.
    """

    time: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    terms: np.ndarray
    ended: bool
    readings: np.ndarray | None = None
    estimate: np.ndarray | None = None

    @property
    def cost(self) -> float:
        """Sum of all terms."""
        return float(self.terms.sum())


Reality = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Scale, bias, delay [s] and log standard deviation of the sensors, (ny,) each."""


class Player:
    """Plays episodes of one chain on C MuJoCo. The policy, the estimator and the cost are compiled once."""

    def __init__(self, chain: RobotSystem):
        self.chain = chain

        def decide(theta: Any, scaling: Scaling, reality: Any, state: RobotState) -> tuple[Any, Any]:
            here = eqx.tree_at(lambda c: c.scaling, _real(chain, reality), scaling)
            return here.bind(theta, state).act(state, theta)

        def scene_cost(theta: Any, state: RobotState) -> Any:
            terms: Any = chain.scene_cost
            return terms.terms(chain.bind(theta, state).scene(state, theta))

        def arrive(
            theta: Any, reality: Any, state: RobotState, body: Any, exact: Any, action: Any, memory: Any, more: Any
        ) -> tuple[RobotState, Any]:
            here = _real(chain, reality).bind(theta, state)
            following = here.arrived(body, exact, action, memory, state, theta, intended=more[0], noise=more[1])
            return following, here.reading(following, theta)

        def read(theta: Any, reality: Any, state: RobotState) -> Any:
            return _real(chain, reality).reading(state, theta)

        self._decide: Callable[..., Any] = jax.jit(decide)
        self._arrive: Callable[..., Any] = jax.jit(arrive)
        self._read: Callable[..., Any] = jax.jit(read)
        self._scene_cost: Callable[..., Any] = jax.jit(jax.vmap(scene_cost, in_axes=(None, 0)))

        def start(theta: Any, key: Any, context: Any) -> RobotState:
            state = chain.start(key)
            state = state if context is None else eqx.tree_at(lambda s: s.context, state, context)
            return chain.placed(state, theta)

        self._start: Callable[..., Any] = jax.jit(start)

    def start(self, theta: Any, seed: int, context: np.ndarray | None = None) -> RobotState:
        """The start of an episode drawn with `seed`; its context too, unless it is given."""
        given = None if context is None else jnp.asarray(context)
        return self._start(jnp.asarray(theta), jax.random.key(seed), given)

    def play(
        self,
        theta: np.ndarray,
        scaling: Scaling,
        *,
        steps: int,
        seed: int = 0,
        model: Any = None,
        finer: int = 1,
        context: np.ndarray | None = None,
        noise: Float[np.ndarray, "T noises"] | None = None,
        sensors: Reality | None = None,
    ) -> Episode:
        """Simulate one episode from a start drawn with `seed`.

        model: the model to simulate; the chain's own by default.
        finer: the model's time step is divided by this number.
        context: the episode's numbers, drawn with `seed` by default. A given `model` must already have the physical ones.
        noise: standard normal noise of actions and readings, as from `RobotSystem.draw`. By default actions have none, and
          readings have noise drawn with `seed`.
        sensors: the sensors of a real robot, in the place of theta's. The estimator still uses theta's.
        """
        chain = self.chain
        model = copy.copy(chain.mj if model is None else model)
        if finer > 1:
            model.opt.timestep /= finer
        data, probe = mujoco.MjData(model), mujoco.MjData(model)
        vector = jnp.asarray(theta)
        state: Any = self.start(vector, seed, context)
        data.qpos[:], data.qvel[:] = state.body.qpos, state.body.qvel
        low, high = model.actuator_ctrlrange.T
        limited = np.asarray(chain.squash.limited)
        nu, rows, states, ended = model.nu, [(0.0, data.qpos.copy(), data.qvel.copy(), None)], [], False
        draws, scale = self._noise(vector, steps, seed, noise)
        readings, estimates = [], []

        def squashed(action: Any) -> np.ndarray:
            return np.where(limited, (low + high) / 2 + (high - low) / 2 * np.tanh(action), action)

        if chain.sensing is not None:
            exact = self._measured(model, data, probe, squashed(np.asarray(state.action)))
            rows_of = jnp.broadcast_to(jnp.asarray(exact), state.sensed.exact.shape)
            state = eqx.tree_at(lambda s: s.sensed.exact, state, rows_of)
            readings.append(np.asarray(self._read(vector, sensors, state)))
        if chain.filter is not None:
            estimates.append(np.asarray(state.estimated.belief.state))
        for t in range(steps):
            mean, memory = self._decide(vector, scaling, sensors, state)
            action: Any = np.asarray(mean) + scale * draws[t, :nu]
            queue = [*np.asarray(state.queue), action]
            data.ctrl[:] = squashed(queue[0])
            reached = data.time
            mujoco.mj_step(model, data, nstep=chain.substeps * finer)
            if data.time <= reached or not np.all(np.isfinite(data.qpos)):
                ended = True
                break
            rows.append((data.time, data.qpos.copy(), data.qvel.copy(), data.ctrl.copy()))
            body = _body(data)
            if chain.sensing is None:
                held: Any = np.stack(queue[1:]) if len(queue) > 1 else np.zeros((0, nu))
                state = RobotState(body, action, state.action, held, memory, state.context)
            else:
                exact = self._measured(model, data, probe, data.ctrl)
                more = mean, draws[t, nu:]
                state, reading = self._arrive(vector, sensors, state, body, exact, action, memory, more)
                readings.append(np.asarray(reading))
            if chain.filter is not None:
                estimates.append(np.asarray(state.estimated.belief.state))
            states.append(state)
        terms = np.zeros((0, len(chain.scene_cost.names)))  # type: ignore[attr-defined]
        if states:
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
            terms = np.asarray(self._scene_cost(vector, stacked))
        time, qpos, qvel, ctrl = zip(*rows, strict=True)
        played = np.stack(ctrl[1:]) if states else np.zeros((0, nu))
        more = [np.stack(part) if part else None for part in (readings, estimates)]
        return Episode(np.array(time), np.stack(qpos), np.stack(qvel), played, terms, ended, *more)

    def _noise(self, theta: Any, steps: int, seed: int, noise: Any) -> tuple[np.ndarray, np.ndarray]:
        """Standard normal numbers (steps, noises), and the scale (nu,) of those of the actions."""
        chain = self.chain
        if noise is not None:
            return np.asarray(noise), np.exp(np.asarray(chain.noise_scale(theta)))
        draws = np.random.default_rng(seed).standard_normal((steps, chain.noises))
        return draws, np.zeros(chain.mj.nu)

    def _measured(self, model: Any, data: Any, probe: Any, ctrl: np.ndarray) -> np.ndarray:
        """Noise-free readings (ny,) in the state of `data` under `ctrl`. A second MjData leaves the simulation as it is."""
        assert self.chain.sensing is not None
        probe.qpos[:], probe.qvel[:], probe.ctrl[:] = data.qpos, data.qvel, ctrl
        if model.na:
            probe.act[:] = data.act
        probe.time = data.time
        mujoco.mj_forward(model, probe)
        return probe.sensordata[list(self.chain.sensing.addresses)]


def _body(data: Any) -> physics.State:
    return physics.State(
        qpos=data.qpos.copy(),
        qvel=data.qvel.copy(),
        act=data.act.copy(),
        warmstart=data.qacc_warmstart.copy(),
        time=jnp.asarray(data.time),
    )


def _real(chain: RobotSystem, reality: Any) -> RobotSystem:
    if reality is None:
        return chain
    return eqx.tree_at(lambda c: c.reality, chain, reality, is_leaf=lambda leaf: leaf is None)


class CWindows:
    """Simulates windows of one chain on C MuJoCo. Policy and estimator are compiled, the physics is not."""

    def __init__(self, chain: RobotSystem, *, threads: int = 0):
        self.chain, self._threads = chain, threads
        self._model = copy.copy(chain.mj)
        # Without this flag, MuJoCo would silently reset a diverged simulation.
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self._engine: batch.Batch | None = None
        self._decide: Any = jax.jit(self._decided)
        self._arrive: Any = jax.jit(self._arrived)
        self._fields: Any = jax.jit(self._fields_of)

    def __call__(
        self, theta: Float[Array, "*E n"], scaling: Scaling, start: RobotState, noise: Float[Array, "E T noises"]
    ) -> RobotState:
        """States with leaves (E, T+1, ...) from `start` (E, ...) under the policy at theta.

        theta: (n,) for all environments, or (E, n) with one theta for each environment.
        noise: what is added to the actions and, for a system with sensors, standard normal noise of the readings.
        """
        count, steps = noise.shape[:2]
        engine, model = self._ready(theta, start, count), self._model
        qpos, qvel, ctrl = engine.bind("qpos"), engine.bind("qvel"), engine.bind("ctrl")
        act, warmstart = engine.bind("act") if model.na else None, engine.bind("qacc_warmstart")
        state = jax.tree.map(np.asarray, start)
        qpos[:], qvel[:], warmstart[:] = state.body.qpos, state.body.qvel, state.body.warmstart
        if act is not None:
            act[:] = state.body.act
        states, draws, nu = [state], np.asarray(noise), model.nu
        passed = self.chain.substeps * float(model.opt.timestep)
        for t in range(steps):
            chosen: Any = [np.asarray(part) for part in self._decide(theta, scaling, state, draws[:, t, :nu])]
            mean, action, memory, queue, ctrl[:] = chosen
            engine.step(nstep=self.chain.substeps)
            now: dict[str, Any] = {"qpos": qpos.copy(), "qvel": qvel.copy(), "warmstart": warmstart.copy()}
            now |= {"act": state.body.act if act is None else act.copy(), "time": state.body.time + passed}
            body = physics.State(**now)
            if self.chain.sensing is None:
                state = RobotState(body, action, state.action, queue, memory, state.context)
            else:
                arrived = self._arrive(theta, state, body, mean, action, memory, draws[:, t, nu:])
                state = jax.tree.map(np.asarray, arrived)
            states.append(state)
        return jax.tree.map(lambda *leaves: np.stack(leaves, 1), *states)

    def _ready(self, theta: Array, start: RobotState, count: int) -> batch.Batch:
        """The engine after a reset. Each environment has the model of its theta and context."""
        if self._engine is None:
            self._engine = batch.Batch(self._model, count, self._threads)
        if self.chain.mechanism is not None:
            set_fields(self._engine, self._model, jax.tree.map(np.asarray, self._fields(theta, start.context)))
        self._engine.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        return self._engine

    def _decided(self, theta: Array, scaling: Scaling, states: RobotState, noise: Array) -> tuple[Array, ...]:
        """Means and actions (E, nu), memories, queues, and the controls (E, nu) that act in the next step."""
        chain = eqx.tree_at(lambda c: c.scaling, self.chain, scaling)

        def one(theta: Array, state: RobotState, draw: Array) -> tuple[Array, ...]:
            mean, memory = chain.act(state, theta)
            queue = jnp.concatenate([state.queue, (mean + draw)[None]])
            return mean, mean + draw, memory, queue[1:], chain.squash(queue[0])

        return jax.vmap(one, in_axes=(_over(theta), 0, 0))(theta, states, noise)

    def _arrived(self, theta: Array, states: RobotState, *more: Any) -> RobotState:
        """States (E, ...) with the readings and estimates of the next step."""

        def one(
            theta: Array, state: RobotState, body: Any, mean: Array, action: Array, memory: Array, noise: Array
        ) -> RobotState:
            chain = self.chain.bind(theta, state)
            ctrl = chain.squash(jnp.concatenate([state.queue, action[None]])[0])
            exact = chain.measured(body, ctrl, chain.model(theta, state))
            return chain.arrived(body, exact, action, memory, state, theta, intended=mean, noise=noise)

        return jax.vmap(one, in_axes=(_over(theta), *(0,) * (1 + len(more))))(theta, states, *more)

    def _fields_of(self, theta: Array, contexts: Array) -> dict[str, Array]:
        chain, mechanism = self.chain, self.chain.mechanism
        assert mechanism is not None

        def one(theta: Array, context: Array) -> dict[str, Array]:
            return mechanism.fields(chain.numbers(theta), chain.context.physical(context))

        return jax.vmap(one, in_axes=(_over(theta), 0))(theta, contexts)


def _over(theta: Array) -> int | None:
    """The environment axis of theta for `vmap`; None if theta has none."""
    return 0 if theta.ndim == 2 else None
