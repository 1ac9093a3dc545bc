"""The likelihood of the free numbers alone: start states and noise scales of an identification are integrated out.

Given the numbers z, the start states of the windows are nearly normal about their best values, so their integral is that of
Laplace: the cost at the best start states, plus half the logarithm of the determinant of their Hessian, less that of the volume
of their prior. A prior that is flat in the start state says something about damping: with it, the state at the end of a window
has another prior for every damping. The prior here is flat in coordinates of each window that are orthogonal to the numbers
(Cox and Reid, "Parameter orthogonality and approximate conditional inference", JRSS B 49, 1987). Then the two determinants
cancel but for the noise scales in them, the slope of the likelihood is zero on average at the true numbers, and it does not
matter where in a window its state is counted.

A noise scale is at its most probable value when the start states are integrated out: the sum of squares over the number of
samples less what the start states take up (restricted maximum likelihood). With predictions that are linear in the start states
and one channel this is exact for every z, with a flat prior of the logarithms of the noise scales.
"""

import dataclasses

import numpy as np

from dso_robotics.core.likelihood import Student
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.core.method.normal import block_cost
from dso_robotics.costs.identification import WindowedIdentification

# Difference step of the start states [m, rad, m/s, rad/s].
_STEP = 1e-6
# Rounds that settle start states and noise scales on one set of derivatives.
_ROUNDS = 2
# A promised decrease of the cost [nats] that is not worth a simulation.
_SETTLED = 1e-3
# Curvature of a start state that nothing shows, relative to the largest.
_UNSEEN = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """The marginal likelihood at one z.

    cost: -log of the marginal likelihood times the prior, up to a constant; infinite where a window diverges.
    x: (B, nq+nv+na) most probable start states.
    sigma: (R, C) noise scales.
    freedom: (R, C) samples of each channel less what the start states take up.
    """

    cost: float
    x: np.ndarray
    sigma: np.ndarray
    freedom: np.ndarray


