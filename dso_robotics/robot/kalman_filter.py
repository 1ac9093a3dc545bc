"""An extended Kalman filter over many windows of a log at once, on C MuJoCo, with the derivative of its likelihood.

Prediction and readings are linearised at the estimate by forward differences through `mujoco.batch`. The cost is the negative
log-likelihood of the innovations e with covariance S, the sum of (e' S^-1 e + log det S)/2. Its derivative by noises and
physics follows from the sensitivity equations of the filter. How A and H change with the estimate is left out, so it is exact
where the model is linear.
"""

from dataclasses import dataclass

import numpy as np

from dso_robotics.data.quaternion import facing
from dso_robotics.physics.batch import without_reset
from dso_robotics.robot.correctors.kalman import (
    correction,
    diagonal,
    measurable,
    process_covariance,
    reading_variances,
    transposed,
    turned,
)
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_gate import LATELY, Restart, TrainingGate
from dso_robotics.robot.kalman_slopes import Engines, Slopes
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.robot.learned import MOST_PREDICTED

# Share of readings that come from elsewhere than the sensor, spread as widely as all its readings.
_WILD = 1e-3


@dataclass(frozen=True, eq=False)
class KalmanRun:
    """The outcome for B windows of U updates.

    cost: (B,) of the counted readings, infinite where the filter diverged.
    gradient: (B, n). information: Fisher information, (n, n). Both are empty without derivatives.
    predicted: readings before each correction, (B, U, ny). std: their standard deviations.
    passed: (B, U, ny), False where a reading was missing or taken for a wild one.
    states: (B, U, nx) after the correction. deviation: their standard deviations, (B, U, 2 nv).
    offset: biases of all channels, (B, U, ny).
    anew: (B, U) updates before which the filter started anew around its estimate.
    jumped: (B, U), the `Restart` of updates before which it gave up its biases, else 0.
    square: squared error of the state over its covariance, divided by 2 nv, (B, U); NaN without truth.
    transition: (B, K, K), what becomes of a small error over all updates, divided by exp(`log_size`) (B,).
    """

    cost: np.ndarray
    gradient: np.ndarray
    information: np.ndarray
    predicted: np.ndarray
    std: np.ndarray
    passed: np.ndarray
    states: np.ndarray
    deviation: np.ndarray
    offset: np.ndarray
    anew: np.ndarray
    jumped: np.ndarray
    square: np.ndarray
    transition: np.ndarray
    log_size: np.ndarray


