"""Least squares whose unknowns are a few shared numbers and many private ones: the problem, and what a search of it found.

Identification estimates a handful of physical parameters z together with the start state of every window. The residual of a
window depends on z and on its own start alone, so the normal equations are an arrow: the starts are eliminated block by block
(Schur complement) and a step costs one small dense system, however many windows there are. Where windows are tied to the next
one, their part is block-tridiagonal instead of block-diagonal, and as cheap. SciPy's `least_squares` would see hundreds of
unknowns and one dense Jacobian.

NumPy only: both engines feed it.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from dso_robotics.core.descent import Status
from dso_robotics.errors import DsoError


class StartError(DsoError):
    """The cost is not finite at the start point, so there is nothing to search from."""


class Problem(Protocol):
    """Residuals of B blocks, m each, whitened by their noise; NaN anywhere marks a point that cannot be evaluated.

    z: (n,) shared coordinates; x: (B, s) whatever describes the private unknowns, moved by `retract` in a k-dimensional
    tangent space.
    """

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whitened residuals (B, m)."""
        ...

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals (B, m) with derivatives by z (B, m, n) and by x (B, m, k).

        Where a block's residuals depend on the next block's x too, a fourth array is the derivative (B, m, k) by that.
        """
        ...

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened prior residuals (p,) and their derivative (p, n)."""
        ...

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """x moved by change (B, k)."""
        ...

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Re-estimate the noise at this point; returns the largest relative change of a noise scale (0: noise fixed)."""
        ...

    def log_scale(self) -> float:
        """Sum of log noise scales over all measured numbers: what makes the cost a negative log-likelihood."""
        ...


@runtime_checkable
class Noisy(Problem, Protocol):
    """A problem whose noise is estimated with the unknowns, so that a stored search needs it."""

    @property
    def noise(self) -> dict[str, np.ndarray]:
        """The noise scales at the present point, by name."""
        ...

    def restore(self, z: np.ndarray, x: np.ndarray, noise: dict[str, np.ndarray]) -> None:
        """Go on at z and x with the noise that `noise` gave there."""
        ...


@runtime_checkable
class Reusing(Problem, Protocol):
    """A problem whose derivatives cost many times its residual, so that several steps on the same ones pay."""

    def again(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals here with the derivatives of the last `linearize`, weighed as they would be here."""
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """One linearisation: its number, the coordinates z (n,), and the cost there (half sum of squares plus log scales).

    damping: what the step to here left of it. evaluations: residual evaluations up to here.
    """

    iteration: int
    cost: float
    damping: float
    z: np.ndarray
    evaluations: int = 0


@dataclasses.dataclass(frozen=True)
class Solution:
    """Where the search ended, and what the derivatives there tell.

    status, message: why it ended; `history` has a record of every linearisation.
    information: (n, n) Gauss-Newton Hessian of z, private unknowns eliminated, prior included: the inverse of the
      covariance of z where no bound is active.
    scores: (B, n) each block's gradient with its private unknowns eliminated; they sum to zero at an inner optimum, and
      their spread is what the data themselves say about the noise (sandwich covariance).
    block_information: (B, n, n) each block's share of `information`; prior_information: (n, n) and
      prior_gradient: (n,) the prior's.
    active: (n,) True where a bound holds the coordinate.
    evaluations: residual evaluations, one for each linearisation included.
    private: (B, k, k) covariance of each block's private unknowns given z; response: (B, k, n) minus their derivative by z.
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

    @property
    def converged(self) -> bool:
        """Whether the end is a minimum, as far as the data can tell."""
        return self.status is Status.CONVERGED

    def private_covariance(self, block: int, covariance: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of one block's private change, given that of z (n, n): its own noise, and what z leaves open."""
        if not self.private.size:
            return np.zeros(self.private.shape[1:])
        pull = self.response[block]
        return self.private[block] + pull @ covariance @ pull.T


@dataclasses.dataclass(frozen=True)
class Settings:
    """When to stop, and how to begin.

    step_tolerance: steps against the uncertainty, of each coordinate (standard deviation) or of what the data see of all
      together: a search need not be more exact than its data. cost_tolerance: relative change of the cost. decrease: [nats]
      of the negative log-likelihood that are nothing; one standard deviation of one number is half a nat. patience: so many
      steps that neither lower the cost by ten times `decrease` nor move anything by `step_tolerance` are enough.
      noise_tolerance: relative change of the noise scales, which must have settled too. iterations: their limit. damping,
      damping_limit: first value, limit.
    """

    step_tolerance: float = 0.1
    cost_tolerance: float = 1e-9
    decrease: float = 0.01
    patience: int = 4
    noise_tolerance: float = 0.01
    iterations: int = 60
    damping: float = 1e-3
    damping_limit: float = 1e10
