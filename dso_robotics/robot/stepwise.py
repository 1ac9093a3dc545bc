"""A chain on C MuJoCo whose every step is simulated and linearised when it is asked for, for costs of logs.

The windows of a training are simulated whole, which is faster, see `robot.replay`. Here C is called for each step, for all rows
of a batch at once. Values and first derivatives are those of the replayed chain.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics import step as physics
from dso_robotics.physics.callback import call
from dso_robotics.robot.c_steps import CSteps
from dso_robotics.robot.filter_jax import Belief, Forecast
from dso_robotics.robot.forecasts import estimator_steps
from dso_robotics.robot.replay import Believed, Linearised, Moves, Seen, fields_of
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState, Theta
from dso_robotics.robot.watch import Watch


class StepwiseSystem(Linearised):
    """A robot system on C with derivatives.

    world: its steps. estimating: those of the estimator's model; None without an estimator.
    """

    world: CSteps | None = eqx.field(static=True, default=None)
    estimating: CSteps | None = eqx.field(static=True, default=None)

    def simulated(self, state: RobotState, ctrl: Array, theta: Theta) -> tuple[physics.State, Array | None, Array]:
        """See `RobotSystem.simulated`."""
        assert self.world is not None
        steps, numbers = self.world, self._numbers(theta, state)

        def run(numbers: np.ndarray, state: np.ndarray, warmstart: np.ndarray, ctrl: np.ndarray) -> Moves:
            engine = steps.ready(numbers)
            after, warm = steps.step(engine, state, ctrl, warmstart)
            read = steps.read(engine, after, ctrl, warm)
            ends, led = np.stack([state, after], 1), np.stack([ctrl, ctrl], 1)
            return steps.moves(numbers, ends, np.stack([warmstart, warm], 1), led, (None, read))[0]

        body = state.body
        given = numbers, _vector(body), body.warmstart, ctrl
        moves = _called(steps, run, self._moves(numbers.size, self._seen_size), *given)
        following, shown = self.moving(moves, body, ctrl, numbers)
        following = eqx.tree_at(lambda b: b.time, following, body.time + self.control_step)
        return following, self.shown_readings(shown), shown

    def watched(self, state: RobotState, theta: Theta) -> RobotState:
        """See `RobotSystem.watched`, with derivative."""
        assert self.world is not None
        if not self._seen_size:
            return state
        steps, numbers = self.world, self._numbers(theta, state)

        def run(numbers: np.ndarray, state: np.ndarray, ctrl: np.ndarray) -> Seen:
            return steps.seen(numbers, state, ctrl)

        seen = _called(steps, run, self._seen(numbers.size, self._seen_size), numbers, _vector(state.body), state.ctrl)
        shown = self.read_in(seen, self.change(state.body), state.ctrl, numbers)
        return eqx.tree_at(lambda s: s.shown, state, shown)

    def foreseen(self, belief: Belief, ctrl: Array, theta: Theta) -> Forecast | None:
        """See `RobotSystem.foreseen`."""
        forecast = self.forecast(belief, ctrl, theta)
        if forecast is None:
            return None
        return self.predicting(self.linearised(belief, forecast, ctrl, theta), belief, ctrl, theta)

    def forecast(self, belief: Belief, ctrl: Float[Array, " nu"], theta: Theta) -> Forecast | None:
        """`foreseen` without derivative."""
        steps = self.estimating
        if steps is None or self.filter is None:
            return None
        late, size = self.filter.system.oldest > 0, self.filter.corrector.ny

        def run(numbers: np.ndarray, state: np.ndarray, led: np.ndarray, ctrl: np.ndarray) -> Forecast:
            engine = steps.ready(numbers)
            before = steps.read(engine, state, led) if late else None
            after, _ = steps.step(engine, state, ctrl)
            return Forecast(after, steps.read(engine, after, ctrl), before)

        out = Forecast(_shape(belief.state.size), _shape(size), _shape(size) if late else None)
        return _called(steps, run, out, self.believed_numbers(theta), belief.state, belief.ctrl, ctrl)

    def linearised(self, belief: Belief, forecast: Forecast, ctrl: Float[Array, " nu"], theta: Theta) -> Believed:
        """The derivatives of a forecast. Many at once, in a batch, cost least."""
        steps, numbers = self.estimating, self.believed_numbers(theta)
        assert steps is not None
        late, size = forecast.before is not None, forecast.reading.size

        def run(numbers: np.ndarray, *rows: np.ndarray) -> Believed:
            state, led, ctrl, after, reading, *before = rows
            ends, read = np.stack([state, after], 1), (before[0] if late else None, reading)
            moves, seen = steps.moves(numbers, ends, 0.0, np.stack([led, ctrl], 1), read)
            return Believed(moves, seen if late else None)

        out = Believed(self._moves(numbers.size, size), self._seen(numbers.size, size) if late else None)
        given = numbers, belief.state, belief.ctrl, ctrl, forecast.state, forecast.reading
        return _called(steps, run, out, *given, *([forecast.before] if late else []))

    def begun(self, start: Float[Array, " nx"], ctrl: Float[Array, " nu"], theta: Theta) -> Float[Array, " ny"] | None:
        """See `RobotSystem.begun`."""
        steps, numbers = self.estimating, self.believed_numbers(theta)
        if steps is None or self.filter is None or not self.filter.system.oldest:
            return None

        def run(numbers: np.ndarray, state: np.ndarray, ctrl: np.ndarray) -> Seen:
            return steps.seen(numbers, state, ctrl)

        seen = _called(steps, run, self._seen(numbers.size, self.filter.corrector.ny), numbers, start, ctrl)
        return self.read_in(seen, self.change(self.body_of(start)), ctrl, numbers)

    def _numbers(self, theta: Theta, state: RobotState) -> Array:
        """z of the mechanism, then the physical numbers that are drawn for an episode."""
        return jnp.concatenate([self.numbers(theta), self.context.physical(state.context)])

    @property
    def _seen_size(self) -> int:
        return 0 if self.watch is None else self.watch.size

    def _seen(self, numbers: int, size: int) -> Seen:
        """Shapes of what is read, `size` numbers."""
        shapes: Any = [_shape(size), *(_shape(size, k) for k in (self.tangent_size, self.mj.nu, numbers))]
        return Seen(*shapes)

    def _moves(self, numbers: int, size: int) -> Moves:
        """Shapes of a step, after which `size` numbers are read."""
        mj, k = self.mj, self.tangent_size
        body: Any = [_shape(size) for size in (mj.nq, mj.nv, mj.na, mj.nv)]
        by: Any = [_shape(k, other) for other in (k, mj.nu, numbers)]
        return Moves(physics.State(*body, time=_shape()), *by, self._seen(numbers, size))  # type: ignore


def differentiable(chain: RobotSystem) -> RobotSystem:
    """The chain with derivatives of its steps and readings: as it is on MJX, otherwise a `StepwiseSystem`."""
    if not isinstance(chain.watch, Watch) or isinstance(chain, StepwiseSystem):
        return chain
    mechanism, drawn = chain.mechanism, len(chain.context.physics)

    def fields(numbers: np.ndarray) -> dict[str, Any]:
        if mechanism is None:
            return {}
        return mechanism.fields(numbers[: mechanism.size], numbers[mechanism.size :] if drawn else None)

    none = np.zeros(0), np.zeros(0, bool)
    steps, moves = none if mechanism is None else (mechanism.difference, mechanism.simulates)
    difference = np.append(steps, np.ones(drawn)), np.append(moves, np.zeros(drawn, bool))
    world = CSteps(chain.watch, chain.substeps, fields, difference)
    return StepwiseSystem(**fields_of(chain), world=world, estimating=estimator_steps(chain))


def _called(steps: CSteps, run: Any, out: Any, *given: Array) -> Any:
    """`run` of rows (N, ...), called for all rows of a batch at once; `out` has the shapes of one row."""

    def rows(*given: np.ndarray) -> Any:
        lead = given[0].shape[:-1]
        flat = [one.reshape(int(np.prod(lead)), one.shape[-1]) for one in given]
        with steps.lock:
            found = run(*flat)
        return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), found)

    return call(rows, out, *given, batched=True)


def _vector(body: physics.State) -> Array:
    return jnp.concatenate([body.qpos, body.qvel, body.act])


def _shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.zeros(()).dtype)
