"""How errors are distributed, normally or with heavy tails: -log p of an error over its noise scale, and what follows from it.

-log p(r) = cost(r) + log_normaliser + log(2 pi)/2 for an error r over its noise scale. Functions of r serve NumPy and JAX
arrays of any shape.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.special

Array = Any  # a NumPy or a JAX array
# Rounds of the fixed point for the scale of a heavy-tailed error; each gains about a digit.
_ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal errors: least squares.

    log_normaliser: minus the logarithm of the normalising constant over the normal one's, by which costs of distributions can
    be compared.
    """

    log_normaliser: float = dataclasses.field(default=0.0, init=False)

    def cost(self, r: Array) -> Array:
        """-log p(r) up to a constant: zero at zero."""
        return 0.5 * r**2

    def weight(self, r: Array) -> Array:
        """Derivative of `cost` over r: how much a sample counts beside a normal one's."""
        return r.__array_namespace__().ones_like(r)

    def whiten(self, r: Array) -> Array:
        """Number of the sign of r whose half square is `cost`: least squares needs no other form."""
        return r

    def slope(self, r: Array) -> Array:
        """Derivative of `whiten`."""
        return r.__array_namespace__().ones_like(r)

    def scale(
        self, squares: np.ndarray, members: np.ndarray, start: np.ndarray, *, floor: Any = 0.0, rounds: int = _ROUNDS
    ) -> np.ndarray:
        """Maximum-likelihood scales (G, C) of squared errors (B, S, C) whose blocks belong to groups `members` (G, B), NumPy.

        Unmeasured errors are NaN. `start` (G, C) begins an iteration where one is needed, of so many rounds. No scale is below
        `floor` (C,).
        """
        return np.maximum(np.sqrt(_mean(squares, members)), floor)


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """Student's t errors with `dof` degrees of freedom: a sample far off counts no more than one a few scales off.

    The standard choice of robust regression (Lange, Little and Taylor, 1989); four degrees of freedom keep about 94% of the
    efficiency where errors are normal after all. An array gives each of the last axis of r, the channels, its own number.
    """

    dof: float | np.ndarray = 4.0

    @property
    def log_normaliser(self) -> Any:
        """See `Normal`."""
        log, v = scipy.special.gammaln, self.dof
        return log(v / 2) - log((v + 1) / 2) + 0.5 * np.log(v / 2)

    def cost(self, r: Array) -> Array:
        """See `Normal.cost`."""
        return 0.5 * (self.dof + 1) * r.__array_namespace__().log1p(r**2 / self.dof)

    def weight(self, r: Array) -> Array:
        """See `Normal.weight`."""
        return (self.dof + 1) / (self.dof + r**2)

    def whiten(self, r: Array) -> Array:
        """See `Normal.whiten`."""
        xp = r.__array_namespace__()
        return xp.sign(r) * xp.sqrt((self.dof + 1) * xp.log1p(r**2 / self.dof))

    def slope(self, r: Array) -> Array:
        """See `Normal.slope`."""
        xp = r.__array_namespace__()
        tiny = xp.abs(r) < 1e-6
        safe = xp.where(tiny, 1.0, r)
        slope = (self.dof + 1) * safe / ((self.dof + safe**2) * self.whiten(safe))
        return xp.where(tiny, np.sqrt((self.dof + 1) / self.dof), slope)

    def scale(
        self, squares: np.ndarray, members: np.ndarray, start: np.ndarray, *, floor: Any = 0.0, rounds: int = _ROUNDS
    ) -> np.ndarray:
        """See `Normal.scale`: the fixed point of expectation-maximisation."""
        sigma, group = start, np.argmax(members, axis=0)
        for _ in range(rounds):
            weight = (self.dof + 1) / (self.dof + squares / np.maximum(sigma[group][:, None] ** 2, 1e-300))
            sigma = np.maximum(np.sqrt(_mean(weight * squares, members)), floor)
        return sigma


Likelihood = Normal | Student


def likelihood(dof: float | np.ndarray | None) -> Likelihood:
    """Student's t with so many degrees of freedom, or the normal distribution for None."""
    return Normal() if dof is None else Student(dof)


def _mean(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Mean over the blocks of each group and their samples, (G, C)."""
    seen = np.isfinite(values)
    return members @ np.where(seen, values, 0.0).sum(1) / np.maximum(members @ seen.sum(1), 1)
