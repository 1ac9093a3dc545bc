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
from dso_robotics.robot.chain import RobotChain, RobotState
from dso_robotics.robot.observation import Scaling


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T control steps.

    time: (T+1,) [s].
    qpos: (T+1, nq) [m, rad].
    qvel: (T+1, nv) [m/s, rad/s].
    ctrl: controls, (T, nu).
    terms: weighted cost terms, (T, k).
    ended: whether the simulation diverged early. The arrays then have fewer rows.
    """

    time: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    terms: np.ndarray
    ended: bool

    @property
    def cost(self) -> float:
        """Sum of all terms."""
        return float(self.terms.sum())


class Player:
    """Plays episodes of one chain on C MuJoCo. The policy and the cost are compiled once."""

    def __init__(self, chain: RobotChain):
        self.chain = chain

        def decide(theta: Any, scaling: Scaling, state: RobotState) -> tuple[Any, Any]:
            return eqx.tree_at(lambda c: c.scaling, chain, scaling).bind(theta, state).act(state, theta)

        def scene_cost(theta: Any, state: RobotState) -> Any:
            terms: Any = chain.scene_cost
            return terms.terms(chain.bind(theta, state).scene(state, theta))

        self._decide: Callable[..., Any] = jax.jit(decide)
        self._scene_cost: Callable[..., Any] = jax.jit(jax.vmap(scene_cost, in_axes=(None, 0)))

        def start(theta: Any, key: Any, context: Any) -> RobotState:
            state = chain.start(key)
            state = state if context is None else eqx.tree_at(lambda s: s.context, state, context)
            return chain.placed(state, theta)

        self._start: Callable[..., Any] = jax.jit(start)

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
    ) -> Episode:
        """Simulate one episode from a start drawn with `seed`.

        model: the model to simulate; the chain's own by default.
        finer: the model's time step is divided by this number.
        context: the episode's numbers, drawn with `seed` by default. A given `model` must already have the physical ones.
        """
        chain = self.chain
        model = copy.copy(chain.mj if model is None else model)
        if finer > 1:
            model.opt.timestep /= finer
        data = mujoco.MjData(model)
        vector = jnp.asarray(theta)
        state = self._start(vector, jax.random.key(seed), None if context is None else jnp.asarray(context))
        numbers = np.asarray(state.context)
        data.qpos[:], data.qvel[:] = state.body.qpos, state.body.qvel
        low, high = model.actuator_ctrlrange.T
        limited = np.asarray(chain.squash.limited)
        rows, states, ended = [(0.0, data.qpos.copy(), data.qvel.copy(), None)], [], False
        action: Any = np.zeros(model.nu)
        before = action
        queue, memory = [np.zeros(model.nu)] * chain.delay, state.memory
        for _ in range(steps):
            here = self._state(data, action, before, queue, memory, numbers)
            chosen, memory = self._decide(vector, scaling, here)
            before, action = action, np.asarray(chosen)
            queue = [*queue, action]
            played, *queue = queue
            data.ctrl[:] = np.where(limited, (low + high) / 2 + (high - low) / 2 * np.tanh(played), played)
            reached = data.time
            mujoco.mj_step(model, data, nstep=chain.substeps * finer)
            if data.time <= reached or not np.all(np.isfinite(data.qpos)):
                ended = True
                break
            rows.append((data.time, data.qpos.copy(), data.qvel.copy(), data.ctrl.copy()))
            states.append(self._state(data, action, before, queue, memory, numbers))
        terms = np.zeros((0, len(chain.scene_cost.names)))  # type: ignore[attr-defined]
        if states:
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
            terms = np.asarray(self._scene_cost(vector, stacked))
        time, qpos, qvel, ctrl = zip(*rows, strict=True)
        played = np.stack(ctrl[1:]) if states else np.zeros((0, model.nu))
        return Episode(np.array(time), np.stack(qpos), np.stack(qvel), played, terms, ended)

    def _state(
        self, data: mujoco.MjData, action: Any, before: Any, queue: Any, memory: Any, context: Any
    ) -> RobotState:
        body = physics.State(
            qpos=data.qpos.copy(),
            qvel=data.qvel.copy(),
            act=data.act.copy(),
            warmstart=data.qacc_warmstart.copy(),
            time=jnp.asarray(data.time),
        )
        held: Any = np.stack(queue) if queue else np.zeros((0, len(action)))
        return RobotState(body, action, before, held, memory, context)


class CWindows:
    """Simulates windows of one chain on C MuJoCo. The policy is compiled, the physics is not."""

    def __init__(self, chain: RobotChain, *, threads: int = 0):
        self.chain, self._threads = chain, threads
        self._model = copy.copy(chain.mj)
        # Without this flag, MuJoCo would silently reset a diverged simulation.
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self._engine: batch.Batch | None = None
        self._decide: Any = jax.jit(self._decided)
        self._fields: Any = jax.jit(self._fields_of)

    def __call__(
        self, theta: Float[Array, "*E n"], scaling: Scaling, start: RobotState, noise: Float[Array, "E T nu"]
    ) -> RobotState:
        """States with leaves (E, T+1, ...) from `start` (E, ...) under the policy at theta. `noise` is added to its actions.

        theta: (n,) for all environments, or (E, n) with one theta for each environment.
        """
        count, steps = noise.shape[:2]
        engine, model = self._ready(theta, start, count), self._model
        qpos, qvel, ctrl = engine.bind("qpos"), engine.bind("qvel"), engine.bind("ctrl")
        act, warmstart = engine.bind("act") if model.na else None, engine.bind("qacc_warmstart")
        state = jax.tree.map(np.asarray, start)
        qpos[:], qvel[:], warmstart[:] = state.body.qpos, state.body.qvel, state.body.warmstart
        if act is not None:
            act[:] = state.body.act
        states, draws = [state], np.asarray(noise)
        passed = self.chain.substeps * float(model.opt.timestep)
        for t in range(steps):
            chosen: Any = [np.asarray(part) for part in self._decide(theta, scaling, state, draws[:, t])]
            action, memory, queue, ctrl[:] = chosen
            engine.step(nstep=self.chain.substeps)
            now: dict[str, Any] = {"qpos": qpos.copy(), "qvel": qvel.copy(), "warmstart": warmstart.copy()}
            now |= {"act": state.body.act if act is None else act.copy(), "time": state.body.time + passed}
            state = RobotState(physics.State(**now), action, state.action, queue, memory, state.context)
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
        """Actions (E, nu), memories, queues, and the controls (E, nu) that act in the next step."""
        chain = eqx.tree_at(lambda c: c.scaling, self.chain, scaling)

        def one(theta: Array, state: RobotState, draw: Array) -> tuple[Array, ...]:
            mean, memory = chain.act(state, theta)
            queue = jnp.concatenate([state.queue, (mean + draw)[None]])
            return mean + draw, memory, queue[1:], chain.squash(queue[0])

        return jax.vmap(one, in_axes=(_over(theta), 0, 0))(theta, states, noise)

    def _fields_of(self, theta: Array, contexts: Array) -> dict[str, Array]:
        chain, mechanism = self.chain, self.chain.mechanism
        assert mechanism is not None

        def one(theta: Array, context: Array) -> dict[str, Array]:
            return mechanism.fields(chain.numbers(theta), chain.context.physical(context))

        return jax.vmap(one, in_axes=(_over(theta), 0))(theta, contexts)


def _over(theta: Array) -> int | None:
    """The environment axis of theta for `vmap`; None if theta has none."""
    return 0 if theta.ndim == 2 else None
