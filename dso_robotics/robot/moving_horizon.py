"""An estimator that fits the last N samples anew at every update: a moving horizon, with a learned Kalman filter's noises.

A Kalman filter linearises each sample once, at what it believed then. Here the states of the last N samples are the most
probable ones given an arrival cost and all of their readings, by Gauss-Newton with the smoother's steps. The arrival cost is
the filter's belief of the state before them, moved on at the fitted states (Rao, Rawlings and Lee 2001). On a linear model it
is the Kalman filter. An update takes some 10 N times as long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.robot.correctors.kalman import correction, measurable
from dso_robotics.robot.estimator import Estimate, Estimator
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.robot.kalman_gate import Restart
from dso_robotics.robot.kalman_tracker import Belief
from dso_robotics.robot.learned import Learned
from dso_robotics.robot.linear_smoother import LinearProblem, smoothed, square
from dso_robotics.robot.tangent_turn import TangentTurns

_MOST = 1000
# Gauss-Newton steps of an update, and the share of a deviation below which a step ends them.
_STEPS, _STILL = 8, 1e-3
# While an angle is not known better than this [rad], the search also begins at the filter's estimates. While that of a
# hinge is not known better than the second number, it begins all around too, at most so many times.
_UNKNOWN, _ANYWHERE, _MOST_STARTS = 0.3, 0.9, 8
_HINGES = (-2.4, -1.2, 1.2, 2.4)


@dataclass(frozen=True, eq=False)
class _Sample:
    """Readings y (ny,) at the end of `seconds` under the control u (nu,), and which channels count, let (ny,)."""

    u: np.ndarray
    seconds: float
    y: np.ndarray
    let: np.ndarray


@dataclass(frozen=True, eq=False)
class _Fit:
    """States of the window, its oldest first (one more than samples), and the model linearised there."""

    states: list[np.ndarray]
    offsets: list[np.ndarray]
    cost: float
    problem: LinearProblem


class MovingHorizon(KalmanEstimator):
    """See the module. It is used as a `KalmanEstimator`, but for `late`.

    samples: N, the updates that are fitted together.
    """

    def __init__(self, model: mujoco.MjModel, learned: Learned, samples: int = 10):
        super().__init__(model, learned)
        if not (isinstance(samples, int) and 1 <= samples <= _MOST):
            raise DsoError(f"samples = {samples!r}; give a whole number of updates from 1 to {_MOST}, such as 10.")
        if self._late.any():
            late = next(name for name, delayed in zip(self.names, self._late, strict=True) if delayed)
            raise DsoError(f"sensor {late!r} is late, and a moving horizon takes no late readings; use Estimator.load.")
        self.samples = samples
        self._turns = TangentTurns(model)
        self._angles = self._turns.angles

    @classmethod
    def load(cls, folder: str | Path, samples: int = 10) -> "MovingHorizon":
        """Load the Kalman filter that `dso estimate --out FOLDER` wrote, to fit `samples` updates together.

        Raises:
          DsoError: as `Estimator.load`; or the folder holds another corrector or a late sensor, or `samples` is not from 1 to
            1000.
        """
        found = Estimator.load(folder)
        if not isinstance(found, KalmanEstimator):
            kind = found.learned.corrector.kind
            raise DsoError(f'{folder}: holds the corrector {kind!r}; a moving horizon needs the noises of a "kalman".')
        made = cls(found.model, found.learned, samples)
        made.robot = found.robot
        return made

    def reset(
        self,
        qpos: Sequence[float] | np.ndarray | None = None,
        qvel: Sequence[float] | np.ndarray | None = None,
        act: Sequence[float] | np.ndarray | None = None,
        *,
        measurement: Sequence[float] | np.ndarray | Mapping[str, float] | None = None,
    ) -> Estimate:
        """See `KalmanEstimator.reset`."""
        first = super().reset(qpos, qvel, act, measurement=measurement)
        self._arrival = self._clouds.summary(self._cloud)
        self._window: list[_Sample] = []
        self._states, self._offsets = [self._arrival.state], [self._arrival.offset]
        self._filtered = [self._arrival]
        return first

    def update(
        self,
        ctrl: Sequence[float] | np.ndarray | Mapping[str, float],
        measurement: Sequence[float] | np.ndarray | Mapping[str, float],
        dt: float | None = None,
    ) -> Estimate:
        """See `KalmanEstimator.update`. A reading counts if it is likely given all others of the window."""
        found = super().update(ctrl, measurement, dt)
        event = self._events[-1]
        belief = self._clouds.summary(self._cloud)
        if self._tracker.lost(event.seconds):
            return self._begin(belief, found)
        seen = measurable(np.isfinite(event.measured), self._quaternions)
        # A reading that the filter found wild is left out until the window has judged it.
        out = np.isnan(found.innovation) & np.isfinite(event.measured)
        window = [*self._window, _Sample(event.ctrl, event.seconds, event.measured, seen & ~out)]
        filtered = [*self._filtered, belief]
        try:
            fit, covariances, window = self._fitted(window, filtered)
        except (DsoError, np.linalg.LinAlgError):
            return self._begin(belief, found)
        # A jump of a bias in the window is not in its noises.
        lost = self._restart is not Restart.NONE and (seen & ~window[-1].let).any()
        if lost or self._restart is Restart.LATELY:
            return self._begin(belief, found)
        arrival = self._arrival
        self._states, self._offsets = fit.states, fit.offsets
        if len(window) > self.samples:
            arrival = self._moved_on(window[0], fit)
            window, filtered = window[1:], filtered[1:]
            self._states, self._offsets = fit.states[1:], fit.offsets[1:]
        self._arrival, self._window, self._filtered = arrival, window, filtered
        state, covariance = fit.states[-1], covariances[-1]
        nq, nv = self._space.nq, self._space.nv
        self._state = state
        return replace(
            found,
            qpos=state[:nq].copy(),
            qvel=state[nq : nq + nv].copy(),
            act=state[nq + nv :].copy(),
            covariance=covariance[: 2 * nv, : 2 * nv].copy(),
            bias=fit.offsets[-1].copy(),
        )

    def late(self, measurement: Sequence[float] | np.ndarray | Mapping[str, float], age: float) -> Estimate:
        """Raise DsoError: a window of samples takes no late readings; `KalmanEstimator` does."""
        raise DsoError("a moving horizon takes no late readings; use the Kalman filter that it came from.")

    def _begin(self, belief: Belief, found: Estimate) -> Estimate:
        """Start anew at the filter's belief."""
        self._arrival, self._window, self._filtered = belief, [], [belief]
        self._states, self._offsets = [belief.state], [belief.offset]
        return found

    def _fitted(self, window: list[_Sample], filtered: list[Belief]) -> tuple[_Fit, np.ndarray, list[_Sample]]:
        """The most probable states, their covariances (N+1, K, K), and the window with the readings judged by them."""
        last = window[-1]
        ahead, _ = self._tracker.advanced(self._states[-1], last.u, last.seconds)
        starts = [([*self._states, ahead], [*self._offsets, self._offsets[-1]])]
        deviation = np.sqrt(self._arrival.covariance.diagonal()[self._angles])
        if deviation.max(initial=0.0) > _UNKNOWN:
            starts.append(([b.state for b in filtered], [b.offset for b in filtered]))
            starts += self._around(window)
        found = [self._searched(window, *start) for start in starts]
        fit, covariances = min(found, key=lambda one: one[0].cost)
        judged = self._judged(window, fit, covariances)
        if any((a.let != b.let).any() for a, b in zip(judged, window, strict=True)):
            window = judged
            fit, covariances = self._searched(window, fit.states, fit.offsets)
        return fit, covariances, window

    def _around(self, window: list[_Sample]) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
        """Motions that begin with the arrival state turned about an unknown hinge."""
        found, (size, deviation) = [], (len(self._arrival.covariance), np.sqrt(self._arrival.covariance.diagonal()))
        for v in self._turns.hinges:
            for angle in _HINGES if deviation[v] > _ANYWHERE and len(found) < _MOST_STARTS else ():
                change = np.zeros(size)
                change[v] = angle
                states = [self._tracker.moved(self._arrival, change, self._arrival.covariance).state]
                for sample in window:
                    states.append(self._tracker.advanced(states[-1], sample.u, sample.seconds)[0])
                found.append((states, [self._arrival.offset] * len(states)))
        return found

    def _searched(
        self, window: list[_Sample], states: list[np.ndarray], offsets: list[np.ndarray]
    ) -> tuple[_Fit, np.ndarray]:
        fit = self._linearised(window, states, offsets)
        for _ in range(_STEPS):
            means, spreads = smoothed(fit.problem)
            change, covariances = means[0], spreads[0]
            if np.abs(change / np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))).max() < _STILL:
                return fit, covariances
            share, better = 1.0, None
            while better is None and share > 1e-2:
                tried = self._linearised(window, *self._shifted(fit, share * change))
                better = tried if tried.cost < fit.cost else None
                share /= 4
            if better is None:
                return fit, covariances
            fit = better
        return fit, smoothed(fit.problem)[1][0]

    def _shifted(self, fit: _Fit, change: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        moved = [
            self._tracker.moved(Belief(x, b, np.empty(0)), d, np.empty(0))
            for x, b, d in zip(fit.states, fit.offsets, change, strict=True)
        ]
        return [m.state for m in moved], [m.offset for m in moved]

    def _linearised(self, window: list[_Sample], states: list[np.ndarray], offsets: list[np.ndarray]) -> _Fit:
        tracker, arrival, k = self._tracker, self._arrival, self._space.size
        biases, ny, count = tracker.noise.drifting, len(self.names), len(states)
        size, r = k + len(biases), tracker.noise.sensor**2
        h, e, seen = np.zeros((count, ny, size)), np.zeros((count, ny)), np.zeros((count, ny), bool)
        a, c, q = np.zeros((count - 1, size, size)), np.zeros((count - 1, size)), np.zeros((count - 1, size, size))
        off = np.concatenate([self._space.difference(arrival.state, states[0]), (offsets[0] - arrival.offset)[biases]])
        cost = float(square(off, arrival.covariance))
        mean, start, _ = self._straight(-off, arrival.covariance, None, off)
        for t, sample in enumerate(window):
            forecast, slope = tracker.advanced(states[t], sample.u, sample.seconds)
            _, e[t + 1], h[t + 1] = tracker.compared(states[t + 1], offsets[t + 1], sample.y, sample.u)
            seen[t + 1] = sample.let
            off = np.concatenate(
                [self._space.difference(forecast, states[t + 1]), (offsets[t + 1] - offsets[t])[biases]]
            )
            added = tracker.added(sample.seconds)
            cost += float(square(off, added)) + float(np.sum(np.where(sample.let, e[t + 1] ** 2 / r, 0.0)))
            c[t], q[t], a[t] = self._straight(-off, added, slope, off)
        problem = LinearProblem(mean[None], start[None], a[None], c[None], q[None], h[None], r, e[None], seen[None])
        return _Fit(states, offsets, cost / 2 if np.isfinite(cost) else np.inf, problem)

    def _straight(
        self, c: np.ndarray, q: np.ndarray, a: np.ndarray | None, off: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c, q and a for changes of a state that is `off` (K,) from its forecast: rotations do not add."""
        nothing = np.zeros((len(off), len(off)))
        if not self._turns:
            return c, q, nothing if a is None else a
        k = self._space.size
        ahead = self._turns.jacobian(off[:k], len(off))
        back = nothing if a is None else ahead @ self._turns.inverse(-off[:k], len(off)) @ a
        # ahead @ c is c: a rotation leaves its axis where it is.
        return c, ahead @ q @ ahead.T, back

    def _judged(self, window: list[_Sample], fit: _Fit, covariances: np.ndarray) -> list[_Sample]:
        """The window in which readings count that are likely in the fitted states."""
        judged, r = [], self._tracker.noise.sensor**2
        for t, sample in enumerate(window, 1):
            seen = measurable(np.isfinite(sample.y), self._quaternions)
            if seen.any():
                h, e = fit.problem.h[0, t], fit.problem.e[0, t]
                spread = h @ covariances[t] @ h.T
                # Of a reading that counts, the state has followed a part.
                sign = np.where(sample.let, -0.999, 1.0)
                spread = np.where(sample.let[:, None] == sample.let, sign[:, None] * spread, 0.0) + np.diag(r)
                seen = self._chi.without(seen, self._chi.wild(e, spread, seen))
            judged.append(replace(sample, let=seen))
        return judged

    def _moved_on(self, sample: _Sample, fit: _Fit) -> Belief:
        """The arrival cost of the window's second state: the filter's update of that of its first, linearised at the fit."""
        p = fit.problem
        mean, covariance = p.a[0, 0] @ p.mean[0] + p.c[0, 0], p.a[0, 0] @ p.start[0] @ p.a[0, 0].T + p.q[0, 0]
        done = correction(covariance, p.h[0, 1], p.r, p.e[0, 1] - p.h[0, 1] @ mean, sample.let)
        change, covariance = mean + done.change, done.covariance
        if self._turns:
            jacobian = self._turns.jacobian(change[: self._space.size], len(change))
            covariance = jacobian @ covariance @ jacobian.T
        return self._tracker.moved(Belief(fit.states[1], fit.offsets[1], covariance), change, covariance)
