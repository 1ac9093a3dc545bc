"""Estimation: negative log-likelihood of every reading given the readings before it, over windows.

-log r(y | h(x), theta) of Section 7, with x the filter's prediction: the innovations. The noise scale of each channel, for each
number of updates since the corrector last saw a measurement, is profiled out: at its optimum it is the (robust) root mean
square of its innovations. A log that holds the state itself adds the supervised term, the negative log-likelihood of that
state given the estimate.
"""

import numpy as np
import scipy.special
import scipy.stats

from dso_robotics.robot.filter import CFilter, Filtered

_LEAST_NOISE = 1e-9
# Degrees of freedom that are tried where they are to be estimated; with a hundred Student's t is normal for all purposes.
_DEGREES = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 30.0, 100.0)
_FIRST_DEGREES = 4.0


def _normaliser(v: float) -> float:
    """Negative log of Student's normalising constant over the normal one's: costs of different `v` can be compared."""
    log = scipy.special.gammaln
    return float(log(v / 2) - log((v + 1) / 2) + 0.5 * np.log(v / 2))


class WindowedEstimation:
    """The least-squares problem of `core.gauss_newton` for one filter: z is its theta, x the start states.

    warm_up: updates at the start of each window that do not count, so that the guess of the start state does not either.
    ahead: updates in a row that the corrector must do without in each `period`; 0 or 1: it sees every one.
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
        given = chain.passages
        self.chain, self._supervised = chain, supervised
        self._auto = robust == "auto"
        # Degrees of freedom (ny,) of the channels' noise, None where it is normal.
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
        """Prediction minus measurement (B, T-1, ny), zero where nothing was measured or counted."""
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
        """Whitened errors (B, m); with Student's t such that half their squares are its log-likelihood."""
        run = self._run(z, x)
        parts = [self._robustly(self.innovations(z, x) / self.sigma[self._lead])[0]]
        if self._known is not None:
            parts.append(np.sqrt(self._supervised) * self._state_error(run.states) / self.truth_sigma)
        return np.concatenate([p.reshape(len(x), -1) for p in parts], 1)

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals with derivatives by z; start states are not searched, so theirs are empty."""
        run, by_z, states_by_z = self.chain.linearize(z, x)
        error = np.where(self._seen, run.predicted - self._measured, 0.0) / self.sigma[self._lead]
        residual, slope = self._robustly(error)
        factor = np.where(self._seen, slope / self.sigma[self._lead], 0.0)
        parts, derivatives = [residual], [np.where(self._seen[..., None], by_z, 0.0) * factor[..., None]]
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

    def _robustly(self, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual and its derivative by the whitened error."""
        if self.degrees is None:
            return error, np.ones_like(error)
        v = self.degrees
        square = error**2
        residual = np.sign(error) * np.sqrt((v + 1) * np.log1p(square / v))
        slope = np.where(np.abs(error) > 1e-6, (v + 1) * np.abs(error) / (v + square), 1.0)
        small = np.abs(residual) < 1e-6
        slope = np.where(
            small, np.sqrt((v + 1) / v) * np.ones_like(error), slope / np.where(small, 1.0, np.abs(residual))
        )
        return residual, slope

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened prior residuals and their derivative."""
        return self.chain.vector.prior(z)

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Start states stay: the warm-up makes up for them."""
        return x

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Set each noise scale to its maximum-likelihood value at z."""
        if self._weighed is z:
            return 0.0
        self._weighed = z
        error, before = self.innovations(z, x), self.sigma
        count = np.maximum(np.einsum("at,btc->ac", self._members, self._seen.astype(float)), 1.0)
        degrees = self.degrees
        sigma = self._scales(error, count, degrees)
        if self._auto and degrees is not None:
            best = np.full(len(degrees), np.inf)
            for v in _DEGREES:
                every = np.full(len(degrees), v)
                scales = self._scales(error, count, every)
                each = 0.5 * (v + 1) * np.log1p((error / scales[self._lead]) ** 2 / v)
                cost = each.sum((0, 1)) + (count * (np.log(scales) + _normaliser(v))).sum(0)
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

    def _scales(self, error: np.ndarray, count: np.ndarray, degrees: np.ndarray | None) -> np.ndarray:
        """Noise scales (A, ny) of maximum likelihood, from the present ones."""
        sigma = self.sigma
        for _ in range(1 if degrees is None else 30):
            weight = 1.0
            if degrees is not None:
                weight = (degrees + 1) / (degrees + (error / sigma[self._lead]) ** 2)
            total = np.einsum("at,btc->ac", self._members, weight * error**2)
            sigma = np.maximum(np.sqrt(total / count), self._floor)
        return sigma

    def coverage_factor(self) -> np.ndarray:
        """What turns a channel's noise scale into the deviation whose 1.96-fold holds 95% of its errors (ny,)."""
        if self.degrees is None:
            return np.ones(self.sigma.shape[1])
        return scipy.stats.t.ppf(0.975, self.degrees) / scipy.stats.norm.ppf(0.975)

    def restore(self, z: np.ndarray, x: np.ndarray, noise: dict[str, np.ndarray]) -> None:
        """Go on at z with the noise that `noise` gave there: the next `reweight` at this very z leaves it."""
        self.sigma, self.truth_sigma = noise["sigma"], noise["truth_sigma"]
        if self.degrees is not None:
            self.degrees = noise["degrees"]
        self._weighed = z

    @property
    def noise(self) -> dict[str, np.ndarray]:
        """The noise at the present point, as `restore` takes it."""
        degrees = np.zeros(0) if self.degrees is None else self.degrees
        return {"sigma": self.sigma, "truth_sigma": self.truth_sigma, "degrees": degrees}

    def log_scale(self) -> float:
        """Sum of log scales over all counted numbers."""
        count = np.einsum("at,btc->ac", self._members, self._seen.astype(float))
        total = float(np.sum(count * np.log(self.sigma)))
        if self.degrees is not None:
            total += float(np.sum(count * np.array([_normaliser(v) for v in self.degrees])))
        if self._known is not None:
            total += self._supervised * float(self._known.sum()) * float(np.sum(np.log(self.truth_sigma)))
        return total

    def profiled(self, z: np.ndarray, x: np.ndarray) -> float:
        """The cost at z with the noise scales at their best there, whatever they were before; priors left out."""
        self.restore(z, x, self._begun)
        self._weighed = None
        self.reweight(z, x)
        terms = self.terms(z, x)
        return terms["estimation"] + terms["supervised"]

    def terms(self, z: np.ndarray, x: np.ndarray) -> dict[str, float]:
        """The cost by block."""
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
