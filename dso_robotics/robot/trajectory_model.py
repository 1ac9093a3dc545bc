"""The model along a trajectory: what it costs, and the linear problem of the changes that lower it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dso_robotics.data.quaternion import facing
from dso_robotics.robot.correctors.kalman import measurable, transposed, turned
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.innovation_gate import chi_squared_quantile
from dso_robotics.robot.kalman_filter import KalmanFilter
from dso_robotics.robot.kalman_gate import LATELY, Restart, quantiles
from dso_robotics.robot.kalman_slopes import Slopes
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.robot.learned import MOST_PREDICTED
from dso_robotics.robot.linear_smoother import LinearProblem, square
from dso_robotics.robot.tangent_turn import TangentTurns

# Simulations run together.
_PIECE = 8192


@dataclass(frozen=True, eq=False)
class Linearised:
    """The model at a trajectory.

    cost: (B,). problem: for changes of its states. forecast, slope: where the model leads from each state, (B, T-1, nx), and
    the derivative of that, (B, T-1, K, K); of breaks too, which `problem` does not hold together.
    """

    cost: np.ndarray
    problem: LinearProblem
    forecast: np.ndarray
    slope: np.ndarray


class TrajectoryModel:
    """The cost of trajectories of B runs at z (n,), readings that count, and breaks, where a run does not hold together.

    share: of right readings that are let in. z: see `move_to`.
    let: readings that count, (B, T, ny). breaks: (B, T). anchors: states and biases that breaks begin around.
    """

    let: np.ndarray
    breaks: np.ndarray
    anchors: tuple[np.ndarray, np.ndarray]

    def __init__(self, theta: KalmanTheta, given: FilterWindows, z: np.ndarray, share: float, threads: int = 0):
        self.theta, self.given, self.z, self.share = theta, given, z, share
        self.chain = KalmanFilter(self.theta, given, threads=threads)
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
        self._pieces: dict[int, Slopes] = {}
        self._derivatives = False

    def begun(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States (B, T, nx) and biases (B, T, ny) of the filter, and the runs (B,) in which it does not diverge."""
        given, run = self.given, self.chain.run(self.z)
        good = np.isfinite(run.cost)
        b, _, ny = given.measured.shape
        x = np.concatenate([given.start[:, None], np.where(good[:, None, None], run.states, given.start[:, None])], 1)
        offset = np.concatenate([np.zeros((b, 1, ny)), np.where(good[:, None, None], run.offset, 0.0)], 1)
        self.breaks = np.concatenate([np.zeros((b, 1), bool), self.lost | run.anew], 1)
        self.anchors = np.concatenate([x[:, :1], x[:, :-1]], 1), np.concatenate([offset[:, :1], offset[:, :-1]], 1)
        self._allow_jumps(run.jumped)
        self.let = self.seen & np.concatenate([np.ones((b, 1, ny), bool), run.passed], 1)
        return x, offset, good

    def _allow_jumps(self, jumped: np.ndarray) -> None:
        """Let biases jump where the filter gave them up: in that update, or at any time in the second before it."""
        jump = np.zeros((self.size, self.size))
        jump[range(self.k, self.size), range(self.k, self.size)] = self.noise.offset[self.biases] ** 2
        ends = np.cumsum(self.given.seconds, axis=1)
        for b, t in np.argwhere(jumped > Restart.NONE):
            if jumped[b, t] == Restart.NOW:
                self.q[b, t] += jump
                continue
            here = (np.arange(len(ends[b])) <= t) & (ends[b] > ends[b, t] - LATELY) & ~self.lost[b]
            share = np.where(here, self.given.seconds[b], 0.0)
            self.q[b] += (share / share.sum())[:, None, None] * jump

    def move_to(self, z: np.ndarray, *, derivatives: bool = False) -> None:
        """Take the physics of z (n,) from now on. With `derivatives`, `linearised` also gives those by the physics."""
        self.z, self._derivatives = z, derivatives
        # Simulations are shared by their number, and have the physics of the last ones.
        self._pieces.clear()

    def moved(self, x: np.ndarray, offset: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States and biases moved by `change` (B, T, K)."""
        moved = offset.copy()
        moved[..., self.biases] += change[..., self.k :]
        return self.space.move(x, change[..., : self.k]), moved

    def linearised(self, x: np.ndarray, offset: np.ndarray) -> Linearised:
        """The model at states (B, T, nx) and biases (B, T, ny)."""
        given, k = self.given, self.k
        forecast, slope, reading, h, g, s = self._simulated(x, offset)
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
            g = None if g is None else np.where(cut[..., None, None], 0.0, g)
        sign = facing(reading, given.measured, self.quaternions) if self.quaternions else 1.0
        e = np.where(np.isfinite(given.measured), given.measured * sign - reading, 0.0)
        if s is None:
            e, h = turned(reading, e, h, self.quaternions)
        else:
            e, both = turned(reading, e, np.concatenate([h, s], -1), self.quaternions)
            h, s = both[..., : self.size], both[..., self.size :]
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
            g = None if g is None else ahead @ behind @ g
            q = ahead @ q @ transposed(ahead)
            ahead = self.turns.jacobian(first[..., :k], self.size)
            start = ahead @ start @ transposed(ahead)
        problem = LinearProblem(-first, start, a, -off, q, h, r, e, self.let, g, s)
        return Linearised(cost, problem, forecast, slope)

    def _simulated(self, x: np.ndarray, offset: np.ndarray) -> tuple[Any, ...]:
        """Forecasts (B, T-1, nx) from each state, A (B, T-1, K, K), readings (B, T, ny) and H (B, T, ny, K).

        With derivatives also those of forecasts and readings by the physics, (B, T-1, K, m) and (B, T, ny, m), else None.
        """
        given, (b, length, ny) = self.given, self.given.measured.shape
        forecast, a = x[:, 1:].copy(), np.broadcast_to(np.eye(self.size), (b, length - 1, self.size, self.size)).copy()
        reading, h = np.zeros((b, length, ny)), np.zeros((b, length, ny, self.size))
        m = self.theta.physics.size if self._derivatives else 0
        g, s = np.zeros((b, length - 1, self.size, m)), np.zeros((b, length, ny, m))
        seconds = np.where(self.lost, 0.0, given.seconds)
        rows = np.argwhere(self.alive)
        counts = np.ceil(seconds[tuple(rows.T)] * given.substeps / given.interval - 1e-6)
        for count in np.unique(counts):
            mine = rows[counts == count]
            size = min(_PIECE // ((1 + self.k) * (1 + m)) + 1, 1 << (len(mine) - 1).bit_length())
            piece = self._piece(size)
            for i in range(0, len(mine), size):
                part = mine[i : i + size]
                # An engine has so many simulations: the last row is repeated.
                padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
                (i_run, t), here = padded.T, (part[:, 0], part[:, 1])
                ctrl = given.ctrl[i_run, t]
                ends, slope, moves, _ = piece.predict(x[i_run, t], ctrl, seconds[i_run, t])
                shown, by_state, shows, _ = piece.read(x[i_run, t + 1], offset[i_run, t + 1], ctrl)
                n, after = len(part), (here[0], here[1] + 1)
                forecast[here], a[here], reading[after], h[after] = ends[:n], slope[:n], shown[:n], by_state[:n]
                g[here[0], here[1], : self.k], s[after] = transposed(moves[:n]), transposed(shows[:n])
        found = self._piece(b).read(x[:, 0], offset[:, 0], given.ctrl[:, 0])
        reading[:, 0], h[:, 0], s[:, 0] = found[0], found[1], transposed(found[2])
        return forecast, a, reading, h, *((g, s) if self._derivatives else (None, None))

    def _piece(self, size: int) -> Slopes:
        if size not in self._pieces:
            self._pieces[size] = Slopes(
                self.chain.engines, self.theta, self.given, self.z, size, derivatives=self._derivatives
            )
        return self._pieces[size]

    def judged(self, linear: Linearised, x: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
