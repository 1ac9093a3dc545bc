"""Windows of a chain on C MuJoCo: batches of short simulations with noise, and their derivatives.

Policy and estimator are compiled, the physics is not.
"""

import copy
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import batch

from dso_robotics.core.compiling import quick_jit
from dso_robotics.core.method.off_policy import Law
from dso_robotics.physics import step as physics
from dso_robotics.physics.batch import set_fields
from dso_robotics.physics.sensitivity import window_slopes
from dso_robotics.physics.state import Tangent
from dso_robotics.robot.critic_inputs import CriticInputs, Dependence
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.replay import Moves, Record, Seen
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState

# Step of differences by a number of the mechanism, as a part of its typical size.
_STEP = 1e-6
# The constraint solver must find the same minimum at both ends of a difference.
_TOLERANCE = 1e-12
_STAGE = mujoco.mjtStage


class CWindows:
    """Simulates windows of one chain, whose physics may be on MJX or on C, on C MuJoCo."""

    def __init__(self, chain: RobotSystem, *, threads: int = 0, depends: Dependence | None = None):
        """depends: what the inputs of a law of exploration are, see `explored`."""
        self.chain, self._threads, self._watch, self._depends = chain, threads, chain.watch, depends
        self._model = copy.copy(chain.mj if self._watch is None else self._watch.model)
        # Without this flag, MuJoCo would silently reset a diverged simulation.
        self._model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self._engine: batch.Batch | None = None
        self._decide: Any = eqx.filter_jit(self._decided)
        self._arrive: Any = quick_jit(self._arrived)
        self._fields: Any = quick_jit(self._fields_of)
        self.fields_at: Any = quick_jit(jax.vmap(self._fields_at, in_axes=(None, 0)))
        self._place: Any = quick_jit(self._placed)
        self._first: Any = quick_jit(self._first_read)

    def __call__(
        self, theta: Float[Array, "*E n"], scaling: Scaling, start: RobotState, noise: Float[Array, "E T noises"]
    ) -> RobotState:
        """States with leaves (E, T+1, ...) from `start` (E, ...) under the policy at theta.

        theta: (n,) for all environments, or (E, n) with one theta for each environment.
        noise: what is added to the actions and, for a system with sensors, standard normal noise of the readings.
        """
        return self._played(theta, scaling, start, noise)[0]

    def explored(
        self,
        theta: Float[Array, " n"],
        scaling: Scaling,
        start: RobotState,
        noise: Float[Array, "E T noises"],
        law: Law,
    ) -> RobotState:
        """As a call, with standard normal noise, and the actions that `law` makes of it and of the critic's inputs."""
        return self._played(theta, scaling, start, noise, law)[0]

    def record(
        self,
        theta: Float[Array, " n"],
        scaling: Scaling,
        drawn: RobotState,
        new: Any,
        noise: Float[Array, "E T noises"],
        log_noise: Float[Array, " nu"],
        *,
        centred: bool = False,
    ) -> Record:
        """Simulate windows and linearise their steps; leaves have the leading axis E. The chain must be on the C engine.

        drawn: states (E, ...) from which the windows begin.
        new: which of them are drawn starts, to be placed.
        noise: standard normal noise of actions and readings.
        log_noise: logarithm of the actions' standard deviation.
        centred: centred differences instead of forward ones.
        """
        count, nu, watch = len(noise), self._model.nu, self._watch
        assert watch is not None
        scaled = np.array(noise)
        scaled[..., :nu] *= np.exp(np.asarray(log_noise))
        by_numbers = WindowDifference(self, theta, drawn.context, centred=centred)
        led = np.asarray(drawn.ctrl)
        before: Any = by_numbers.seen(drawn.body, led)
        start = self._place(theta, drawn, new, before[0])
        if self.chain.sensing is not None:
            write(self.ready(theta, start.context, count), start.body)
            start = self._first(theta, start, new, self.reading(self._engine, led))
        states, ctrl = self._played(theta, scaling, start, scaled)
        body: Any = states.body
        sound = np.isfinite(body.qpos).all(-1) & (np.abs(body.qvel) <= mujoco.mjMAXVAL).all(-1)
        sound = np.logical_and.accumulate(sound & (np.abs(body.qpos) <= mujoco.mjMAXVAL).all(-1), axis=1)
        state = np.concatenate([body.qpos, body.qvel, body.act], -1)
        more: dict[str, Any] = {"sensors": watch.columns, "forces": watch.accelerations}
        more |= {"sound": sound, "substeps": self.chain.substeps, "centred": centred}
        slopes: Any = window_slopes(self._models(count), state, body.warmstart, ctrl, **more)
        changed: Any = by_numbers.moves(body, ctrl, sound)
        read: Any = states.shown
        seen = Seen(read, slopes.sensor_state, slopes.sensor_ctrl, changed[1])
        after = jax.tree.map(lambda leaf: leaf[:, 1:], (body, seen))
        moves = Moves(after[0], slopes.state, slopes.ctrl, changed[0], after[1])
        k = state.shape[-1] - (self._model.nq - self._model.nv)
        none: Any = [np.zeros((count, watch.size, width)) for width in (k, nu)]
        first = Seen(before[0], none[0], none[1], before[1])
        return Record(noise, moves, first, jax.tree.map(lambda leaf: leaf[:, 0], seen))

    def _played(
        self, theta: Any, scaling: Scaling, start: RobotState, noise: Any, law: Law | None = None
    ) -> tuple[RobotState, np.ndarray]:
        """States (E, T+1, ...), and the control (E, T+1, nu) that led to each."""
        count, steps = noise.shape[:2]
        engine, model = self.ready(theta, start.context, count), self._model
        qpos, qvel, ctrl = engine.bind("qpos"), engine.bind("qvel"), engine.bind("ctrl")
        act, warmstart = engine.bind("act") if model.na else None, engine.bind("qacc_warmstart")
        state = jax.tree.map(np.asarray, start)
        write(engine, state.body)
        if self._watch is not None:
            ctrl[:] = state.ctrl
            state = eqx.tree_at(lambda s: s.shown, state, self.reading(engine))
            write(engine, state.body)
        states, controls, draws, nu = [state], [ctrl.copy()], np.asarray(noise), model.nu
        passed = self.chain.substeps * float(model.opt.timestep)
        for t in range(steps):
            chosen: Any = [np.asarray(part) for part in self._decide(theta, scaling, state, draws[:, t, :nu], law)]
            mean, action, memory, queue, ctrl[:] = chosen
            engine.step(nstep=self.chain.substeps)
            now: dict[str, Any] = {"qpos": qpos.copy(), "qvel": qvel.copy(), "warmstart": warmstart.copy()}
            now |= {"act": state.body.act if act is None else act.copy(), "time": state.body.time + passed}
            body = physics.State(**now)
            shown: Any = None if self._watch is None else self.reading(engine)
            if self.chain.sensing is None:
                led: Any = ctrl.copy()
                rest = queue, memory, state.context, None, None, shown
                state = RobotState(body, action, led, state.ctrl, *rest)
            else:
                arrived = self._arrive(theta, state, body, shown, mean, action, memory, draws[:, t, nu:])
                state = jax.tree.map(np.asarray, arrived)
            states.append(state)
            controls.append(ctrl.copy())
            if self._watch is not None:
                warmstart[:] = body.warmstart
        return jax.tree.map(lambda *leaves: np.stack(leaves, 1), *states), np.stack(controls, 1)

    def ready(self, theta: Array, contexts: Array, count: int) -> batch.Batch:
        """The engine after a reset. Each of `count` environments has the model of its theta and context (count, c)."""
        if self._engine is None or self._engine.nsim != count:
            self._engine = batch.Batch(self._model, count, self._threads)
        if self.chain.mechanism is not None:
            set_fields(self._engine, self._model, jax.tree.map(np.asarray, self._fields(theta, contexts)))
        self._engine.reset(stage=_STAGE.mjSTAGE_NONE)
        return self._engine

    @property
    def watch_size(self) -> int:
        """How many numbers the watch reads."""
        return 0 if self._watch is None else self._watch.size

    def reading(self, engine: Any, ctrl: np.ndarray | None = None) -> np.ndarray:
        """What the watch reads in the states of the engine, under its controls or `ctrl` (E, nu), (E, w)."""
        if ctrl is not None:
            engine.bind("ctrl")[:] = ctrl
        watch = self._watch
        if watch is None or not watch.size:
            return np.zeros((engine.nsim, 0))
        read = engine.bind("sensordata")  # filled by every call after the first `bind`
        engine.forward(stage=_STAGE.mjSTAGE_ACC if watch.accelerations else _STAGE.mjSTAGE_VEL)
        return read[:, list(watch.columns)]

    def _models(self, count: int) -> list[mujoco.MjModel]:
        """The models of all environments, or the one that all have."""
        assert self._engine is not None
        found = [self._engine.get_model(e) for e in range(count if self.chain.context.physics else 1)]
        for model in found:
            model.opt.tolerance = _TOLERANCE
        return found

    def _placed(self, theta: Array, drawn: RobotState, new: Array, shown: Array) -> RobotState:
        def one(state: RobotState, new: Array, shown: Array) -> RobotState:
            state = eqx.tree_at(lambda s: s.shown, state, shown)
            moved = self.chain.placement(self.chain, state, theta)
            return jax.tree.map(lambda a, b: jnp.where(new, a, b), moved, state)

        return jax.vmap(one)(drawn, new, shown)

    def _first_read(self, theta: Array, start: RobotState, new: Array, shown: Array) -> RobotState:
        def one(state: RobotState, new: Array, shown: Array) -> RobotState:
            read = self.chain.read(eqx.tree_at(lambda s: s.shown, state, shown), theta)
            return jax.tree.map(lambda a, b: jnp.where(new, a, b), read, state)

        return jax.vmap(one)(start, new, shown)

    def _decided(
        self, theta: Array, scaling: Scaling, states: RobotState, noise: Array, law: Law | None = None
    ) -> tuple[Array, ...]:
        """Means and actions (E, nu), memories, queues, and the controls (E, nu) that act in the next step."""
        chain = eqx.tree_at(lambda c: c.scaling, self.chain, scaling)

        def one(theta: Array, state: RobotState, draw: Array) -> tuple[Array, ...]:
            mean, memory = chain.act(state, theta)
            action = mean + draw
            if law is not None:
                assert self._depends is not None
                z = law(CriticInputs(chain, theta, self._depends)(state), chain.squash.moved(mean), draw)
                action = chain.squash.unmoved(z)
            queue = jnp.concatenate([state.queue, action[None]])
            return mean, action, memory, queue[1:], chain.control(action, state)

        return jax.vmap(one, in_axes=(_over(theta), 0, 0))(theta, states, noise)

    def _arrived(self, theta: Array, states: RobotState, *more: Any) -> RobotState:
        """States (E, ...) with the readings and estimates of the next step."""

        def one(
            theta: Array,
            state: RobotState,
            body: Any,
            shown: Any,
            mean: Array,
            action: Array,
            memory: Array,
            noise: Array,
        ) -> RobotState:
            chain = self.chain.bind(theta, state)
            exact = chain.shown_readings(shown)
            if exact is None:
                ctrl = chain.control(action, state)
                exact = chain.measured(body, ctrl, chain.model(theta, state))
            more = {"intended": mean, "noise": noise, "shown": shown}
            return chain.arrived(body, exact, action, memory, state, theta, **more)

        return jax.vmap(one, in_axes=(_over(theta), *(0,) * (1 + len(more))))(theta, states, *more)

    def _fields_of(self, theta: Array, contexts: Array) -> dict[str, Array]:
        def one(theta: Array, context: Array) -> dict[str, Array]:
            return self._fields_at(self.chain.numbers(theta), context)

        return jax.vmap(one, in_axes=(_over(theta), 0))(theta, contexts)

    def _fields_at(self, z: Array, context: Array) -> dict[str, Array]:
        """Model fields at numbers z (nz,) of the mechanism, in one episode."""
        assert self.chain.mechanism is not None
        return self.chain.mechanism.fields(z, self.chain.context.physical(context))


