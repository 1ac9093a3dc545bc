"""Least squares with a few shared unknowns and many private ones: the problem and the solution.

Identification estimates a few physical parameters z together with the start state of every window. The residual of a window
depends only on z and on its own start state, so the normal equations have an arrow structure. The start states are eliminated
block by block (Schur complement). One step therefore costs one small dense system, for any number of windows. If windows are
tied to the next one, their part is block-tridiagonal instead of block-diagonal, at a similar cost. SciPy's `least_squares`
would treat this as hundreds of unknowns with one dense Jacobian.

This module uses only NumPy, so both engines can use it.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from dso_robotics.core.descent import Status
from dso_robotics.errors import DsoError


class StartError(DsoError):
    """The cost is not finite at the start point, so the search cannot begin."""


class Problem(Protocol):
    """Residuals of B blocks with m entries each, whitened by their noise. NaN marks a point that cannot be evaluated.

    z: (n,) shared coordinates.
    x: (B, s) representation of the private unknowns. `retract` moves it in a k-dimensional tangent space.
    """

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whitened residuals (B, m)."""
        ...

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals (B, m) with their derivatives by z (B, m, n) and by x (B, m, k).

        If a block's residuals also depend on the next block's x, a fourth array is the derivative (B, m, k) by that x.
        """
        ...

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened prior residuals (p,) and their derivative (p, n)."""
        ...

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """x moved by change (B, k)."""
        ...

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Re-estimate the noise at this point. Return the largest relative change of a noise scale (0: noise fixed)."""
        ...

    def log_scale(self) -> float:
        """Sum of the log noise scales over all measured numbers. Adding it makes the cost a negative log-likelihood."""
        ...


@runtime_checkable
class Noisy(Problem, Protocol):
    """A problem whose noise is estimated together with the unknowns. A stored search must include the noise."""

    @property
    def noise(self) -> dict[str, np.ndarray]:
        """The noise scales at the current point, by name."""
        ...

    def restore(self, z: np.ndarray, x: np.ndarray, noise: dict[str, np.ndarray]) -> None:
        """Continue at z and x with the noise scales that `noise` gave there."""
        ...


@runtime_checkable
class Reusing(Problem, Protocol):
    """A problem whose derivatives cost many times its residual, so it pays to take several steps with the same derivatives."""

    def again(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals at this point with the derivatives of the last `linearize`, weighted by the noise at this point."""
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """One linearisation.

    iteration: its number.
    cost: cost there (half sum of squares plus log scales).
    damping: damping after the step that led here.
    z: (n,) coordinates.
    evaluations: residual evaluations so far.
    """

    iteration: int
    cost: float
    damping: float
    z: np.ndarray
    evaluations: int = 0


@dataclasses.dataclass(frozen=True)
class Solution:
    """The result of the search, with the derivatives at the final point.

    z: (n,) coordinates; x: private unknowns; cost: the cost there.
    status, message: why the search ended.
    information: (n, n) Gauss-Newton Hessian of z, with private unknowns eliminated and the prior included. It is the inverse
      of the covariance of z if no bound is active.
    scores: (B, n) gradient of each block with its private unknowns eliminated. They sum to zero at an interior optimum. Their
      spread is an estimate of the noise from the data (sandwich covariance).
    block_information: (B, n, n) share of each block in `information`.
    prior_information: (n, n) share of the prior.
    prior_gradient: (n,) gradient of the prior.
    active: (n,) True where a bound holds the coordinate.
    history: a record of every linearisation.
    evaluations: number of residual evaluations, including one for each linearisation.
    private: (B, k, k) covariance of each block's private unknowns given z.
    response: (B, k, n) minus the derivative of the private unknowns by z.
    """

    z: np.ndarray
    x: np.ndarray
    cost: float
    status: Status
    message: str
    information: np.ndarray
    scores: np.ndarray
    block_information: np.ndarray
    prior_information: np.ndarray
    prior_gradient: np.ndarray
    active: np.ndarray
    history: tuple[Record, ...]
    evaluations: int
    private: np.ndarray
    response: np.ndarray

    @classmethod
    def of_blocks(
        cls, z: np.ndarray, cost: np.ndarray, scores: np.ndarray, shares: np.ndarray,
        prior: tuple[np.ndarray, np.ndarray], low: np.ndarray, high: np.ndarray, *, status: Status,
    ) -> "Solution":  # fmt: skip
        """Where a search for z (n,) of another kind ended, without private unknowns.

        cost: of each block, (B,). scores, shares: (B, n), (B, n, n). prior: its residual (p,) and its derivative (p, n).
        """
        pull, slope = prior
        curvature, push, none = slope.T @ slope, slope.T @ pull, np.zeros((0, 0))
        gradient = scores.sum(0) + push
        active = ((z <= low) & (gradient > 0)) | ((z >= high) & (gradient < 0))
        return cls(
            z=z, x=none, cost=float(cost.sum() + 0.5 * pull @ pull), status=status, message="",
            information=shares.sum(0) + curvature, scores=scores, block_information=shares, prior_information=curvature,
            prior_gradient=push, active=active, history=(), evaluations=0, private=none, response=none,
        )  # fmt: skip

    @property
    def gradient(self) -> np.ndarray:
        """(n,) of the cost."""
        return self.scores.sum(0) + self.prior_gradient

    @property
    def converged(self) -> bool:
        """Whether the final point is a minimum, to the accuracy of the data."""
        return self.status is Status.CONVERGED

    def private_covariance(self, block: int, covariance: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of one block's private unknowns: their own noise plus the uncertainty (n, n) of z."""
        if not self.private.size:
            return np.zeros(self.private.shape[1:])
        pull = self.response[block]
        return self.private[block] + pull @ covariance @ pull.T


@dataclasses.dataclass(frozen=True)
class Settings:
    """Stopping limits and starting values.

    step_tolerance: limit on a step, relative to the uncertainty of each coordinate (standard deviation) or to that of all
      coordinates together. A search does not need to be more exact than its data.
    cost_tolerance: relative change of the cost.
    decrease: [nats] of the negative log-likelihood that count as no change. One standard deviation of one number is half a nat.
    patience: the search stops after this many steps that neither lower the cost by ten times `decrease` nor move any coordinate
      by `step_tolerance`.
    noise_tolerance: relative change of the noise scales, which must have settled too.
    iterations: largest number of iterations.
    damping, damping_limit: first value and limit of the damping.
    """

    step_tolerance: float = 0.1
    cost_tolerance: float = 1e-9
    decrease: float = 0.01
    patience: int = 4
    noise_tolerance: float = 0.01
    iterations: int = 60
    damping: float = 1e-3
    damping_limit: float = 1e10
