"""The most probable motion of a robot given all readings of a log, and its covariance, by a learned Kalman filter's noises.

The cost is minus the logarithm of the posterior of all states and drifting biases,

    |x[0] - start|^2 + sum |x[t+1] - f(x[t], u[t])|^2 + sum |y[t] - h(x[t])|^2,

each square over its covariance and halved, with differences in the tangent space. It is minimised by Gauss-Newton from the
filter's estimates. Each step is a Rauch-Tung-Striebel smoother of the model linearised at the last trajectory (Bell 1994, "The
iterated Kalman smoother as a Gauss-Newton method"), and a step that does not lower the cost is shortened.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.robot.linear_smoother import LinearProblem, smoothed
from dso_robotics.robot.trajectory_model import Linearised, TrajectoryModel

# Numbers held for one group of runs, and steps of a search.
_NUMBERS, _STEPS = 6e7, 20
# The search ends where no state moves by more than this share of its deviation, or the cost falls by less than this [nat] and
# this share of it.
_STILL, _FALL, _SHARE = 1e-4, 1e-2, 1e-7
# How often readings and breaks are judged anew by the smoothed states.
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The most probable motion in B runs of T samples; NaN after a run's end and in runs where the filter diverged.

    states: (B, T, nx). offset: biases of all channels, (B, T, ny).
    covariance: of state and drifting biases, in the tangent space, (B, T, K, K).
    passed: readings that count, (B, T, ny). breaks: (B, T) samples before which nothing is known of how the robot came there.
    cost: at the minimum, (B,) [nat]. steps: of the search, (B,). converged: (B,).
    """

    states: np.ndarray
    offset: np.ndarray
    covariance: np.ndarray
    passed: np.ndarray
    breaks: np.ndarray
    cost: np.ndarray
    steps: np.ndarray
    converged: np.ndarray


class KalmanSmoother:
    """Smooths the runs of `windows`.

    share: of right readings that are let in, such as 0.99999; a less likely one is left out.
    tell: called with the number of steps taken, and the cost of all runs [nat].
    """

    def __init__(
        self,
        theta: KalmanTheta,
        windows: FilterWindows,
        *,
        share: float,
        threads: int = 0,
        tell: Callable[[int, float], None] = lambda step, cost: None,
    ):
        self.theta, self.windows, self._share, self._threads = theta, windows, share, threads
        self._tell, self._taken = tell, 0

    def told(self, cost: np.ndarray) -> None:
        """A step was taken to this cost (B,) of the runs."""
        self._taken += 1
        self._tell(self._taken, float(cost[np.isfinite(cost)].sum()))

    def run(self, z: np.ndarray) -> Smoothed:
        """Smooth all runs at z (n,). Runs are taken in groups that fit in memory."""
        return joined([Search(model, self.told).run() for model in self.groups(z)])

    def groups(self, z: np.ndarray) -> Iterator[TrajectoryModel]:
        """The model along the runs of each group at z (n,)."""
        given, k = self.windows, Space(self.theta.physics.mj).size + len(self.theta.noise(z).drifting)
        length = given.measured.shape[1]
        many = max(int(_NUMBERS / (length * k * (9 * k + given.measured.shape[2]))), 1)
        for i in range(0, len(given), many):
            part = given.pick(np.arange(i, min(i + many, len(given))))
            yield TrajectoryModel(self.theta, part, z, self._share, self._threads)


