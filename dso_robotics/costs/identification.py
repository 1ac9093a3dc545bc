"""Identification: negative log-likelihood of the recorded sensors, over windows whose start states are also estimated.

-log p = sum over samples and channels of (y - h(x))^2 / (2 sigma_c^2) + log sigma_c, plus the prior (equation 98 and the
table in Section 7 of the mathematics). The noise scale of each channel in each recording is also estimated. At its optimum
it is the root mean square of the residuals, so re-weighting and Gauss-Newton steps alternate. A recording that the model
explains worse than the others (a warmer gearbox, a loose cable) therefore gets less weight.

Start states that are estimated satisfy the model's equality constraints, by residuals of their own.

With a `Continuity`, consecutive windows are tied: their jumps are also residuals, with their own scale.

With a heavy-tailed `Likelihood` instead of the normal one, outliers have less influence.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from dso_robotics.core.likelihood import Likelihood, Normal
from dso_robotics.costs.continuity import Continuity
from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.closure import Closure
from dso_robotics.physics.state import Tangent, activation_range
from dso_robotics.robot.prediction import Prediction, Several

# Lower limit of a noise scale, as a fraction of the channel's own spread. Without it, a log without noise would drive the
# scale to zero.
_LEAST_NOISE = 1e-6
# Fields of a model that move where its loops close.
_GEOMETRY = ("eq_data", "body_pos", "body_turn", "site_pos", "site_turn", "jnt_pos", "jnt_axis", "qpos0")


class WindowedIdentification:
    """The least-squares problem of `core.method.least_squares` for one set of windows.

    sigma: (R, C) current noise scales of each recording's channels, in the channels' units.
    learn_noise: if False, the noise scales are fixed.
    noise: maps channels to bounds (low, high) of their scale.
    free_starts: if False, the start states are fixed, and `continuity` has no effect.
    extra: maps z to further whitened residuals (m,), such as a measured mass of the whole robot.
    """

    def __init__(
        self,
        vector: ParameterVector,
        windows: Windows,
        prediction: Prediction,
        *,
        sigma: np.ndarray | None = None,
        learn_noise: bool = True,
        free_starts: bool = True,
        likelihood: Likelihood | None = None,
        noise: Mapping[str, tuple[float, float]] = MappingProxyType({}),
        extra: Callable[[np.ndarray], np.ndarray] | None = None,
        continuity: Continuity | None = None,
    ):
        self.vector, self.windows, self.prediction = vector, windows, prediction
        self.learn_noise, self.free_starts = learn_noise, free_starts
        self.likelihood, self._extra = Normal() if likelihood is None else likelihood, extra
        self._tangent = Tangent(vector.mj)
        # Cache: errors at the latest z and, if windows are tied, their end states, by start states (B, nq+nv+na). A window
        # that was already simulated from the same start state is not simulated again.
        self._known: tuple[np.ndarray | None, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = (None, [])
        self._slopes: tuple[np.ndarray, ...] | None = None
        self.continuity = continuity if free_starts else None
        # If the loop itself is free, the loop of the model says nothing about the start states.
        loop = None if not free_starts or any(vector.freed(f) for f in _GEOMETRY) else Closure(vector.mj)
        self._closure = loop if loop and loop.rows else None
        self._activation = activation_range(vector.mj)
        # Derivatives at the start. They set the scale of jumps, and the search needs them again next.
        self._ready: tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]] | None = None
        # At the latest linearisation: each window's Hessian by its start state, and the derivative of its end by its start.
        self._curved: tuple[np.ndarray, np.ndarray] | None = None
        self._seen = np.isfinite(windows.measured)
        members = windows.rollout[None] == np.arange(len(windows.rollouts))[:, None]
        self._members = members.astype(float)
        self._count = self._members @ self._seen.sum(1)
        self._measured = np.where(self._seen, windows.measured, 0.0)
        # A channel that was not measured in these windows has no spread.
        readings = [windows.measured[..., c][self._seen[..., c]] for c in range(windows.measured.shape[-1])]
        spread = np.array([np.std(values) if len(values) else 1.0 for values in readings])
        self._floor = np.maximum(_LEAST_NOISE * spread, 1e-12)
        shape = (len(windows.rollouts), len(spread))
        bounds = [noise.get(name, (0.0, np.inf)) for name in windows.channels.sensor_names]
        self._least, self._most = np.maximum(np.array(bounds).T, [self._floor, self._floor])
        self.sigma = np.broadcast_to(np.clip(spread if sigma is None else sigma, self._least, self._most), shape)

    def error(self, z: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Prediction minus measurement (B, S, C) in the channels' units; zero where there is no measurement."""
        return self._at(z, start)[0]

    def _at(self, z: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`error` and, if windows are tied, their end states (B, nq+nv+na)."""
        if self._known[0] is not z:
            self._known = (z, [])
        known = self._known[1]
        error, end, new = np.empty(self._seen.shape), np.empty(start.shape), np.ones(len(start), bool)
        for earlier, found, ended in known:
            same = new & np.all(earlier == start, axis=1)
            error[same], end[same] = found[same], ended[same]
            new &= ~same
        if new.any():
            only = np.flatnonzero(new)
            if self.continuity:
                predicted, end[only] = self.prediction.predict_ends(z, start[only], only)
            else:
                predicted = self.prediction.predict(z, start[only], only)
            error[only] = np.where(self._seen[only], predicted - self._measured[only], 0.0)
            known.append((start, error, end))
        return error, end

    def foresee(self, z: np.ndarray, starts: np.ndarray) -> None:
        """Simulate all windows from several start states (P, B, nq+nv+na) at once, where the engine can; `residual` finds them.

        z must be the same object in `residual`.
        """
        if isinstance(self.prediction, Several) and not self.continuity:
            errors = self.prediction.predict_several(z, starts) - self._measured
            found = zip(starts, np.where(self._seen, errors, 0.0), starts, strict=True)
            self._known = (z, list(found))

    @property
    def constrained(self) -> bool:
        """Whether there are residuals besides those of readings and priors: of closed loops, of ties, or of a function."""
        return self._closure is not None or self.continuity is not None or self._extra is not None

    def release(self) -> None:
        """Forget derivatives and simulated windows, which are large."""
        self._known, self._slopes, self._ready, self._curved = (None, []), None, None, None

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Errors over noise scales, weighted (B, S*C), open loops (B, m), and jumps over their scales (B, k)."""
        readings = self.likelihood.whiten(self.error(z, x) / self._scales()).reshape(len(x), -1)
        if self._closure is not None:
            readings = np.concatenate([readings, self._closure.residual(x)], axis=1)
        if self.continuity is None:
            return readings
        self._begin(z, x)
        return np.concatenate([readings, self.continuity.residual(self._at(z, x)[1], x)], axis=1)

    def _begin(self, z: np.ndarray, x: np.ndarray) -> None:
        """Set the scale of jumps at the start of the search. It is relative to the information in each window."""
        assert self.continuity is not None
        if self.continuity.scale is None:
            found = self.prediction.linearize_ends(z, x)
            self._ready = z, x, found
            self._linear(x, found[0], found[1:])

    def _derivatives(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.continuity is None:
            return self.prediction.linearize(z, x, by_start=self.free_starts)
        ready, self._ready = self._ready, None
        if ready and ready[0] is z and ready[1] is x:
            return ready[2]
        return self.prediction.linearize_ends(z, x)

    def _scales(self) -> np.ndarray:
        """Noise scale of every window's channels (B, 1, C)."""
        return self.sigma[self.windows.rollout][:, None]

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals with derivatives by z, by the start states' tangents and, if windows are tied, by the next window's."""
        self._slopes = None  # free the old ones first, they are large
        y, *slopes = self._derivatives(z, x)
        return self._linear(x, y, slopes)

    def again(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Like `linearize`, but with the derivatives of the last linearisation and the current noise scales and weights."""
        error, end = self._at(z, x)
        return self._weighed(error, end, x)

    def _linear(self, x: np.ndarray, y: np.ndarray, slopes: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Derivatives of the residuals, from the derivatives of the readings y and, if present, of the end states."""
        by_z, by_x, *ends = slopes
        end, *more = ends or [x]
        self._slopes = (by_z, by_x, *more)
        return self._weighed(np.where(self._seen, y - self._measured, 0.0), end, x)

    def _weighed(self, error: np.ndarray, end: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        assert self._slopes is not None
        errors = error / self._scales()
        weight = (np.where(self._seen, self.likelihood.slope(errors), 0.0) / self._scales())[..., None]
        residual = self.likelihood.whiten(errors)
        rows = (len(error), residual[0].size)
        flat = [np.where(weight > 0, d * weight, 0.0).reshape(*rows, d.shape[-1]) for d in self._slopes[:2]]
        residual = residual.reshape(rows)
        if self._closure is not None:
            away, by_own = self._closure.linearize(x)
            still = np.zeros((*away.shape, flat[0].shape[-1]))
            residual = np.concatenate([residual, away], axis=1)
            flat = [np.concatenate(pair, axis=1) for pair in zip(flat, (still, by_own), strict=True)]
        if self.continuity is None:
            return residual, flat[0], flat[1]
        end_by_z, end_by_x = self._slopes[2:]
        own = np.swapaxes(flat[1], 1, 2) @ flat[1]
        self.continuity.begin(own, x)
        self._curved = own, end_by_x
        jumps, by_z, by_own, by_next = self.continuity.linearize(end, x, end_by_z, end_by_x)
        ahead = np.concatenate([np.zeros_like(flat[1]), by_next], axis=1)
        flat = [np.concatenate(pair, axis=1) for pair in zip(flat, (by_z, by_own), strict=True)]
        return np.concatenate([residual, jumps], axis=1), flat[0], flat[1], ahead

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened residuals of the prior and of `extra`, and their derivatives."""
        residual, slope = self.vector.prior_residual(z), self.vector.prior_slope(z)
        if self._extra is None:
            return residual, slope
        own = self._extra(z)
        steps = np.diag(1e-6 * self.vector.scale)
        columns = [(self._extra(z + h) - self._extra(z - h)) / (2 * h.sum()) for h in steps]
        return np.concatenate([residual, own]), np.concatenate([slope, np.stack(columns, -1)])

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Start states moved in their tangent space, with activations that the actuators can have."""
        if not self.free_starts:
            return x
        moved = self._tangent.move(x, change)
        if len(self._activation[0]):
            first = moved.shape[1] - len(self._activation[0])
            moved[:, first:] = np.clip(moved[:, first:], *self._activation)
        return moved

    def part(self, keep: np.ndarray, prediction: Prediction) -> "WindowedIdentification":
        """The problem of the windows where `keep` (B,) is True, with the noise scales as they are; windows are not tied."""
        windows = self.windows.only(keep)
        fixed: dict = {"sigma": self.sigma, "learn_noise": False, "likelihood": self.likelihood}
        return WindowedIdentification(self.vector, windows, prediction, free_starts=self.free_starts, **fixed)

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Set each unknown noise scale to its maximum-likelihood value."""
        if not self.learn_noise:
            return 0.0
        jumped = 0.0
        if self.continuity:
            self._begin(z, x)
            jumped = self.continuity.reweight(self._curved, self._at(z, x)[1], x)
        squares = np.where(self._seen, self.error(z, x) ** 2, np.nan)
        sigma = self.within(self.likelihood.scale(squares, self._members, self.sigma))
        change = float(np.max(np.abs(sigma / self.sigma - 1)))
        self.sigma = sigma
        return max(change, jumped)

    def within(self, sigma: np.ndarray) -> np.ndarray:
        """Noise scales (R, C) within their bounds; a known scale is its own bound."""
        return np.clip(sigma, self._least, self._most)

    @property
    def noise(self) -> dict[str, np.ndarray]:
        """Current noise scales and, if windows are tied, the scales of the jumps."""
        jumps = self.continuity.scale if self.continuity else None
        return {"sigma": self.sigma} if jumps is None else {"sigma": self.sigma, "jumps": jumps}

    def restore(self, z: np.ndarray, x: np.ndarray, noise: dict[str, np.ndarray]) -> None:
        """Restore noise scales that `noise` returned."""
        self.sigma = noise["sigma"]
        if self.continuity:
            self.continuity.scale = noise["jumps"]

    def log_scale(self) -> float:
        """Sum of log sigma over all measured numbers and all jumps."""
        jumps = self.continuity.log_scale() if self.continuity and self.continuity.scale is not None else 0.0
        return float(np.sum(self._count * np.log(self.sigma))) + jumps

    def pooled_sigma(self) -> np.ndarray:
        """Noise scale (C,) of each channel over all recordings together."""
        return np.sqrt((self._count * self.sigma**2).sum(0) / np.maximum(self._count.sum(0), 1))

    @property
    def redundancy(self) -> float:
        """Number of samples over that of samples less unknowns: how much too small a variance at the minimum is."""
        count = float(self._count.sum())
        unknown = self.vector.size + (len(self.windows) * self._tangent.size if self.free_starts else 0)
        return count / max(count - unknown, 0.1 * count)

    def noise_deviation(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Standard deviation (C,) of the logarithm of `pooled_sigma`, from the delete-one-window jackknife."""
        scaled = self.error(z, x) / self._scales()
        squares = (self.likelihood.whiten(scaled) * self.likelihood.slope(scaled) * scaled * self._scales() ** 2).sum(1)
        counts = self._seen.sum(1)
        left = np.maximum(squares.sum(0) - squares, 1e-300) / np.maximum(counts.sum(0) - counts, 1)
        logs = 0.5 * np.log(left)
        return np.sqrt((len(x) - 1) / len(x) * np.sum((logs - logs.mean(0)) ** 2, axis=0))

    def terms(self, z: np.ndarray, x: np.ndarray) -> dict[str, float]:
        """The cost by term: identification and continuity (with their log scales), and prior."""
        whole = 0.5 * float(np.sum(self.residual(z, x) ** 2)) + self.log_scale()
        jumps = {}
        if self.continuity:
            squares = self.continuity.residual(self._at(z, x)[1], x) ** 2
            jumps["continuity"] = 0.5 * float(np.sum(squares)) + self.continuity.log_scale()
        fit = whole - sum(jumps.values())
        terms = {"identification": fit, "prior": 0.5 * float(np.sum(self.vector.prior_residual(z) ** 2))} | jumps
        return terms if self._extra is None else terms | {"extra": 0.5 * float(np.sum(self._extra(z) ** 2))}
