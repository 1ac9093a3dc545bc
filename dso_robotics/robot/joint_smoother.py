"""The most probable motion and physics together, given all readings of a log, by a learned Kalman filter's noises.

The cost is that of `kalman_smoother`, as a function of the states of all runs and of the physics and sensor numbers that they
share, with the prior of these. It is minimised by Gauss-Newton over all of them. The normal equations have the shape of an
arrow: a band of the states, bordered by the numbers. `linear_smoother.jointly` eliminates the states by a smoother's
recursion, and what is left is a small system of the numbers.
"""

from dataclasses import dataclass, replace

import numpy as np

from dso_robotics.core.covariance import Uncertainty, uncertainty
from dso_robotics.core.descent import Status
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.core.method.normal import box_step
from dso_robotics.robot.correctors.kalman import transposed
from dso_robotics.robot.kalman_smoother import KalmanSmoother, Search, Smoothed, joined, known
from dso_robotics.robot.linear_smoother import Jointly, jointly
from dso_robotics.robot.trajectory_model import Linearised

# Steps of the search, and how often readings and breaks are judged anew.
_STEPS, _ROUNDS = 30, 3
# The search ends where nothing moves by more than this share of its deviation, or the cost falls by less than this [nat] and
# this share of it.
_STILL, _FALL, _SHARE = 1e-4, 1e-4, 1e-9
# Added to the information of each number, in units of its scale: what no reading tells of stays where it is.
_HELD = 1e-6


@dataclass(frozen=True, eq=False)
class Joint:
    """The most probable motion and numbers.

    z: (n,), where the physics is what was found and the noises are as they were. motion: with covariances that include the
    uncertainty of the numbers. solution, spread: of the physics (m,) alone; each run is a block.
    steps: of the search over all runs.
    """

    z: np.ndarray
    motion: Smoothed
    solution: Solution
    spread: Uncertainty
    steps: int

    @property
    def converged(self) -> bool:
        """Whether the search ended at a minimum."""
        return self.solution.converged

    @property
    def covariance(self) -> np.ndarray:
        """What the motion counts of the numbers, (m, m): nothing of one at its bound."""
        return free_covariance(self.solution, self.spread)


