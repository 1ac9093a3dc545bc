"""What the estimator of a chain predicts, simulated by C MuJoCo for many estimates at once, and its derivatives."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from mujoco import batch

from dso_robotics.core.compiling import quick_jit
from dso_robotics.robot.c_steps import CSteps
from dso_robotics.robot.filter_jax import Belief, Forecast
from dso_robotics.robot.filter_mujoco import CSystem
from dso_robotics.robot.replay import Believed, Seen
from dso_robotics.robot.system import RobotSystem


def estimator_steps(chain: RobotSystem, *, threads: int = 0) -> CSteps | None:
    """Steps of the model that the chain's estimator predicts with, whose numbers are `believed_numbers`. None on MJX."""
    system = None if chain.filter is None else chain.filter.system
    if not isinstance(system, CSystem):
        return None
    fields: Any = chain.believed_fields
    return CSteps(system.watch, system.substeps, fields, chain.believed_difference, threads=threads)


class Forecasts:
    """Simulates the predictions of a chain's estimator, which is a `CSystem`. Each begins without a warm start."""

    def __init__(self, chain: RobotSystem, steps: CSteps):
        assert chain.filter is not None
        self._steps, self._late = steps, chain.filter.system.oldest > 0
        self._numbers: Any = quick_jit(lambda theta: chain.believed_numbers(theta))
        self._numbers_of_each: Any = quick_jit(jax.vmap(lambda theta: chain.believed_numbers(theta)))

    def engine(self, theta: Float[np.ndarray, "*N n"], count: int) -> batch.Batch:
        """A new engine for `count` estimates, with the estimator's model at theta: (n,), or (count, n) with one for each."""
        return self._steps.engine(self._rows(theta, count))

    def ready(self, theta: Float[np.ndarray, "*N n"], count: int) -> batch.Batch:
        """As `engine`; it is used again by later calls."""
        return self._steps.ready(self._rows(theta, count))

    def __call__(self, engine: batch.Batch, belief: Belief, ctrl: np.ndarray) -> Forecast:
        """Predictions (N, ...) from estimates (N, ...) under controls (N, nu)."""
        steps = self._steps
        before = steps.read(engine, belief.state, belief.ctrl) if self._late else None
        state, _ = steps.step(engine, belief.state, ctrl)
        return Forecast(state, steps.read(engine, state, ctrl), before)

    def begun(self, theta: Any, state: np.ndarray, ctrl: np.ndarray, *, centred: bool = False) -> Seen | None:
        """What delayed sensors show at first: readings in states (N, nx) under controls (N, nu). None without such sensors."""
        return self._steps.seen(self._rows(theta, len(state)), state, ctrl, centred=centred) if self._late else None

    def record(self, theta: Any, beliefs: Belief, forecasts: Forecast, *, centred: bool = False) -> Believed:
        """Linearise the predictions (E, T, ...) that were made of estimates (E, T+1, ...), which follow each other."""
        shape = forecasts.state.shape[:2]
        count = shape[0] * shape[1]

        def flat(part: Any) -> np.ndarray:
            return np.asarray(part).reshape(count, -1)

        state, ctrl = np.asarray(beliefs.state), np.asarray(beliefs.ctrl)
        ends = np.stack([flat(state[:, :-1]), flat(forecasts.state)], 1)
        led = np.stack([flat(ctrl[:, :-1]), flat(ctrl[:, 1:])], 1)
        before = None if forecasts.before is None else flat(forecasts.before)
        given = self._rows(theta, count), ends, 0.0, led, (before, flat(forecasts.reading))
        moves, seen = self._steps.moves(*given, centred=centred)
        found = Believed(moves, None if before is None else seen)
        return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), found)

    def _rows(self, theta: Any, count: int) -> np.ndarray:
        """The numbers of the estimator's model for `count` estimates, (count, nz)."""
        if np.ndim(theta) == 2:
            return np.asarray(self._numbers_of_each(theta))
        return np.tile(np.asarray(self._numbers(theta)), (count, 1))


def forecasts_of(chain: RobotSystem, *, threads: int = 0) -> Forecasts | None:
    """The predictions of a chain's estimator on C. None without an estimator, and on MJX, where its filter simulates."""
    steps = estimator_steps(chain, threads=threads)
    return None if steps is None else Forecasts(chain, steps)