class WindowDifference:
    """Derivatives of steps and readings by the numbers z (nz,) of the mechanism: one more simulation for each number.

    All environments of `windows` have theta (n,) and their context (E, c).
    """

    def __init__(self, windows: CWindows, theta: Array, contexts: Array, *, centred: bool = False):
        self._windows, self._theta, self._contexts, self._centred = windows, theta, contexts, centred
        chain, self._count = windows.chain, contexts.shape[0]
        mechanism = chain.mechanism
        self._z = np.asarray(chain.numbers(theta))
        self._h = np.zeros(0) if mechanism is None else _STEP * np.asarray(mechanism.scale)
        # Numbers of sensors change nothing that is simulated.
        groups = {} if mechanism is None else mechanism.groups
        sizes = [(name != "sensor", group.size) for name, group in groups.items()]
        given = np.concatenate([np.zeros(0, bool), *(np.full(n, yes) for yes, n in sizes)])
        self._at = [int(i) for i in np.flatnonzero(given)]

    def seen(self, body: physics.State, ctrl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is read in states (E, ...) under controls (E, nu): values (E, w) and derivatives (E, w, nz)."""

        def read(engine: batch.Batch) -> np.ndarray:
            write(engine, body)
            engine.bind("ctrl")[:] = ctrl
            return self._windows.reading(engine)

        if not self._windows.watch_size:
            return np.zeros((self._count, 0)), np.zeros((self._count, 0, len(self._z)))
        value = read(self._engine())
        slope = np.zeros((*value.shape, len(self._z)))
        for i in self._at:
            low = read(self._engine(i, -1.0)) if self._centred else value
            slope[..., i] = (read(self._engine(i, 1.0)) - low) / self._width(i)
        return value, np.where(np.isfinite(slope), slope, 0.0)

    def moves(self, body: physics.State, ctrl: np.ndarray, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives by z of steps (E, T, k, nz) and of what is read in the T+1 states (E, T+1, w, nz)."""
        windows, (count, ends) = self._windows, sound.shape
        tangent, w, nz = Tangent(windows.chain.mj), windows.watch_size, len(self._z)
        moved, shown = np.zeros((count, ends - 1, tangent.size, nz)), np.zeros((count, ends, w, nz))
        starts = [
            jax.tree.map(lambda leaf, t=t: np.where(np.isfinite(leaf[:, t]), leaf[:, t], 0.0), body)
            for t in range(ends)
        ]

        def played(engine: batch.Batch) -> tuple[np.ndarray, np.ndarray]:
            """What is read in each state, (T+1, E, w), and the states after the steps, (T, E, nq+nv+na)."""
            seen, after = [], []
            for t, here in enumerate(starts):
                write(engine, here)
                engine.bind("ctrl")[:] = ctrl[:, t]
                seen.append(windows.reading(engine))
                if t + 1 < ends:
                    write(engine, here)
                    engine.bind("ctrl")[:] = ctrl[:, t + 1]
                    engine.step(nstep=windows.chain.substeps)
                    act = [engine.bind("act")] if engine.model.na else []
                    after.append(np.concatenate([engine.bind("qpos"), engine.bind("qvel"), *act], -1))
            return np.stack(seen), np.stack(after)

        base = played(self._engine()) if self._at and not self._centred else None
        for i in self._at:
            low = played(self._engine(i, -1.0)) if base is None else base
            high = played(self._engine(i, 1.0))
            read = np.moveaxis(high[0] - low[0], 0, 1) / self._width(i)
            change = np.moveaxis(tangent.difference(low[1], high[1]), 0, 1) / self._width(i)
            shown[..., i] = np.where(sound[..., None], read, 0.0)
            moved[..., i] = np.where(sound[:, 1:, None], change, 0.0)
        return moved, shown

    def _width(self, i: int) -> float:
        return float(self._h[i] * (2 if self._centred else 1))

    def _engine(self, i: int | None = None, sign: float = 0.0) -> batch.Batch:
        """The engine at z, or with the number i changed by its step."""
        engine = self._windows.ready(self._theta, self._contexts, self._count)
        if i is not None:
            z = self._z.copy()
            z[i] += sign * self._h[i]
            set_fields(engine, engine.model, jax.tree.map(np.asarray, self._windows.fields_at(z, self._contexts)))
        return engine


def write(engine: batch.Batch, body: physics.State) -> None:
    """Set the states (E, ...) of an engine."""
    engine.bind("qpos")[:], engine.bind("qvel")[:] = body.qpos, body.qvel
    engine.bind("qacc_warmstart")[:] = body.warmstart
    if engine.model.na:
        engine.bind("act")[:] = body.act


def _over(theta: Array) -> int | None:
    """The environment axis of theta for `vmap`; None if theta has none."""
    return 0 if theta.ndim == 2 else None
