"""Evolution strategy with covariance matrix adaptation, for costs without a derivative and with limits.

Points that break a limit rank behind all that keep them, by how far they break it, so no weight of a penalty has to be chosen.
Equation numbers are those of Hansen, "The CMA Evolution Strategy: A Tutorial" (2016), arXiv 1604.00772.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from dso_robotics.core.descent import Status

# A search ends when its steps are this share of the first ones.
_SMALL = 1e-3
# Largest ratio of the axes of the covariance, squared.
_SLENDER = 1e12


@dataclasses.dataclass(frozen=True)
class Swarm:
    """The state of the search.

    mean: (n,) centre of the next points.
    sigma: size of a step.
    covariance: (n, n) shape of a step.
    pace: (n,) path of the steps, for the size.
    trail: (n,) path of the steps, for the shape.
    iteration, evaluations: number of steps, and of points evaluated.
    best: (n,) the best point so far, with its `cost` and `violation`.
    """

    mean: np.ndarray
    sigma: float
    covariance: np.ndarray
    pace: np.ndarray
    trail: np.ndarray
    iteration: int
    evaluations: int
    best: np.ndarray
    cost: float
    violation: float

    @property
    def theta(self) -> np.ndarray:
        """The best point."""
        return self.best


@dataclasses.dataclass(frozen=True)
class Generation:
    """Record of a step: the best point so far, and how many of the new points keep all limits."""

    iteration: int
    cost: float
    violation: float
    kept: int
    evaluations: int


class Evolution:
    """Minimise `evaluate` over theta (n,), which should be of size one.

    evaluate: costs (P,) and violations (P,) of points (P, n); a violation of 0 means that all limits are kept. The cost of a
      point that breaks one is not read.
    step: standard deviation of the first points.
    seed: of the drawn points. The same seed gives the same search.
    """

    def __init__(
        self,
        evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        size: int,
        *,
        step: float = 0.3,
        seed: int = 0,
        population: int | None = None,
    ):
        self._evaluate, self._step, self._seed, self._size = evaluate, step, seed, size
        self.population = population or 4 + int(3 * np.log(size))
        half = self.population // 2
        weights = np.log((self.population + 1) / 2) - np.log(np.arange(1, half + 1))  # (49)
        self._weights = weights / weights.sum()
        self._mass = float(1 / np.sum(self._weights**2))  # (8)
        n, mass = size, self._mass
        self._c_sigma = (mass + 2) / (n + mass + 5)  # (55)
        self._damp = 1 + 2 * max(0.0, np.sqrt((mass - 1) / (n + 1)) - 1) + self._c_sigma
        self._c_trail = (4 + mass / n) / (n + 4 + 2 * mass / n)  # (56)
        self._c_one = 2 / ((n + 1.3) ** 2 + mass)  # (57)
        self._c_many = min(1 - self._c_one, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass))  # (58)
        self._length = float(np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2)))

    def init(self, key: Any, theta: np.ndarray) -> Swarm:
        """The state at theta. `key` is not used: points follow from the seed and the iteration."""
        n = self._size
        cost, violation = (float(v[0]) for v in self._evaluate(theta[None]))
        return Swarm(theta, self._step, np.eye(n), np.zeros(n), np.zeros(n), 0, 1, theta, cost, violation)

    def step(self, state: Swarm) -> tuple[Swarm, Generation]:
        """Draw points about the mean, and move to the better half of them."""
        values, axes = np.linalg.eigh(state.covariance)
        lengths = np.sqrt(np.maximum(values, values[-1] / _SLENDER))
        rng = np.random.default_rng([self._seed, state.iteration])
        drawn = rng.standard_normal((self.population, self._size)) * lengths @ axes.T
        points = state.mean + state.sigma * drawn
        cost, violation = self._evaluate(points)
        order = np.lexsort((np.where(violation > 0, 0.0, cost), violation))
        chosen = drawn[order[: len(self._weights)]]
        move = self._weights @ chosen  # (41)
        unturned = axes @ ((move @ axes) / lengths)
        pace = (1 - self._c_sigma) * state.pace + np.sqrt(self._c_sigma * (2 - self._c_sigma) * self._mass) * unturned
        length = float(np.linalg.norm(pace))
        sigma = state.sigma * float(np.exp(min(1.0, self._c_sigma / self._damp * (length / self._length - 1))))  # (44)
        settled = (
            length / np.sqrt(1 - (1 - self._c_sigma) ** (2 * (state.iteration + 1)))
            < (1.4 + 2 / (self._size + 1)) * self._length
        )
        trail = (1 - self._c_trail) * state.trail
        if settled:
            trail = trail + np.sqrt(self._c_trail * (2 - self._c_trail) * self._mass) * move  # (45)
        lost = 0.0 if settled else self._c_one * self._c_trail * (2 - self._c_trail)
        covariance = (1 - self._c_one - self._c_many + lost) * state.covariance  # (47)
        covariance += self._c_one * np.outer(trail, trail) + self._c_many * (chosen.T * self._weights) @ chosen
        best, lowest, least = state.best, state.cost, state.violation
        first = int(order[0])
        if (float(violation[first]), float(cost[first])) < (least, lowest):
            best, lowest, least = points[first], float(cost[first]), float(violation[first])
        after = Swarm(
            state.mean + state.sigma * move,
            sigma,
            (covariance + covariance.T) / 2,
            pace,
            trail,
            state.iteration + 1,
            state.evaluations + self.population,
            best,
            lowest,
            least,
        )
        kept = int((violation == 0).sum())
        return after, Generation(state.iteration, lowest, least, kept, after.evaluations)

    def done(self, state: Swarm, record: Generation | None) -> Status | None:
        """Converged when steps are small."""
        return Status.CONVERGED if state.sigma < _SMALL * self._step else None

    def message(self, state: Swarm, status: Status, steps: int) -> str:
        """The number of points tried, and why the search ended."""
        why = "steps are small" if status is Status.CONVERGED else "the number of trials is used up"
        return f"{state.evaluations} trials; {why}"
