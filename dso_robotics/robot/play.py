"""Simulates a chain on C MuJoCo: whole episodes without noise, and batches of short windows with noise."""

import copy
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float

from dso_robotics.core.devices import beside_c, on_the_processor
from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.robot.filter_jax import Forecast
from dso_robotics.robot.forecasts import forecasts_of
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.squash import Squash
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState

# Slope of tanh below which an action is said to be saturated.
_FLAT = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T control steps.

    time: (T+1,) [s].
    qpos: (T+1, nq) [m, rad].
    qvel: (T+1, nv) [m/s, rad/s].
    ctrl: controls, (T, nu).
    terms: weighted cost terms, (T, k).
    ended: whether the simulation diverged early. The arrays then have fewer rows.
    terminated: whether a terminal state ended it early.
    readings: noisy readings, (T+1, ny); None if the system has no sensors of its own.
    estimate: the estimator's states, (T+1, nq+nv+na); None without an estimator.
    measured: terms that are hard constraints, without weights, (T, c); None without any.
    """

    time: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    terms: np.ndarray
    ended: bool
    terminated: bool = False
    readings: np.ndarray | None = None
    estimate: np.ndarray | None = None
    measured: np.ndarray | None = None

    def saturated(self, squash: Squash) -> np.ndarray:
        """Share of the control steps in which tanh has less than a twentieth of its slope, by actuator (nu,).

        Zero for an actuator without a range.
        """
        if not len(self.ctrl):
            return np.zeros(len(squash.limited))
        flat = 1.0 - np.asarray(squash.place(jnp.asarray(self.ctrl))) ** 2 < _FLAT
        return np.where(squash.limited, np.mean(flat, axis=0), 0.0)

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
            here = eqx.tree_at(lambda c: c.scaling, _real(chain, reality), scaling).bind(theta, state)
            return (*here.act(state, theta), here.terminal(state) if chain.may_end() else False)

        def scene_cost(theta: Any, state: RobotState) -> Any:
            terms: Any = chain.scene_cost
            scene = chain.bind(theta, state).scene(state, theta)
            return terms.terms(scene), terms.measured(scene)

        def arrive(
            theta: Any, reality: Any, state: RobotState, body: Any, exact: Any, action: Any, memory: Any, more: Any
        ) -> tuple[RobotState, Any]:
            here = _real(chain, reality).bind(theta, state)
            given = {"intended": more[0], "noise": more[1], "forecast": more[2]}
            following = here.arrived(body, exact, action, memory, state, theta, **given)
            return following, here.reading(following, theta)

        def read(theta: Any, reality: Any, state: RobotState) -> Any:
            return _real(chain, reality).reading(state, theta)

        self.decide = beside_c(decide)
        self.control = beside_c(lambda action, state: chain.control(action, state))
        self.known = beside_c(lambda intended, state: chain.known(intended, state))
        self.forecasts = forecasts_of(chain, threads=1)
        self.arrive = beside_c(arrive)
        self.read = beside_c(read)
        self._scene_cost = beside_c(jax.vmap(scene_cost, in_axes=(None, 0)))

        def start(theta: Any, key: Any, context: Any) -> RobotState:
            state = chain.start(key)
            state = state if context is None else eqx.tree_at(lambda s: s.context, state, context)
            return chain.placed(state, theta)

        self._start = beside_c(start)

    def start(self, theta: Any, seed: int, context: np.ndarray | None = None) -> RobotState:
        """The start of an episode drawn with `seed`; its context too, unless it is given."""
        # A context without numbers is the only one there is; it would have the start compiled a second time.
        given = None if context is None or np.size(context) == 0 else jnp.asarray(context)
        with on_the_processor():
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
        chain, states = self.chain, []
        now = Running(self, theta, scaling, seed=seed, model=model, finer=finer, context=context, sensors=sensors)
        rows = [(0.0, now.data.qpos.copy(), now.data.qvel.copy(), None)]
        draws, scale = self._noise(now.theta, steps, seed, noise)
        nu, ended, terminated = now.model.nu, False, False
        readings = [now.reading] if chain.sensing is not None else []
        estimates = [now.estimate] if chain.filter is not None else []
        for t in range(steps):
            mean, memory, terminated = now.decide()
            if terminated and not states:
                raise DsoError(
                    "the start state itself ends the episode; widen the bounds in [terminate], or start elsewhere."
                )
            if terminated:
                break
            action: Any = np.asarray(mean) + scale * draws[t, :nu]
            ended = not now.step(action, intended=mean, memory=memory, noise=draws[t, nu:])
            if ended:
                break
            data = now.data
            rows.append((data.time, data.qpos.copy(), data.qvel.copy(), data.ctrl.copy()))
            if chain.sensing is not None:
                readings.append(now.reading)
            if chain.filter is not None:
                estimates.append(now.estimate)
            states.append(now.state)
        cost: Any = chain.scene_cost
        terms, measured = np.zeros((0, len(cost.names))), np.zeros((0, len(cost.constrained)))
        if states:
            # Always as many rows: an episode that ends early would have its costs compiled for a length of its own.
            rest = [states[-1]] * (steps - len(states))
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states, *rest)
            terms, measured = (part[: len(states)] for part in self.terms(now.theta, stacked))
        time, qpos, qvel, ctrl = zip(*rows, strict=True)
        played = np.stack(ctrl[1:]) if states else np.zeros((0, nu))
        more = [np.stack(part) if part else None for part in (readings, estimates)]
        more.append(measured if cost.constrained else None)
        return Episode(np.array(time), np.stack(qpos), np.stack(qvel), played, terms, ended, bool(terminated), *more)

    def terms(self, theta: Any, states: RobotState) -> tuple[np.ndarray, np.ndarray]:
        """The weighted cost terms (T, k) of states (T, ...), and what the hard constraints measure there, (T, c)."""
        terms, measured = self._scene_cost(theta, states)
        return np.asarray(terms), np.asarray(measured)

    def _noise(self, theta: Any, steps: int, seed: int, noise: Any) -> tuple[np.ndarray, np.ndarray]:
        """Standard normal numbers (steps, noises), and the scale (nu,) of those of the actions."""
        chain = self.chain
        if noise is not None:
            return np.asarray(noise), np.exp(np.asarray(chain.noise_scale(theta)))
        draws = np.random.default_rng(seed).standard_normal((steps, chain.noises))
        return draws, np.zeros(chain.mj.nu)


def _real(chain: RobotSystem, reality: Any) -> RobotSystem:
    if reality is None:
        return chain
    return eqx.tree_at(lambda c: c.reality, chain, reality, is_leaf=lambda leaf: leaf is None)


class Running:
    """One episode that is under way, control step by control step. Arguments are those of `Player.play`.

    theta: (n,).
    model, data: what C MuJoCo simulates.
    state: the chain's state now.
    reading: the noisy reading in it, (ny,); empty without sensors of the system's own.
    """

    def __init__(
        self,
        player: Player,
        theta: Any,
        scaling: Scaling,
        *,
        seed: int,
        model: Any = None,
        finer: int = 1,
        context: np.ndarray | None = None,
        sensors: Reality | None = None,
    ):
        self._player, self._sensors, self._finer = player, sensors, finer
        chain = player.chain
        self.model = copy.copy(chain.mj if model is None else model)
        if finer > 1:
            self.model.opt.timestep /= finer
        self.data, self._probe = mujoco.MjData(self.model), mujoco.MjData(self.model)
        with on_the_processor():  # copied once, not at each control step
            self.theta, self._scaling = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), (theta, scaling))
        self.reading = np.zeros(0)
        self._estimating = None if player.forecasts is None else player.forecasts.engine(self.theta, 1)
        state: Any = player.start(self.theta, seed, context)
        self.data.qpos[:], self.data.qvel[:] = state.body.qpos, state.body.qvel
        ctrl = np.asarray(state.ctrl)
        state = self._seen(state, ctrl)
        if chain.sensing is not None:
            rows = jnp.broadcast_to(jnp.asarray(self._measured(ctrl)), state.sensed.exact.shape)
            state = eqx.tree_at(lambda s: s.sensed.exact, state, rows)
            self.reading = np.asarray(player.read(self.theta, sensors, state))
        self.state = state

    @property
    def estimate(self) -> np.ndarray:
        """The estimator's state, (nq+nv+na,)."""
        return np.asarray(self.state.estimated.belief.state)

    def decide(self) -> tuple[Any, Any, Any]:
        """The policy's action (nu,) without noise, its next memory, and whether this state ends the episode."""
        return self._player.decide(self.theta, self._scaling, self._sensors, self.state)

    def step(self, action: Any, *, intended: Any = None, memory: Any = None, noise: Any = None) -> bool:
        """One control step under `action` (nu,), before squashing. False, and no new state, if the simulation diverged.

        intended: the action without noise, which an estimator knows.
        memory: the policy's next memory; unchanged by default.
        noise: standard normal noise of the next reading, (ny,); none by default.
        """
        chain, data, state = self._player.chain, self.data, self.state
        memory = state.memory if memory is None else memory
        queue = [*np.asarray(state.queue), action]
        data.ctrl[:] = self._player.control(action, state)
        reached = data.time
        mujoco.mj_step(self.model, data, nstep=chain.substeps * self._finer)
        if data.time <= reached or not np.all(np.isfinite(data.qpos)):
            return False
        body = _body(data)
        if chain.sensing is None:
            held: Any = np.stack(queue[1:]) if len(queue) > 1 else np.zeros((0, self.model.nu))
            led: Any = data.ctrl.copy()
            rest = held, memory, state.context, None, None, state.shown
            state = RobotState(body, action, led, state.ctrl, *rest)
        else:
            exact = self._measured(data.ctrl)
            intended = action if intended is None else intended
            more = intended, np.zeros(len(exact)) if noise is None else noise, self._forecast(intended)
            arrived = self._player.arrive(self.theta, self._sensors, state, body, exact, action, memory, more)
            state, self.reading = arrived[0], np.asarray(arrived[1])
        self.state = self._seen(state, data.ctrl)
        return True

    def _forecast(self, intended: Any) -> Forecast | None:
        """What the estimator predicts for the next step; None on MJX, where its filter simulates."""
        player, engine, state = self._player, self._estimating, self.state
        if player.forecasts is None or engine is None or state.estimated is None:
            return None
        ctrl, belief = np.asarray(player.known(intended, state)), jax.tree.map(np.asarray, state.estimated.belief)
        one = player.forecasts(engine, *jax.tree.map(lambda leaf: leaf[None], (belief, ctrl)))
        return jax.tree.map(lambda leaf: leaf[0], one)

    def _seen(self, state: Any, ctrl: np.ndarray) -> Any:
        """The state with what the watch reads in it under `ctrl`; the same on MJX."""
        watch = self._player.chain.watch
        if watch is None:
            return state
        self._forward(ctrl)
        return eqx.tree_at(lambda s: s.shown, state, watch.read(self._probe), is_leaf=lambda leaf: leaf is None)

    def _measured(self, ctrl: np.ndarray) -> np.ndarray:
        """Noise-free readings (ny,) in the state of `data` under `ctrl`. A second MjData leaves the simulation as it is."""
        sensing = self._player.chain.sensing
        assert sensing is not None
        self._forward(ctrl)
        return self._probe.sensordata[list(sensing.addresses)]

    def _forward(self, ctrl: np.ndarray) -> None:
        """mj_forward in the second MjData, at the state of `data`."""
        data, probe = self.data, self._probe
        probe.qpos[:], probe.qvel[:], probe.ctrl[:] = data.qpos, data.qvel, ctrl
        if self.model.na:
            probe.act[:] = data.act
        probe.time = data.time
        mujoco.mj_forward(self.model, probe)


def _body(data: Any) -> physics.State:
    return physics.State(
        qpos=data.qpos.copy(),
        qvel=data.qvel.copy(),
        act=data.act.copy(),
        warmstart=data.qacc_warmstart.copy(),
        time=jnp.asarray(np.asarray(data.time)),  # of the type that a start has; a bare float has a weaker one
    )
