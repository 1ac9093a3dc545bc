"""The most probable motion of a robot given all readings of a log, and its covariance, by a learned Kalman filter's noises.

The cost is minus the logarithm of the posterior of all states and drifting biases,

    |x[0] - start|^2 + sum |x[t+1] - f(x[t], u[t])|^2 + sum |y[t] - h(x[t])|^2,

each square over its covariance and halved, with differences in the tangent space. It is minimised by Gauss-Newton from the
filter's estimates. Each step is a Rauch-Tung-Striebel smoother of the model linearised at the last trajectory (Bell 1994, "The
iterated Kalman smoother as a Gauss-Newton method"), and a step that does not lower the cost is shortened.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dso_robotics.data.quaternion import facing
from dso_robotics.robot.correctors.kalman import measurable, transposed, turned
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.innovation_gate import chi_squared_quantile
from dso_robotics.robot.kalman_filter import KalmanFilter
from dso_robotics.robot.kalman_gate import quantiles
from dso_robotics.robot.kalman_slopes import Slopes
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.robot.learned import MOST_PREDICTED
from dso_robotics.robot.linear_smoother import LinearProblem, smoothed, square
from dso_robotics.robot.tangent_turn import TangentTurns

# Simulations run together, numbers held for one group of runs, and steps of a search.
_PIECE, _NUMBERS, _STEPS = 8192, 6e7, 20
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


@dataclass(frozen=True, eq=False)
class _Linear:
    """The model at a trajectory.

    cost: (B,). problem: for changes of its states. forecast, slope: where the model leads from each state, (B, T-1, nx), and
    the derivative of that, (B, T-1, K, K); of breaks too, which `problem` does not hold together.
    """

    cost: np.ndarray
    problem: LinearProblem
    forecast: np.ndarray
    slope: np.ndarray


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
        given, k = self.windows, Space(self.theta.physics.mj).size + len(self.theta.noise(z).drifting)
        length = given.measured.shape[1]
        many = max(int(_NUMBERS / (length * k * (9 * k + given.measured.shape[2]))), 1)
        parts = [
            _Search(self, given.pick(np.arange(i, min(i + many, len(given)))), z).run()
            for i in range(0, len(given), many)
        ]
        names = Smoothed.__dataclass_fields__
        return Smoothed(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


class _Search:
    """The search over one group of runs."""

    def __init__(self, smoother: KalmanSmoother, given: FilterWindows, z: np.ndarray):
        self.theta, self.given, self.z, self.share = smoother.theta, given, z, smoother._share
        self.told = smoother.told
        self.chain = KalmanFilter(self.theta, given, threads=smoother._threads)
        self.space, self.noise = self.chain.space, self.theta.noise(z)
        self.turns = TangentTurns(self.theta.physics.mj)
        self.biases, self.k = self.noise.drifting, self.space.size
        self.size, self.quaternions = self.k + len(self.biases), given.channels.quaternions
        self.alive = given.seconds > 0
        self.lost = given.seconds > MOST_PREDICTED * given.interval / given.substeps
        q = self.noise.process_covariance(self.space.nv, given.seconds)
        self.q = np.where((self.alive & ~self.lost)[..., None, None], q, np.eye(self.size))
        self.start = self.noise.start(self.space, given.start)
        if given.spread is not None:
            self.start[:, : self.k, : self.k] = given.spread
        model, ids = self.theta.physics.mj, given.channels.sensor_ids
        seen = measurable(np.isfinite(given.measured), self.quaternions)
        # At the first sample the control before it is unknown, so an accelerometer tells nothing.
        seen[:, 0] &= np.array([model.sensor_needstage[i] <= 2 for i in ids])
        self.seen = seen
        self.members = [np.flatnonzero(ids == s) for s in dict.fromkeys(ids.tolist())]
        self.pieces: dict[int, Slopes] = {}

    def run(self) -> Smoothed:
        given, run = self.given, self.chain.run(self.z)
        good = np.isfinite(run.cost)
        b, _, ny = given.measured.shape
        x = np.concatenate([given.start[:, None], np.where(good[:, None, None], run.states, given.start[:, None])], 1)
        offset = np.concatenate([np.zeros((b, 1, ny)), np.where(good[:, None, None], run.offset, 0.0)], 1)
        self.breaks = np.concatenate([np.zeros((b, 1), bool), self.lost | run.anew], 1)
        self.anchors = np.concatenate([x[:, :1], x[:, :-1]], 1), np.concatenate([offset[:, :1], offset[:, :-1]], 1)
        self.let = self.seen & np.concatenate([np.ones((b, 1, ny), bool), run.passed], 1)
        x, offset, linear, covariance, steps, converged = self._searched(x, offset, good)
        for _ in range(_ROUNDS):
            let, breaks = self._judged(linear, x, covariance)
            if (let == self.let).all() and (breaks == self.breaks).all():
                break
            self.let, self.breaks = let, breaks
            x, offset, linear, covariance, more, converged = self._searched(x, offset, good)
            steps += more
        there = np.concatenate([np.ones((b, 1), bool), self.alive], 1) & good[:, None]

        def known(values: np.ndarray) -> np.ndarray:
            return np.where(there.reshape(*there.shape, *(1,) * (values.ndim - 2)), values, np.nan)

        cost = np.where(good, linear.cost, np.inf)
        return Smoothed(
            known(x), known(offset), known(covariance), self.let & there[..., None], self.breaks & there, cost, steps,
            converged & good,
        )  # fmt: skip

    def _searched(
        self, x: np.ndarray, offset: np.ndarray, good: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, _Linear, np.ndarray, np.ndarray, np.ndarray]:
        """States, biases, the model there, covariances, steps and whether each run converged."""
        linear = self._linearised(x, offset)
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
                tried = self._moved(x, offset, share[:, None, None] * change)
                found = self._linearised(*tried)
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
            self.told(linear.cost)
            settled = open_ & (fall < _FALL + _SHARE * np.abs(linear.cost))
            # Where no step lowers the cost the minimum is reached to rounding, or the model has a kink there.
            converged |= settled & ~waiting
            open_ &= ~settled
        _, covariance = smoothed(linear.problem)
        return x, offset, linear, covariance, steps, converged

    def _moved(self, x: np.ndarray, offset: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = offset.copy()
        moved[..., self.biases] += change[..., self.k :]
        return self.space.move(x, change[..., : self.k]), moved

    def _linearised(self, x: np.ndarray, offset: np.ndarray) -> _Linear:
        given, k = self.given, self.k
        forecast, slope, reading, h = self._simulated(x, offset)
        cut = self.breaks[:, 1:]
        begun = np.where(cut[..., None], self.anchors[0][:, 1:], forecast)
        before = np.where(cut[..., None], self.anchors[1][:, 1:], offset[:, :-1])[..., self.biases]
        off = np.concatenate([self.space.difference(begun, x[:, 1:]), offset[:, 1:][..., self.biases] - before], -1)
        off = np.where(self.alive[..., None], off, 0.0)
        first = np.concatenate([self.space.difference(given.start, x[:, 0]), offset[:, 0][..., self.biases]], -1)
        q, a, start = self.q, slope, self.start
        if cut.any():
            q = q.copy()
            q[cut] = self.noise.start(self.space, self.anchors[0][:, 1:][cut])
            a = np.where(cut[..., None, None], 0.0, a)
        sign = facing(reading, given.measured, self.quaternions) if self.quaternions else 1.0
        e = np.where(np.isfinite(given.measured), given.measured * sign - reading, 0.0)
        e, h = turned(reading, e, h, self.quaternions)
        r = self.noise.sensor**2
        cost = 0.5 * (
            np.sum(np.where(self.let, e**2 / r, 0.0), (1, 2)) + square(off, q).sum(1) + square(first, self.start)
        )
        cost = np.where(np.isfinite(cost), cost, np.inf)
        # A change of a state is one of its difference to the forecast, but for the curvature of rotations.
        # That of `off` itself is `off`: a rotation leaves its axis where it is.
        if self.turns:
            ahead, behind = self.turns.jacobian(off[..., :k], self.size), self.turns.inverse(-off[..., :k], self.size)
            a = ahead @ behind @ a
            q = ahead @ q @ transposed(ahead)
            ahead = self.turns.jacobian(first[..., :k], self.size)
            start = ahead @ start @ transposed(ahead)
        problem = LinearProblem(-first, start, a, -off, q, h, r, e, self.let)
        return _Linear(cost, problem, forecast, slope)

    def _simulated(self, x: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, ...]:
        """Forecasts (B, T-1, nx) from each state, A (B, T-1, K, K), readings (B, T, ny) and H (B, T, ny, K)."""
        given, (b, length, ny) = self.given, self.given.measured.shape
        forecast, a = x[:, 1:].copy(), np.broadcast_to(np.eye(self.size), (b, length - 1, self.size, self.size)).copy()
        reading, h = np.zeros((b, length, ny)), np.zeros((b, length, ny, self.size))
        seconds = np.where(self.lost, 0.0, given.seconds)
        rows = np.argwhere(self.alive)
        counts = np.ceil(seconds[tuple(rows.T)] * given.substeps / given.interval - 1e-6)
        for count in np.unique(counts):
            mine = rows[counts == count]
            size = min(_PIECE // (1 + self.k) + 1, 1 << (len(mine) - 1).bit_length())
            piece = self._piece(size)
            for i in range(0, len(mine), size):
                part = mine[i : i + size]
                # An engine has so many simulations: the last row is repeated.
                padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
                (i_run, t), here = padded.T, (part[:, 0], part[:, 1])
                ctrl = given.ctrl[i_run, t]
                ends, slope, _, _ = piece.predict(x[i_run, t], ctrl, seconds[i_run, t])
                shown, by_state, _, _ = piece.read(x[i_run, t + 1], offset[i_run, t + 1], ctrl)
                n, after = len(part), (here[0], here[1] + 1)
                forecast[here], a[here], reading[after], h[after] = ends[:n], slope[:n], shown[:n], by_state[:n]
        found = self._piece(b).read(x[:, 0], offset[:, 0], given.ctrl[:, 0])
        reading[:, 0], h[:, 0] = found[:2]
        return forecast, a, reading, h

    def _piece(self, size: int) -> Slopes:
        if size not in self.pieces:
            self.pieces[size] = Slopes(self.chain.engines, self.theta, self.given, self.z, size)
        return self.pieces[size]

    def _judged(self, linear: _Linear, x: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Readings (B, T, ny) that are likely in the smoothed states, and breaks (B, T) that the model cannot explain.

        Where a reading was taken in, the state has followed it, and what is left has the covariance R - H P H'; where it was
        left out, R + H P H'.
        """
        problem, let = linear.problem, self.seen.copy()
        feet = self.given.channels.footed
        for here in self.members:
            mine, h = self.seen[..., here], problem.h[..., here, :]
            if not mine.any():
                continue
            spread = h @ covariance @ transposed(h)
            r = problem.r[here]
            inside = np.asarray(self.let[..., here].any(-1))
            spread = np.where(inside[..., None, None], -0.999, 1.0) * spread + r[:, None] * np.eye(len(here))
            both = mine[..., :, None] & mine[..., None, :]
            e = np.where(mine, problem.e[..., here], 0.0)
            foot = feet[here[0]]
            limits = quantiles(self.share if foot is None else foot.gate, len(here))
            likely = np.asarray(square(e, np.where(both, spread, np.eye(len(here)))) <= limits[mine.sum(-1)])
            let[..., here] &= likely.reshape(*likely.shape, 1)
        breaks = self.breaks & np.concatenate([np.zeros((len(x), 1), bool), self.lost], 1)
        limit = chi_squared_quantile(self.share, self.size)
        if not (self.breaks & ~breaks).any():
            return let, breaks
        for b, t in np.argwhere(self.breaks & ~breaks):
            off, a = self.space.difference(linear.forecast[b, t - 1], x[b, t]), linear.slope[b, t - 1]
            spread = a @ covariance[b, t - 1] @ a.T + self.q[b, t - 1] + covariance[b, t]
            breaks[b, t] = square(off, spread[: self.k, : self.k]) > limit
        return let, breaks


def _chosen(which: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(which.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _mixed(which: np.ndarray, new: _Linear, old: _Linear) -> _Linear:
    if which.all():
        return new
    pairs = zip(new.problem, old.problem, LinearProblem._fields, strict=True)
    parts = [a if name == "r" else _chosen(which, a, b) for a, b, name in pairs]
    rest = (_chosen(which, getattr(new, name), getattr(old, name)) for name in ("forecast", "slope"))
    return _Linear(np.where(which, new.cost, old.cost), LinearProblem(*parts), *rest)