def joined(parts: Sequence[Smoothed]) -> Smoothed:
    """The runs of all groups."""
    names = Smoothed.__dataclass_fields__
    return Smoothed(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


class Search:
    """The search over the runs of one group, from the filter's estimates.

    x, offset: states (B, T, nx) and biases (B, T, ny) that were found. good: runs (B,) in which the filter does not diverge.
    """

    x: np.ndarray
    offset: np.ndarray
    good: np.ndarray

    def __init__(self, model: TrajectoryModel, told: Callable[[np.ndarray], None]):
        self.model, self._told = model, told

    def run(self) -> Smoothed:
        """The most probable motion; `model` has the readings and breaks that it belongs to."""
        model = self.model
        x, offset, good = model.begun()
        x, offset, linear, covariance, steps, converged = self._searched(x, offset, good)
        for _ in range(_ROUNDS):
            let, breaks = model.judged(linear, x, covariance)
            if (let == model.let).all() and (breaks == model.breaks).all():
                break
            model.let, model.breaks = let, breaks
            x, offset, linear, covariance, more, converged = self._searched(x, offset, good)
            steps += more
        self.x, self.offset, self.good = x, offset, good
        return known(model, good, x, offset, covariance, linear.cost, steps, converged)

    def _searched(
        self, x: np.ndarray, offset: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Linearised, np.ndarray, np.ndarray, np.ndarray]:
        """States, biases, the model there, covariances, steps and whether each run converged."""
        model = self.model
        linear = model.linearised(x, offset)
        open_, steps, converged = good.copy(), np.zeros(len(x), int), np.zeros(len(x), bool)
        for _ in range(_STEPS):
            change, covariance = smoothed(linear.problem)
            deviation = np.sqrt(np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 1e-300))
            still = np.abs(change / deviation).max((1, 2)) < _STILL
            converged |= open_ & still
            open_ = open_ & ~still
            if not open_.any():
                return x, offset, linear, covariance, steps, converged
            steps += open_
            share, waiting = np.where(open_, 1.0, 0.0), open_.copy()
            fall = np.zeros(len(x))
            best = x, offset, linear
            while waiting.any() and share[waiting].max() > 1e-3:
                tried = model.moved(x, offset, share[:, None, None] * change)
                found = model.linearised(*tried)
                lower = waiting & (found.cost < linear.cost)
                fall = np.where(lower, linear.cost - found.cost, fall)
                best = (
                    _chosen(lower, tried[0], best[0]),
                    _chosen(lower, tried[1], best[1]),
                    _mixed(lower, found, best[2]),
                )
                waiting &= ~lower
                share = np.where(waiting, share / 4, 0.0)
            x, offset, linear = best
            self._told(linear.cost)
            settled = open_ & (fall < _FALL + _SHARE * np.abs(linear.cost))
            # Where no step lowers the cost the minimum is reached to rounding, or the model has a kink there.
            converged |= settled & ~waiting
            open_ &= ~settled
        _, covariance = smoothed(linear.problem)
        return x, offset, linear, covariance, steps, converged


def known(
    model: TrajectoryModel, good: np.ndarray, x: np.ndarray, offset: np.ndarray, covariance: np.ndarray,
    cost: np.ndarray, steps: np.ndarray, converged: np.ndarray,
) -> Smoothed:  # fmt: skip
    """What was found, without what lies after a run's end or in runs that are not `good` (B,)."""
    there = np.concatenate([np.ones((len(x), 1), bool), model.alive], 1) & good[:, None]

    def cut(values: np.ndarray) -> np.ndarray:
        return np.where(there.reshape(*there.shape, *(1,) * (values.ndim - 2)), values, np.nan)

    return Smoothed(
        cut(x), cut(offset), cut(covariance), model.let & there[..., None], model.breaks & there,
        np.where(good, cost, np.inf), steps, converged & good,
    )  # fmt: skip


def _chosen(which: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(which.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _mixed(which: np.ndarray, new: Linearised, old: Linearised) -> Linearised:
    if which.all():
        return new
    names = [name for name in LinearProblem._fields if name not in ("r", "g", "s")]
    parts = {name: _chosen(which, getattr(new.problem, name), getattr(old.problem, name)) for name in names}
    rest = (_chosen(which, getattr(new, name), getattr(old, name)) for name in ("forecast", "slope"))
    return Linearised(np.where(which, new.cost, old.cost), old.problem._replace(**parts), *rest)
