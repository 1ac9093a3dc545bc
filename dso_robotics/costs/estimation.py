"""Estimation: negative log-likelihood of every reading given the readings before it, over windows.

The cost is -log r(y | h(x), theta) of Section 7, where x is the filter's prediction; its errors are the innovations. Each
channel has one noise scale for each number of updates since the corrector last saw a measurement. The scales are profiled
out: at the optimum a scale is the (robust) root mean square of its innovations. If a log holds the state itself, it adds the
supervised term: the negative log-likelihood of that state given the estimate.
"""

import numpy as np
import scipy.stats

from dso_robotics.core.likelihood import Likelihood, Student, likelihood
from dso_robotics.robot.filter import CFilter, Filtered

_LEAST_NOISE = 1e-9
# Fixed-point iterations for the scales of Student's t.
_ROUNDS = 30
# Degrees of freedom to try when they are estimated. With 100, Student's t is practically normal.
_DEGREES = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 30.0, 100.0)
_FIRST_DEGREES = 4.0


class WindowedEstimation:
    """The least-squares problem (`core.method.least_squares`) of one filter: z is its theta, x the start states.

    warm_up: updates at the start of each window that do not count, so that an error of the start state has no effect.
    ahead: consecutive updates without a measurement in each `period`; with 0 or 1 the corrector sees every measurement.
    robust: degrees of freedom of Student's t instead of the normal distribution (None: normal; "auto": each channel's own,
      estimated with its noise scale); supervised: weight of the supervised term.
    """

    def __init__(
        self,
        chain: CFilter,
        *,
        warm_up: int,
        lead: np.ndarray | None = None,
        robust: float | str | None = None,
        supervised: float = 0.0,
    ):
        given = chain.windows
        self.chain, self._supervised = chain, supervised
        self._auto = robust == "auto"
        # Degrees of freedom (ny,) of the channels' noise, or None if it is normal.
        self.degrees: np.ndarray | None = None
        if robust is not None:
            self.degrees = np.full(given.measured.shape[-1], _FIRST_DEGREES if self._auto else float(robust))
        updates = given.measured.shape[1] - 1
        self._lead = np.zeros(updates, int) if lead is None else lead
        counted = (np.arange(updates) >= warm_up)[None, :, None]
        self._seen = np.isfinite(given.measured[:, 1:]) & counted
        self._measured = np.where(self._seen, given.measured[:, 1:], 0.0)
        self._members = (self._lead[None] == np.arange(self._lead.max() + 1)[:, None]).astype(float)
        spread = np.nanstd(given.measured, axis=(0, 1))
        self._floor = np.maximum(_LEAST_NOISE * spread, 1e-12)
        self._latest: tuple[np.ndarray, Filtered] | None = None
        self._weighed: np.ndarray | None = None
        self.sigma = np.tile(np.maximum(spread, self._floor), (len(self._members), 1))
        full = np.isfinite(given.truth[:, 1:]).all(-1, keepdims=True) & counted
        self._known = full if supervised > 0 and full.any() else None
        self.truth_sigma = np.ones(2 * chain.space.nv)
        self._begun = self.noise
        if self._known is not None:
            self._truth = np.where(self._known, given.truth[:, 1:], 0.0)

    def innovations(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Prediction minus measurement (B, T-1, ny); zero where a value is not measured or not counted."""
        return np.where(self._seen, self._run(z, x).predicted - self._measured, 0.0)

    def _run(self, z: np.ndarray, x: np.ndarray) -> Filtered:
        if self._latest is None or self._latest[0] is not z:
            self._latest = (z, self.chain.run(z, x))
        return self._latest[1]

    def _state_error(self, states: np.ndarray) -> np.ndarray:
        """Estimate minus truth (B, T-1, 2 nv) in the tangent space, zero where the truth is unknown."""
        space = self.chain.space
        assert self._known is not None
        full = np.concatenate([self._truth, states[..., space.nq + space.nv :]], -1)
        safe = np.where(self._known, full, states)
        return space.difference(safe, states)[..., : 2 * space.nv]

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whitened errors (B, m). With Student's t, half the sum of squares is the negative log-likelihood."""
        run = self._run(z, x)
        parts = [self.likelihood.whiten(self.innovations(z, x) / self.sigma[self._lead])]
        if self._known is not None:
            parts.append(np.sqrt(self._supervised) * self._state_error(run.states) / self.truth_sigma)
        return np.concatenate([p.reshape(len(x), -1) for p in parts], 1)

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals with derivatives by z. Start states are not estimated, so their derivatives are empty."""
        run, by_z, states_by_z = self.chain.linearize(z, x)
        error = np.where(self._seen, run.predicted - self._measured, 0.0) / self.sigma[self._lead]
        factor = np.where(self._seen, self.likelihood.slope(error) / self.sigma[self._lead], 0.0)
        parts, derivatives = (
            [self.likelihood.whiten(error)],
            [np.where(self._seen[..., None], by_z, 0.0) * factor[..., None]],
        )
        if self._known is not None:
            space = self.chain.space
            weight = np.sqrt(self._supervised) / self.truth_sigma
            parts.append(self._state_error(run.states) * weight)
            h = 1e-6
            columns = []
            for j in range(len(z)):
                moved = run.states + h * states_by_z[..., j]
                columns.append((self._state_error(moved) - parts[1] / weight) / h * weight)
            derivatives.append(np.where(self._known[..., None], np.stack(columns, -1), 0.0))
            assert parts[1].shape[-1] == 2 * space.nv
        rows = len(x)
        flat = np.concatenate([d.reshape(rows, -1, len(z)) for d in derivatives], 1)
        return np.concatenate([p.reshape(rows, -1) for p in parts], 1), flat, np.zeros((rows, flat.shape[1], 0))

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened prior residuals and their derivative."""
        return self.chain.vector.prior(z)

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Return the start states unchanged. The warm-up removes the effect of their errors."""
        return x

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Set each noise scale to its maximum-likelihood value at z."""
        if self._weighed is z:
            return 0.0
        self._weighed = z
        error, before = self.innovations(z, x), self.sigma
        sigma = self._scales(error, self.likelihood)
        if self._auto and self.degrees is not None:
            count, degrees = np.maximum(self._count, 1.0), self.degrees
            best = np.full(len(degrees), np.inf)
            for v in _DEGREES:
                tried = Student(np.full(len(degrees), v))
                scales = self._scales(error, tried)
                cost = tried.cost(error / scales[self._lead]).sum((0, 1))
                cost += (count * (np.log(scales) + tried.log_normaliser)).sum(0)
                better = cost < best - 1e-9
                best, degrees = np.where(better, cost, best), np.where(better, v, degrees)
                sigma = np.where(better, scales, sigma)
            self.degrees = degrees
        self.sigma = sigma
        change = float(np.max(np.abs(sigma / before - 1)))
        if self._known is not None:
            squares = self._state_error(self._run(z, x).states) ** 2
            truth = np.sqrt(squares.sum((0, 1)) / max(float(self._known.sum()), 1.0))
            truth = np.maximum(truth, 1e-12)
            change = max(change, float(np.max(np.abs(truth / self.truth_sigma - 1))))
            self.truth_sigma = truth
        return change

    def _scales(self, error: np.ndarray, distribution: Likelihood) -> np.ndarray:
        """Maximum-likelihood noise scales (A, ny), computed from the current ones."""
        squares = np.swapaxes(np.where(self._seen, error**2, np.nan), 0, 1)
        return distribution.scale(squares, self._members, self.sigma, floor=self._floor, rounds=_ROUNDS)

    @property
    def likelihood(self) -> Likelihood:
        """The distribution of the innovations divided by their noise scales."""
        return likelihood(self.degrees)

    @property
    def _count(self) -> np.ndarray:
        """The number of innovations for each noise scale (A, ny)."""
        return self._members @ self._seen.sum(0)

    def coverage_factor(self) -> np.ndarray:
        """Factor (ny,) on each noise scale that gives a deviation s such that 1.96 s covers 95% of the errors."""
        if self.degrees is None:
            return np.ones(self.sigma.shape[1])
        return scipy.stats.t.ppf(0.975, self.degrees) / scipy.stats.norm.ppf(0.975)

    def restore(self, z: np.ndarray, x: np.ndarray, noise: dict[str, np.ndarray]) -> None:
        """Restore the noise that `noise` returned at z. The next `reweight` at the same z does not change it."""
        self.sigma, self.truth_sigma = noise["sigma"], noise["truth_sigma"]
        if self.degrees is not None:
            self.degrees = noise["degrees"]
        self._weighed = z

    @property
    def noise(self) -> dict[str, np.ndarray]:
        """The noise at the current point, in the form that `restore` accepts."""
        degrees = np.zeros(0) if self.degrees is None else self.degrees
        return {"sigma": self.sigma, "truth_sigma": self.truth_sigma, "degrees": degrees}

    def log_scale(self) -> float:
        """Sum of log scales over all counted numbers."""
        total = float(np.sum(self._count * (np.log(self.sigma) + self.likelihood.log_normaliser)))
        if self._known is not None:
            total += self._supervised * float(self._known.sum()) * float(np.sum(np.log(self.truth_sigma)))
        return total

    def profiled(self, z: np.ndarray, x: np.ndarray) -> float:
        """The cost at z with the optimal noise scales there, regardless of the current ones, and without priors."""
        self.restore(z, x, self._begun)
        self._weighed = None
        self.reweight(z, x)
        terms = self.terms(z, x)
        return terms["estimation"] + terms["supervised"]

    def terms(self, z: np.ndarray, x: np.ndarray) -> dict[str, float]:
        """The cost by term."""
        residual = self.residual(z, x)
        count = self._seen[0].size
        supervised = 0.5 * float(np.sum(residual[:, count:] ** 2))
        log_truth = 0.0
        if self._known is not None:
            log_truth = self._supervised * float(self._known.sum()) * float(np.sum(np.log(self.truth_sigma)))
        return {
            "estimation": 0.5 * float(np.sum(residual[:, :count] ** 2)) + self.log_scale() - log_truth,
            "supervised": supervised + log_truth,
            "prior": 0.5 * float(np.sum(self.prior(z)[0] ** 2)),
        }