class KalmanFilter:
    """Filters `windows`.

    warm_up: updates at the start of each window whose readings do not count.
    """

    def __init__(self, theta: KalmanTheta, windows: FilterWindows, *, warm_up: int = 0, threads: int = 0):
        self.theta, self.windows, self.warm_up = theta, windows, warm_up
        self.space = Space(theta.physics.mj)
        self._model = without_reset(theta.physics.mj)
        self._timestep = self._model.opt.timestep = windows.interval / windows.substeps
        self.engines = Engines(self._model, windows.channels.sensor_ids, threads)
        spread = np.nanstd(windows.measured, axis=(0, 1))
        # Spread of readings that come from elsewhere.
        self.wild = np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)
        for places in windows.channels.quaternions:
            self.wild[list(places)] = 1.0

    def run(self, z: np.ndarray, *, derivatives: bool = False) -> KalmanRun:
        """Filter all windows at z (n,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _Pass(self, z, derivatives).run()


class _Pass:
    """One pass over the windows at one z. Arrays begin with the axis of the windows."""

    def __init__(self, chain: KalmanFilter, z: np.ndarray, derivatives: bool):
        theta, given = chain.theta, chain.windows
        self.chain, self.given, self.space = chain, given, chain.space
        self.noise, self.b, self.ny = theta.noise(z), len(given), given.measured.shape[2]
        uniform = np.allclose(given.seconds, given.interval, rtol=1e-9)
        self.linear = Slopes(chain.engines, theta, given, z, self.b, derivatives=derivatives, uniform=uniform)
        self.k, self.size, self.biases = self.linear.k, self.linear.size, self.linear.biases
        self.n, self.m = (theta.size if derivatives else 0), self.linear.m
        self.slopes = theta.slopes(z) if derivatives else {}
        self.quaternions = given.channels.quaternions

    def run(self) -> KalmanRun:
        given, b, n, ny = self.given, self.b, self.n, self.ny
        updates = given.measured.shape[1] - 1
        state, offset = given.start, np.zeros((b, ny))
        p = self.noise.start(self.space, state)
        if given.spread is not None:
            p[:, : self.k, : self.k] = given.spread
        dx, dp = np.zeros((b, n, self.size)), np.zeros((b, n, self.size, self.size))
        cost, gradient, information = np.zeros(b), np.zeros((b, n)), np.zeros((n, n))
        predicted, std = np.empty((b, updates, ny)), np.empty((b, updates, ny))
        passed, anew = np.zeros((b, updates, ny), bool), np.zeros((b, updates), bool)
        jumps = np.zeros((b, updates), int)
        states, offsets = np.empty((b, updates, self.space.width)), np.empty((b, updates, ny))
        square, deviation = np.full((b, updates), np.nan), np.empty((b, updates, 2 * self.space.nv))
        total, log_size = np.broadcast_to(np.eye(self.size), (b, self.size, self.size)), np.zeros(b)
        measured = np.nan_to_num(given.measured)
        seen = measurable(np.isfinite(given.measured), self.quaternions)
        drifts = np.isin(np.arange(ny), self.biases)
        gate = TrainingGate(b, given.channels.sensor_ids, self.chain.wild, _WILD, given.channels.footed, drifts)
        # What a jump of the biases adds, and what one has added that happened lately; see `kalman_tracker.Belief`.
        jump = diagonal(np.concatenate([np.zeros(self.k), self.noise.offset[self.biases]]) ** 2)
        lately = np.zeros_like(p)
        variances = self.noise.sensor**2
        eye = np.eye(self.size)
        for t in range(updates):
            seconds, here = given.seconds[:, t], seen[:, t + 1]
            lost = seconds > MOST_PREDICTED * self.chain._timestep
            forecast, a, by_theta, da = self.linear.predict(state, given.ctrl[:, t], np.where(lost, 0.0, seconds))
            reading, h, read_by_theta, dh = self.linear.read(forecast, offset)
            q = self.noise.process_covariance(self.space.nv, seconds)
            if n:
                dx = dx @ transposed(a)
                dx[:, n - self.m :, : self.k] += by_theta
                dp = a[:, None] @ dp @ transposed(a)[:, None] + self._process_slopes(seconds)
                half = da @ (p @ transposed(a))[:, None]
                dp[:, n - self.m :] += half + transposed(half)
            p = a @ p @ transposed(a) + q
            if len(self.biases):
                share = np.exp(-seconds / LATELY)[:, None, None]
                lately = share * (a @ lately @ transposed(a)) + (1 - share) * jump
            sign = facing(reading, given.measured[:, t + 1], self.quaternions) if self.quaternions else 1.0
            predicted[:, t] = reading * sign
            e = measured[:, t + 1] * sign - reading
            slopes = np.concatenate([h, transposed(read_by_theta), *np.moveaxis(dh, 1, 0)], -1)
            e, slopes = turned(reading, e, slopes, self.quaternions)
            h, read_by_theta = slopes[..., : self.size], transposed(slopes[..., self.size : self.size + self.m])
            dh = slopes[..., self.size + self.m :].reshape(b, ny, self.m, self.size).swapaxes(1, 2)
            spread = h @ p @ transposed(h) + variances[:, None] * np.eye(ny)
            let, penalty, restart = gate.update(e, spread, here)
            anew[:, t] = fresh = (restart == Restart.ALL) | lost
            given_up = (restart > Restart.NONE) & ~fresh
            jumps[:, t] = np.where(given_up, restart, Restart.NONE)
            if given_up.any():
                past = np.where((restart == Restart.LATELY)[:, None, None], lately, 0.0)
                p = np.where(given_up[:, None, None], p + jump + past, p)
                lately = np.where(given_up[:, None, None], 0.0, lately)
            if fresh.any():
                let, penalty = np.where(fresh[:, None], here, let), np.where(fresh, 0.0, penalty)
                p = np.where(fresh[:, None, None], self.noise.start(self.space, forecast), p)
                lately = np.where(fresh[:, None, None], 0.0, lately)
                if n:
                    dx, dp = (np.where(fresh.reshape(-1, *(1,) * (v.ndim - 1)), 0.0, v) for v in (dx, dp))
            done = correction(p, h, variances, e, let)
            std[:, t] = np.sqrt(
                reading_variances(h @ p @ transposed(h) + variances[:, None] * np.eye(ny), self.quaternions)
            )
            left = eye - done.gain @ h
            if len(self.biases):
                lately = left @ lately @ transposed(left)
            e = np.where(let, e, 0.0)
            w = np.linalg.solve(done.spread, e[..., None])[..., 0]
            counted = t >= self.chain.warm_up
            if counted:
                cost += 0.5 * (np.sum(e * w, -1) + np.linalg.slogdet(done.spread)[1]) + penalty
            if n:
                masked = np.where(let[..., None], h, 0.0)
                crossed = dp @ transposed(masked)[:, None]
                dh = np.where(let[:, None, :, None], dh, 0.0)
                crossed[:, n - self.m :] += p[:, None] @ transposed(dh)
                ds = masked[:, None] @ crossed
                ds[:, n - self.m :] += dh @ (p @ transposed(masked))[:, None]
                dr = np.where(let[:, None], self.slopes["sensor"][None], 0.0)
                ds += dr[..., None] * np.eye(ny)
                de = -(dx @ transposed(masked))
                de[:, n - self.m :] -= np.where(let[:, None], read_by_theta, 0.0)
                gained = (crossed - done.gain[:, None] @ ds) @ w[:, None, :, None]
                dx = dx + gained[..., 0] + de @ transposed(done.gain)
                dp = left[:, None] @ dp @ transposed(left)[:, None]
                dp += (done.gain[:, None] * dr[:, :, None]) @ transposed(done.gain)[:, None]
                half = (done.gain[:, None] @ dh) @ (p @ transposed(left))[:, None]
                dp[:, n - self.m :] -= half + transposed(half)
                if counted:
                    inverse = np.linalg.inv(done.spread)
                    scaled = inverse[:, None] @ ds
                    trace = np.trace(scaled, axis1=-2, axis2=-1)
                    gradient += (de @ w[..., None])[..., 0] + 0.5 * trace
                    gradient -= 0.5 * ((ds @ w[:, None, :, None])[..., 0] * w[:, None]).sum(-1)
                    flat, back = scaled.reshape(b, n, -1), transposed(scaled).reshape(b, n, -1)
                    information += ((de @ inverse) @ transposed(de) + 0.5 * flat @ transposed(back)).sum(0)
            p = done.covariance
            state = self.space.move(forecast, done.change[:, : self.k])
            offset = offset.copy()
            offset[:, self.biases] += done.change[:, self.k :]
            states[:, t], offsets[:, t], passed[:, t] = state, offset, let
            square[:, t] = self._square(state, p, t)
            deviation[:, t] = np.sqrt(np.diagonal(p, axis1=1, axis2=2)[:, : 2 * self.space.nv])
            total = left @ a @ total
            size = np.maximum(np.linalg.norm(total, axis=(1, 2)), 1e-300)
            total, log_size = total / size[:, None, None], log_size + np.log(size)
        whole = np.asarray(np.isfinite(cost) & np.isfinite(states).all((1, 2)))
        cost = np.where(whole, cost, np.inf)
        return KalmanRun(
            cost, gradient, information, predicted, std, passed, states, deviation, offsets, anew, jumps, square, total,
            log_size,
        )  # fmt: skip

    def _process_slopes(self, seconds: np.ndarray) -> np.ndarray:
        """Derivative of Q by theta, (B, n, K, K)."""
        drift = self.slopes["drift"][:, self.biases]
        return process_covariance(self.slopes["process"], drift, self.space.nv, seconds[:, None])

    def _square(self, state: np.ndarray, p: np.ndarray, t: int) -> np.ndarray:
        """Squared error of `state` over its covariance, divided by 2 nv, (B,); NaN where the truth is unknown."""
        truth, many = self.given.truth[:, t + 1], 2 * self.space.nv
        known = np.asarray(np.isfinite(truth).all(-1))
        if not known.any():
            return np.full(self.b, np.nan)
        full = np.concatenate([truth, state[:, self.space.nq + self.space.nv :]], -1)
        off = self.space.difference(np.where(known[:, None], full, state), state)[:, :many]
        try:
            found = np.sum(off * np.linalg.solve(p[:, :many, :many], off[..., None])[..., 0], -1) / many
        except np.linalg.LinAlgError:  # a filter that diverges
            return np.full(self.b, np.nan)
        return np.where(known, found, np.nan)
