"""Fisher scoring with Levenberg's damping: Newton's method on a negative log-likelihood, with its expected Hessian.

The Fisher information is positive semidefinite wherever it is evaluated, so every step is one of descent. A point whose cost is
not lower is refused and the damping grows.
"""

import dataclasses
from typing import Any, Protocol

import numpy as np

from dso_robotics.core.descent import CACHE, Status
from dso_robotics.core.method.least_squares import Record, StartError

# First damping, the factors by which it falls and grows, and its limit.
_DAMPING, _FALL, _GROW, _LIMIT = 1e-3, 0.2, 6.0, 1e8
# [nats] that count as no change, and the step that does, in standard deviations of the numbers.
_NATS, _STEP = 0.02, 0.05


class LogLikelihood(Protocol):
    """A negative log-likelihood, priors included."""

    def evaluate(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Cost at z (n,), infinite where it cannot be evaluated, its gradient (n,), and the information (n, n)."""
        ...


@dataclasses.dataclass(frozen=True)
class Local:
    """The cost around a point: its value, gradient (n,) and information (n, n)."""

    cost: float
    gradient: np.ndarray
    information: np.ndarray


@dataclasses.dataclass(frozen=True)
class State:
    """z (n,), the damping, numbers of steps and of evaluations, whether the search is over, and the cost around z."""

    z: np.ndarray
    damping: float
    iteration: int
    evaluations: int
    verdict: int
    local: Local | None = dataclasses.field(default=None, metadata=CACHE)

    @property
    def theta(self) -> np.ndarray:
        """z."""
        return self.z


_TEXTS = {
    1: "no step promises to lower the cost",
    2: "no step lowers the cost",
    3: "no step lowers the cost; the gradient is not zero",
}


class FisherScoring:
    """Minimise `problem` over z within [low, high], (n,) each."""

    def __init__(self, problem: LogLikelihood, *, low: np.ndarray, high: np.ndarray):
        self.problem, self._low, self._high = problem, low, high

    def init(self, key: Any, theta: np.ndarray) -> State:
        """The state at z = theta. Nothing is random.

        Raises:
          StartError: the cost is not finite there.
        """
        local = Local(*self.problem.evaluate(theta))
        if not np.isfinite(local.cost):
            raise StartError("the likelihood is not finite at the start point; begin somewhere else.")
        return State(theta, _DAMPING, 0, 1, 0, local)

    def step(self, state: State) -> tuple[State, Record]:
        """Move to a lower cost."""
        z, damping, evaluations = state.z, state.damping, state.evaluations
        local = state.local or Local(*self.problem.evaluate(z))
        record = Record(state.iteration, local.cost, damping, z, evaluations)
        rest = {"iteration": state.iteration + 1}
        while True:
            moved, promise, sizes = self._proposed(z, local, damping)
            if promise <= _NATS and sizes <= _STEP:
                return dataclasses.replace(state, verdict=1, evaluations=evaluations, local=local, **rest), record
            if damping > _LIMIT:
                verdict = 2 if promise <= max(1e-4 * abs(local.cost), 1e-4) else 3
                return dataclasses.replace(state, verdict=verdict, evaluations=evaluations, local=local, **rest), record
            found = Local(*self.problem.evaluate(moved))
            evaluations += 1
            if found.cost < local.cost:
                break
            if promise <= _NATS:
                return dataclasses.replace(state, verdict=1, evaluations=evaluations, local=local, **rest), record
            damping = max(damping, 1e-6) * _GROW
        gain = (local.cost - found.cost) / max(promise, 1e-300)
        damping = damping * (_FALL if gain > 0.75 else 1.0 if gain > 0.25 else 2.0)
        return State(moved, max(damping, 1e-9), state.iteration + 1, evaluations, 0, found), record

    def _proposed(self, z: np.ndarray, local: Local, damping: float) -> tuple[np.ndarray, float, float]:
        """The next point, by how much the cost should fall there, and the largest step in standard deviations."""
        gradient, information = local.gradient, local.information
        free = ~(((z <= self._low) & (gradient > 0)) | ((z >= self._high) & (gradient < 0)))
        step = np.zeros_like(z)
        if free.any():
            g, h = gradient[free], information[np.ix_(free, free)]
            curved = h + damping * np.diag(np.maximum(np.diag(h), 1e-12))
            step[free] = np.linalg.lstsq(curved, -g, rcond=None)[0]
        moved = np.clip(z + step, self._low, self._high)
        step = moved - z
        promise = float(-(gradient @ step) - 0.5 * step @ information @ step)
        return moved, promise, float(np.max(np.abs(step) * np.sqrt(np.maximum(np.diag(information), 0.0)), initial=0.0))

    def done(self, state: State, record: Record | None) -> Status | None:
        """Converged if no step promises to lower the cost; stalled if none lowers it."""
        if not state.verdict:
            return None
        return Status.STALLED if state.verdict == 3 else Status.CONVERGED

    def message(self, state: State, status: Status, steps: int) -> str:
        """Why the search ended."""
        return _TEXTS.get(state.verdict, f"stopped after {steps} iterations")
