"""Windows of a chain on C MuJoCo: batches of short simulations with noise, and their derivatives.

Policy and estimator are compiled, the physics is not.
"""

from collections.abc import Sequence
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
from dso_robotics.physics.batch import set_fields, without_reset
from dso_robotics.physics.impedance import stretched
from dso_robotics.physics.sensitivity import window_slopes
from dso_robotics.robot.critic_inputs import CriticInputs, Dependence
from dso_robotics.robot.forecasts import forecasts_of
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.replay import Moves, Record, Seen
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState
from dso_robotics.robot.window_difference import Bench, Change, WindowDifference, sound, write

# The constraint solver must find the same minimum at both ends of a difference.
_TOLERANCE = 1e-12
_STAGE = mujoco.mjtStage


class CWindows:
    """Simulates windows of one chain, whose physics may be on MJX or on C, on C MuJoCo."""

    def __init__(self, chain: RobotSystem, *, threads: int = 0, depends: Dependence | None = None):
        """depends: what the inputs of a law of exploration are, see `explored`."""
        self.chain, self._threads, self._watch, self._depends = chain, threads, chain.watch, depends
        self._model = without_reset(chain.mj if self._watch is None else self._watch.model)
        self._engine: batch.Batch | None = None
        self._softer: float | None = None
        self._decide: Any = eqx.filter_jit(self._decided)
        self._arrive: Any = quick_jit(self._arrived)
        self._fields: Any = quick_jit(self._fields_of)
        self._changed: batch.Batch | None = None
        self.fields_at: Any = quick_jit(jax.vmap(jax.vmap(self._fields_at, in_axes=(None, 0)), in_axes=(0, None)))
        self._place: Any = quick_jit(self._placed)
        self._first: Any = quick_jit(self._first_read)
        self._forecasts = forecasts_of(chain, threads=threads)

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
        softer: float = 1.0,
        centred: bool = False,
    ) -> Record:
        """Simulate windows and linearise their steps; leaves have the leading axis E. The chain must be on the C engine.

        drawn: states (E, ...) from which the windows begin.
        new: which of them are drawn starts, to be placed.
        noise: standard normal noise of actions and readings.
        log_noise: logarithm of the actions' standard deviation.
        softer: factor of the contacts' time constants, see `impedance.stretched`.
        centred: centred differences instead of forward ones.
        """
        if softer != 1.0 or self._softer is not None:
            self._softer = softer
        count, nu, watch = len(noise), self._model.nu, self._watch
        assert watch is not None
        scaled = np.array(noise)
        scaled[..., :nu] *= np.exp(np.asarray(log_noise))
        by_numbers = self._by_numbers(theta, drawn.context, centred)
        led = np.asarray(drawn.ctrl)
        before: Any = by_numbers.seen(drawn.body, led)
        start = self._place(theta, drawn, new, before[0])
        begun = None
        if self.chain.sensing is not None:
            write(self.ready(theta, start.context, count), start.body)
            read = self.reading(self._engine, led)
            if self._forecasts is not None:
                begun = self._forecasts.begun(theta, np.asarray(start.estimated.belief.state), led, centred=centred)
            start = self._first(theta, start, new, read, None if begun is None else begun.value)
        states, ctrl, forecasts = self._played(theta, scaling, start, scaled)
        body: Any = states.body
        state = np.concatenate([body.qpos, body.qvel, body.act], -1)
        going = sound(state)
        more: dict[str, Any] = {"sensors": watch.columns, "forces": watch.accelerations}
        more |= {"sound": going, "substeps": self.chain.substeps, "centred": centred}
        more["threads"] = self._threads
        slopes: Any = window_slopes(self._models(count), state, body.warmstart, ctrl, **more)
        changed: Any = by_numbers.moves(body, ctrl, going)
        read: Any = states.shown
        seen = Seen(read, slopes.sensor_state, slopes.sensor_ctrl, changed[1])
        after, believed = jax.tree.map(lambda leaf: leaf[:, 1:], (body, seen)), None
        if self._forecasts is not None and states.estimated is not None:
            believed = self._forecasts.record(theta, states.estimated.belief, forecasts, centred=centred)
        moves = Moves(after[0], slopes.state, slopes.ctrl, changed[0], after[1], believed)
        k = state.shape[-1] - (self._model.nq - self._model.nv)
        none: Any = [np.zeros((count, watch.size, width)) for width in (k, nu)]
        first = Seen(before[0], none[0], none[1], before[1])
        return Record(noise, moves, first, jax.tree.map(lambda leaf: leaf[:, 0], seen), begun)

    def _played(
        self, theta: Any, scaling: Scaling, start: RobotState, noise: Any, law: Law | None = None
    ) -> tuple[RobotState, np.ndarray, Any]:
        """States (E, T+1, ...), the control (E, T+1, nu) that led to each, and the estimator's forecasts (E, T, ...) on C."""
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
        estimating: Any = None if self._forecasts is None else self._forecasts.ready(theta, count)
        forecast, forecasts = None, []
        passed = self.chain.substeps * float(model.opt.timestep)
        for t in range(steps):
            chosen: Any = [np.asarray(part) for part in self._decide(theta, scaling, state, draws[:, t, :nu], law)]
            mean, action, memory, queue, ctrl[:], *known = chosen
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
                if self._forecasts is not None and state.estimated is not None:
                    forecast = self._forecasts(estimating, state.estimated.belief, known[0])
                    forecasts.append(forecast)
                arrived = self._arrive(theta, state, body, shown, mean, action, memory, draws[:, t, nu:], forecast)
                state = jax.tree.map(np.asarray, arrived)
            states.append(state)
            controls.append(ctrl.copy())
            if self._watch is not None:
                warmstart[:] = body.warmstart
        return _stacked(states), np.stack(controls, 1), _stacked(forecasts) if forecasts else None

    def ready(self, theta: Array, contexts: Array, count: int) -> batch.Batch:
        """The engine after a reset. Each of `count` environments has the model of its theta and context (count, c)."""
        if self._engine is None or self._engine.nsim != count:
            self._engine = batch.Batch(self._model, count, self._threads)
        self._set(self._engine, {} if self.chain.mechanism is None else self._fields(theta, contexts))
        self._engine.reset(stage=_STAGE.mjSTAGE_NONE)
        return self._engine

    def _set(self, engine: batch.Batch, fields: dict[str, Array]) -> None:
        """Set model fields (E, ...), and the softness of the contacts."""
        given = {name: np.asarray(value) for name, value in fields.items()}
        if self._softer is not None:
            for name in ("geom_solref", "pair_solref"):
                own = np.broadcast_to(getattr(self._model, name), (engine.nsim, *getattr(self._model, name).shape))
                given[name] = stretched(given.get(name, own), self._softer)
        if given:
            set_fields(engine, self._model, given)

    def _by_numbers(self, theta: Any, contexts: Any, centred: bool) -> WindowDifference:
        """Differences by the numbers of the mechanism, of windows with theta (n,) in episodes (E, c)."""

        count, z = len(contexts), np.array(self.chain.numbers(theta))

        def engines(changes: Sequence[Change]) -> list[batch.Batch]:
            size = len(changes) * count
            if self._changed is None or self._changed.nsim != size:
                self._changed = batch.Batch(self._model, size, self._threads)
            moved = np.tile(z, (len(changes), 1))
            for row, change in zip(moved, changes, strict=True):
                if change is not None:
                    row[change[0]] += change[1]
            fields = {} if mechanism is None else self.fields_at(moved, contexts)
            self._set(self._changed, {name: value.reshape(size, *value.shape[2:]) for name, value in fields.items()})
            self._changed.reset(stage=_STAGE.mjSTAGE_NONE)
            return [self._changed]

        mechanism, chain = self.chain.mechanism, self.chain
        bench = Bench(chain.mj, chain.substeps, engines, self.reading, self.watch_size)
        if mechanism is None:
            return WindowDifference(bench, np.zeros(0), np.zeros(0, bool))
        return WindowDifference(bench, mechanism.difference, mechanism.simulates, centred=centred)

    @property
    def watch_size(self) -> int:
        """How many numbers the watch reads."""
        return 0 if self._watch is None else self._watch.size

    def reading(self, engine: Any, ctrl: np.ndarray | None = None) -> np.ndarray:
        """What the watch reads in the states of the engine, under its controls or `ctrl` (E, nu), (E, w)."""
        if ctrl is not None:
            engine.bind("ctrl")[:] = ctrl
        return np.zeros((engine.nsim, 0)) if self._watch is None else self._watch.reading(engine)

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

    def _first_read(self, theta: Array, start: RobotState, new: Array, shown: Array, begun: Any) -> RobotState:
        def one(state: RobotState, new: Array, shown: Array, begun: Any) -> RobotState:
            read = self.chain.read(eqx.tree_at(lambda s: s.shown, state, shown), theta, begun=begun)
            return jax.tree.map(lambda a, b: jnp.where(new, a, b), read, state)

        return jax.vmap(one)(start, new, shown, begun)

    def _decided(
        self, theta: Array, scaling: Scaling, states: RobotState, noise: Array, law: Law | None = None
    ) -> tuple[Array, ...]:
        """Means and actions (E, nu), memories, queues, the controls (E, nu) that act next, and those an estimator knows of."""
        chain = eqx.tree_at(lambda c: c.scaling, self.chain, scaling)

        def one(theta: Array, state: RobotState, draw: Array) -> tuple[Array, ...]:
            mean, memory = chain.act(state, theta)
            action = mean + draw
            if law is not None:
                assert self._depends is not None
                z = law(CriticInputs(chain, theta, self._depends)(state), chain.squash.moved(mean), draw)
                action = chain.squash.unmoved(z)
            queue = jnp.concatenate([state.queue, action[None]])
            known = () if state.estimated is None else (chain.known(mean, state),)
            return mean, action, memory, queue[1:], chain.control(action, state), *known

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
            forecast: Any,
        ) -> RobotState:
            chain = self.chain.bind(theta, state)
            exact = chain.shown_readings(shown)
            if exact is None:
                ctrl = chain.control(action, state)
                exact = chain.measured(body, ctrl, chain.model(theta, state))
            more = {"intended": mean, "noise": noise, "shown": shown, "forecast": forecast}
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


def _stacked(rows: list[Any]) -> Any:
    """Rows (E, ...) as (E, T, ...)."""
    return jax.tree.map(lambda *leaves: np.stack(leaves, 1), *rows)


def _over(theta: Array) -> int | None:
    """The environment axis of theta for `vmap`; None if theta has none."""
    return 0 if theta.ndim == 2 else None
