"""Training by supervised costs alone: Levenberg-Marquardt where they are likelihoods of few numbers, Adam otherwise.

No window is simulated. Both minimise the sum of the supervised costs over the entries that any of them moves.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.core.descent import Status
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.curved_step import Curvature
from dso_robotics.core.method.learner import Record
from dso_robotics.core.method.settings import Settings
from dso_robotics.errors import DsoError

# Damping of the first step, its factors after an accepted and a rejected trial, and the most trials of one step.
_DAMPING, _DOWN, _UP, _TRIALS = 1e-3, 0.2, 5.0, 12
# The search ends when the model predicts a smaller decrease than this, relative to one unit of the cost.
_TOLERANCE = 1e-10
# Adam is lost after this share of the iterations in a row without a finite gradient.
_LOST = 20


class Settled(eqx.Module):
    """Everything that the next iteration depends on. lost: consecutive steps that could not be taken."""

    theta: Float[Array, " n"]
    memory: Any
    damping: Float[Array, ""]
    optimiser: Any
    iteration: Array
    lost: Array


class _Supervised:
    """What both methods share: see `ShortHorizon` for the arguments."""

    engine = "mjx"
    supervises = True
    constrains = False
    moves_noise = True
    reads_c = False
    trusts = False
    slopes = False
    # Whether windows of the chain are simulated, which costs of the motion need.
    rolls = False

    def __init__(
        self,
        course: Course,
        settings: Settings,
        *,
        theta: np.ndarray,
        blocks: Sequence[slice],
        rates: np.ndarray,
        supervised: Mapping[str, Callable[..., Array]] | None = None,
        moved: np.ndarray | None = None,
        curvature: Curvature | None = None,
    ):
        self.course, self.settings, self.curvature = course, settings, curvature
        self.supervised, self.rates = dict(supervised or {}), jnp.asarray(rates)
        if not self.supervised:
            raise DsoError(f"method = '{settings.method}' minimises costs of logs alone, and there is none.")
        self._value: Any = jax.jit(self._cost)
        self._slope: Any = jax.jit(jax.value_and_grad(self._cost))

    @staticmethod
    def entries(method: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
        """No entry is differentiated by the score."""
        return np.zeros(np.shape(theta)[0], bool)

    def _cost(self, theta: Array, progress: Array) -> Array:
        chain = self.course.at(self.course.memory)
        return sum((cost(chain, theta, progress) for cost in self.supervised.values()), jnp.zeros(()))

    def init(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> Settled:
        """The state before the first iteration. Nothing is drawn with `key`."""
        theta = jnp.asarray(theta)
        optimiser = optax.scale_by_adam().init(theta)
        zero = jnp.zeros((), int)
        return Settled(theta, self.course.memory, jnp.asarray(_DAMPING), optimiser, zero, zero)

    def compile(self, state: Settled) -> None:
        """Compile what the first step needs."""
        self._slope(state.theta, self._progress(state))

    def _progress(self, state: Settled) -> Array:
        return state.iteration / self.settings.iterations

    def done(self, state: Settled, record: Record | None) -> Status | None:
        """Diverged if the last steps had no finite gradient."""
        limit = max(self.settings.iterations // _LOST, 1)
        if record is not None and not np.isfinite(record.cost) and int(state.lost) >= limit:
            return Status.DIVERGED
        return None

    def message(self, state: Settled, status: Status, steps: int) -> str:
        """How the training ended."""
        if status is Status.DIVERGED:
            return f"after {steps} iterations the costs have no finite gradient; start with other values"
        return f"{steps} iterations" if status is Status.ITERATIONS else f"{status} after {steps} iterations"


@TRAINING.register("gauss_newton")
class GaussNewtonTraining(_Supervised):
    """Levenberg-Marquardt with the Gauss-Newton matrix of the likelihoods. Every accepted step lowers the cost."""

    reason = "all costs are likelihoods of few numbers, so Gauss-Newton steps need few iterations and no step size"

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        if self.curvature is None:
            raise DsoError(
                "method = 'gauss_newton' needs costs that are likelihoods or priors of few numbers; use 'likelihood_adam'."
            )
        curvature, chain = self.curvature, self.course.at(self.course.memory)
        self._matrix: Any = jax.jit(lambda theta: curvature.matrix(chain, theta))

    def step(self, state: Settled) -> tuple[Settled, Record]:
        """One accepted step, or a larger damping after trials that do not lower the cost."""
        assert self.curvature is not None
        at, progress = self.curvature.entries, self._progress(state)
        value, slope = self._slope(state.theta, progress)
        gradient, matrix = np.asarray(slope)[at], np.asarray(self._matrix(state.theta))
        diagonal = np.maximum(np.diag(matrix), 0.0)
        free, damping, theta = diagonal > 0, float(state.damping), np.asarray(state.theta)
        accepted, reached, predicted = False, float(value), 0.0
        if np.isfinite(value) and np.isfinite(matrix).all() and np.isfinite(gradient).all():
            for _ in range(_TRIALS):
                scaled = matrix[np.ix_(free, free)] + damping * np.diag(diagonal[free])
                change = -np.linalg.solve(scaled, gradient[free])
                predicted = -float(gradient[free] @ change) / 2
                trial = theta.copy()
                trial[at[free]] += change
                cost = float(self._value(jnp.asarray(trial), progress))
                if cost < reached:
                    accepted, theta, reached = True, trial, cost
                    damping = max(damping * _DOWN, 1e-12)
                    break
                if predicted < _TOLERANCE:
                    break
                damping *= _UP
        else:
            reached = float("nan")
        lost = jnp.where(accepted, 0, state.lost + 1)
        following = Settled(
            jnp.asarray(theta), state.memory, jnp.asarray(damping), state.optimiser, state.iteration + 1, lost
        )
        return following, Record(reached, np.zeros(0), float(np.linalg.norm(gradient)), predicted, 0.0, accepted)

    def done(self, state: Settled, record: Record | None) -> Status | None:
        """Converged if the predicted decrease is negligible; stalled if no trial of two steps lowers the cost."""
        if record is None:
            return None
        if np.isfinite(record.cost) and record.value_error < _TOLERANCE:
            return Status.CONVERGED
        if int(state.lost) >= 2:
            return Status.STALLED if np.isfinite(record.cost) else Status.DIVERGED
        return None


@TRAINING.register("likelihood_adam")
class AdamTraining(_Supervised):
    """Adam on the sum of the supervised costs."""

    reason = "no cost needs a rollout, and there are too many numbers for Gauss-Newton steps"

    def step(self, state: Settled) -> tuple[Settled, Record]:
        """One step of Adam."""
        value, slope = self._slope(state.theta, self._progress(state))
        finite = bool(jnp.all(jnp.isfinite(slope)))
        theta, optimiser = state.theta, state.optimiser
        if finite:
            change, optimiser = optax.scale_by_adam().update(slope, optimiser)
            fallen = 1.0 - (1.0 - self.settings.final_rate) * float(self._progress(state))
            theta = theta - self.rates * fallen * jnp.asarray(change)
        lost = jnp.zeros((), int) if finite else state.lost + 1
        following = Settled(theta, state.memory, state.damping, optimiser, state.iteration + 1, lost)
        return following, Record(float(value), np.zeros(0), float(jnp.linalg.norm(slope)), 0.0, 0.0, finite)