class Marginal:
    """The marginal likelihood of `problem` about its `solution`. The noise scales of the problem are changed and put back."""

    def __init__(self, problem: WindowedIdentification, solution: Solution):
        self.problem, self._best = problem, solution
        self._sigma = np.array(problem.sigma)
        self._private = solution.response.shape[1]
        windows = problem.windows
        self._seen = np.isfinite(windows.measured)
        members = windows.rollout[None] == np.arange(len(windows.rollouts))[:, None]
        self._members = members.astype(float)
        self._count = self._members @ self._seen.sum(1)
        known, which = problem.vector.priors
        self._log_normal = which[known.log]

    def at(self, z: np.ndarray) -> Point:
        """The marginal likelihood at z (n,)."""
        self.problem.sigma = self._sigma
        try:
            return self._at(z)
        finally:
            self.problem.sigma = self._sigma

    def _at(self, z: np.ndarray) -> Point:
        problem, best = self.problem, self._best
        x = problem.retract(best.x, -best.response @ (z - best.z)) if self._private else best.x
        changes = _STEP * np.eye(self._private)
        moved = [problem.retract(x, np.tile(change, (len(x), 1))) for change in changes]
        problem.foresee(z, np.stack([x, *moved]))
        r = problem.residual(z, x)
        if not np.isfinite(r).all():
            return Point(np.inf, x, self._sigma, self._count)
        slope, sigma, freedom = self._slope(z, moved, r), self._sigma, self._count
        volume = self._log_volume(slope)
        for _ in range(_ROUNDS if self._private else 1):
            x, r = self._moved(z, x, r, slope)
            freedom = np.maximum(self._count - self._taken(slope), 1.0)
            errors = np.where(self._seen, problem.error(z, x) ** 2, np.nan)
            scale = problem.likelihood.scale(errors, self._members, sigma)
            following = problem.within(scale * np.sqrt(self._count / freedom)) if problem.learn_noise else sigma
            slope = self._rescaled(slope, sigma / following)
            problem.sigma = sigma = following
            r = problem.residual(z, x)
        prior, _ = problem.prior(z)
        cost = float(block_cost(r).sum() + 0.5 * np.sum(prior**2) + np.sum(self._count * np.log(sigma)))
        cost += float(np.sum(np.log(np.maximum(z[self._log_normal], 1e-300))))
        cost += self._log_volume(slope) - volume
        return Point(cost if np.isfinite(cost) else np.inf, x, sigma, freedom)

    def _slope(self, z: np.ndarray, moved: list[np.ndarray], r: np.ndarray) -> np.ndarray:
        """Derivative (B, m, k) of the residuals by the start states, from those at each `moved` start state."""
        columns = np.zeros((*r.shape, self._private))
        for j, x in enumerate(moved):
            there = self.problem.residual(z, x)
            columns[..., j] = np.where(np.isfinite(there), there - r, 0.0) / _STEP
        return columns

    def log_volume(self, z: np.ndarray) -> float:
        """Half the log determinant of the start states' Hessian at z (n,), with the noise scales of the solution."""
        problem, best = self.problem, self._best
        problem.sigma = self._sigma
        x = problem.retract(best.x, -best.response @ (z - best.z)) if self._private else best.x
        changes = _STEP * np.eye(self._private)
        moved = [problem.retract(x, np.tile(change, (len(x), 1))) for change in changes]
        return self._log_volume(self._slope(z, moved, problem.residual(z, x)))

    def _log_volume(self, slope: np.ndarray) -> float:
        return 0.5 * float(np.sum(np.linalg.slogdet(self._curvature(slope))[1])) if self._private else 0.0

    def _curvature(self, slope: np.ndarray) -> np.ndarray:
        """Hessian (B, k, k) of the start states."""
        hessian = np.swapaxes(slope, 1, 2) @ slope
        diagonal = np.einsum("bii->bi", hessian)
        return hessian + (_UNSEEN * np.max(diagonal, initial=1e-30) + 1e-30) * np.eye(hessian.shape[-1])

    def _moved(self, z: np.ndarray, x: np.ndarray, r: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start states after a Gauss-Newton step in those windows where it lowers the cost, and their residuals.

        A step that promises nothing is not simulated.
        """
        if not self._private:
            return x, r
        pull = np.swapaxes(slope, 1, 2) @ r[..., None]
        step = -np.linalg.solve(self._curvature(slope), pull)[..., 0]
        if -0.5 * float(np.sum(pull[..., 0] * step)) < _SETTLED:
            return x, r
        moved = self.problem.retract(x, step)
        there = self.problem.residual(z, moved)
        better = block_cost(there) < block_cost(r)
        return np.where(better[:, None], moved, x), np.where(better[:, None], there, r)

    def _readings(self, slope: np.ndarray) -> np.ndarray:
        """The rows (B, S, C, k) of the readings; others, of closed loops, follow them."""
        shape = self._seen.shape
        return slope[:, : shape[1] * shape[2]].reshape(*shape, slope.shape[-1])

    def _rescaled(self, slope: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """`slope` after the noise scales were divided by `factor` (R, C)."""
        readings = self._readings(slope) * factor[self.problem.windows.rollout][:, None, :, None]
        rows = readings.reshape(len(slope), -1, slope.shape[-1])
        return np.concatenate([rows, slope[:, rows.shape[1] :]], axis=1)

    def _taken(self, slope: np.ndarray) -> np.ndarray:
        """How many samples (R, C) of each channel the start states take up, by the leverage of the samples."""
        if not self._private:
            return np.zeros(self._count.shape)
        readings = self._readings(slope)
        inverse = np.linalg.inv(self._curvature(slope))
        return self._members @ np.einsum("bsck,bkl,bscl->bc", readings, inverse, readings)

    def drawn_sigma(self, point: Point, rng: np.random.Generator) -> np.ndarray:
        """A draw (R, C) of the noise scales given the numbers of `point`."""
        if not self.problem.learn_noise:
            return point.sigma
        likelihood = self.problem.likelihood
        # A sample of a heavy-tailed error tells dof / (dof + 3) of what a normal one tells about its scale.
        told = likelihood.dof / (likelihood.dof + 3) if isinstance(likelihood, Student) else 1.0
        freedom = np.maximum(told * point.freedom, 1.0)
        return self.problem.within(point.sigma * np.sqrt(freedom / rng.chisquare(freedom)))

    def drawn_starts(self, point: Point, rng: np.random.Generator) -> np.ndarray:
        """A draw (B, nq+nv+na) of the start states given the numbers of `point`, with the covariance of the solution."""
        if not self._private:
            return point.x
        values, vectors = np.linalg.eigh(self._best.private)
        # What nothing shows stays where it is.
        sound = np.where(values < 1e6, np.sqrt(np.maximum(values, 0.0)), 0.0)
        normal = rng.normal(size=values.shape)
        return self.problem.retract(point.x, np.einsum("bij,bj->bi", vectors, sound * normal))