class JointSmoother:
    """Smooths the runs of `smoother` and finds the physics and sensor numbers that they have in common."""

    def __init__(self, smoother: KalmanSmoother):
        self.theta, self._smoother = smoother.theta, smoother
        self.here = self.theta.where("physics")

    def run(self, z: np.ndarray) -> Joint:
        """Search from the smoothed motion at z (n,), whose noises are kept."""
        groups = [Search(model, self._smoother.told) for model in self._smoother.groups(z)]
        alone = [group.run() for group in groups]
        steps, converged, found = 0, False, None
        for _ in range(_ROUNDS):
            z, found, more, converged = self._searched(z, groups)
            steps += more
            if not self._judged(groups, found):
                break
        assert found is not None
        solution = replace(found.solution, status=Status.CONVERGED) if converged else found.solution
        motion = [
            known(
                group.model, group.good, group.x, group.offset, covariance, linear.cost,
                before.steps + steps, np.full(len(group.x), converged),
            )
            for group, before, (linear, _), covariance in zip(groups, alone, found.parts, found.covariances, strict=True)
        ]  # fmt: skip
        return Joint(z, joined(motion), solution, found.spread, steps)

    def _searched(self, z: np.ndarray, groups: list[Search]) -> "tuple[np.ndarray, _Point, int, bool]":
        """Gauss-Newton until nothing moves: z, the model there, steps, and whether it converged."""
        low, high = self.theta.low[self.here], self.theta.high[self.here]
        point = self._linearised(z, groups)
        for step in range(_STEPS):
            push = _step(point.solution, self.theta.physics.scale, low, high)
            changes = [
                np.where(group.good[:, None, None], found.mean + found.slope @ push, 0.0)
                for group, (_, found) in zip(groups, point.parts, strict=True)
            ]
            far = np.abs(push / np.maximum(point.spread.std, 1e-300))[~point.solution.active].max(initial=0.0)
            for group, change, covariance in zip(groups, changes, point.covariances, strict=True):
                deviation = np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 1e-300))
                far = max(far, np.abs(change / deviation)[group.good].max(initial=0.0))
            if far < _STILL:
                return z, point, step, True
            start, share = [(group.x, group.offset) for group in groups], 1.0
            while share > 1e-3:
                tried = z.copy()
                tried[self.here] = np.clip(tried[self.here] + share * push, low, high)
                for group, (x, offset), change in zip(groups, start, changes, strict=True):
                    group.x, group.offset = group.model.moved(x, offset, share * change)
                if self._cost(tried, groups) < point.solution.cost:
                    break
                share /= 4
            else:
                for group, (x, offset) in zip(groups, start, strict=True):
                    group.x, group.offset = x, offset
                return z, point, step, False
            z, before = tried, point.solution.cost
            point = self._linearised(z, groups)
            self._smoother.told(np.array([point.solution.cost]))
            if before - point.solution.cost < _FALL + _SHARE * abs(before):
                return z, point, step + 1, True
        return z, point, _STEPS, False

    def _cost(self, z: np.ndarray, groups: list[Search]) -> float:
        pull = self.theta.prior_residual(z)
        total = 0.5 * float(pull @ pull)
        for group in groups:
            group.model.move_to(z)
            total += float(group.model.linearised(group.x, group.offset).cost[group.good].sum())
        return total

    def _linearised(self, z: np.ndarray, groups: list[Search]) -> "_Point":
        (pull, slope), parts = self.theta.prior(z), []
        for group in groups:
            group.model.move_to(z, derivatives=True)
            linear = group.model.linearised(group.x, group.offset)
            parts.append((linear, jointly(linear.problem)))

        def of_good(values: list[np.ndarray]) -> np.ndarray:
            return np.concatenate([of[group.good] for group, of in zip(groups, values, strict=True)])

        solution = Solution.of_blocks(
            z[self.here],
            of_good([linear.cost for linear, _ in parts]),
            of_good([-found.pull for _, found in parts]),
            of_good([found.information for _, found in parts]),
            (pull, slope[:, self.here]),
            self.theta.low[self.here],
            self.theta.high[self.here],
            status=Status.STALLED,
        )
        spread = uncertainty(solution, self.theta.physics.scale)
        between = free_covariance(solution, spread)
        return _Point(parts, [widened(found, between) for _, found in parts], solution, spread)

    def _judged(self, groups: list[Search], point: "_Point") -> bool:
        """Judge readings and breaks anew; whether one changed."""
        changed = False
        for group, (linear, _), covariance in zip(groups, point.parts, point.covariances, strict=True):
            model = group.model
            let, breaks = model.judged(linear, group.x, covariance)
            changed |= bool((let != model.let).any() or (breaks != model.breaks).any())
            model.let, model.breaks = let, breaks
        return changed


@dataclass(frozen=True, eq=False)
class _Point:
    """The model at states and numbers: by group, its linear problem, the solution of that, and covariances of the states."""

    parts: list[tuple[Linearised, Jointly]]
    covariances: list[np.ndarray]
    solution: Solution
    spread: Uncertainty


def at_numbers(smoother: KalmanSmoother, z: np.ndarray, covariance: np.ndarray) -> Smoothed:
    """Smooth runs at z (n,), which other runs told with the `covariance` (m, m) of the physics; that widens the motion's."""
    parts = []
    for model in smoother.groups(z):
        group = Search(model, smoother.told)
        found = group.run()
        model.move_to(z, derivatives=True)
        wide = widened(jointly(model.linearised(group.x, group.offset).problem), covariance)
        parts.append(replace(found, covariance=np.where(np.isfinite(found.covariance), wide, np.nan)))
    return joined(parts)


def widened(found: Jointly, covariance: np.ndarray) -> np.ndarray:
    """Covariances (B, T, K, K) of the states with those of the shared numbers, (m, m)."""
    return found.covariance + found.slope @ covariance @ transposed(found.slope)


def free_covariance(solution: Solution, spread: Uncertainty) -> np.ndarray:
    """The covariance (m, m) of the numbers, and nothing for one that a bound holds."""
    return np.where(solution.active[:, None] | solution.active, 0.0, spread.covariance)


def _step(solution: Solution, scale: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The step (m,) of the numbers to the minimum of the linearised cost within the bounds."""
    unit = solution.information * np.outer(scale, scale) + _HELD * np.eye(len(scale))
    room = (low - solution.z) / scale, (high - solution.z) / scale
    return box_step(unit, solution.gradient * scale, *room) * scale
