"""Importance sampling from a density in a box, with proposals that adapt and weights whose tail is smoothed.

Proposals are Student's t distributions. Each round takes the moments of all draws so far, and all draws are weighted by the
mixture of all proposals (Cornuet et al., "Adaptive multiple importance sampling", 2012). The largest weights are replaced by
the quantiles of a generalised Pareto distribution (Vehtari et al., "Pareto smoothed importance sampling", JMLR 25, 2024). Its
shape k tells whether the weights can be trusted.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

# Degrees of freedom of a proposal: tails heavier than those of any posterior from many samples.
_DOF = 5.0
# Rounds of proposals, and the share of the draws in the first one.
_ROUNDS = 4
# A proposal that lies mostly outside the box: so many draws are tried for each that is wanted.
_TRIES = 200
# A Pareto shape above this: the mean of the weights converges too slowly to be of use (Vehtari et al., Section 3).
UNRELIABLE_K = 0.7
# Fewest numbers in a tail for which a Pareto distribution is fitted.
_SHORTEST_TAIL = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted:
    """Weighted draws from a density.

    z: (N, n) draws.
    weights: (N,) smoothed weights; they sum to 1.
    k: Pareto shape of the raw weights.
    evaluations: number of evaluations of the density.
    """

    z: np.ndarray
    weights: np.ndarray
    k: float
    evaluations: int

    @property
    def effective(self) -> float:
        """Number of independent draws of equal weight that tell as much, 1 / sum w^2."""
        return float(1.0 / np.sum(self.weights**2))

    def mean(self) -> np.ndarray:
        """Mean (n,)."""
        return self.weights @ self.z

    def covariance(self) -> np.ndarray:
        """Covariance (n, n)."""
        away = self.z - self.mean()
        return (away * self.weights[:, None]).T @ away

    def resampled(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Indices (count,) of draws of equal weight, by systematic resampling, in random order."""
        places = (rng.random() + np.arange(count)) / count
        chosen = np.searchsorted(np.cumsum(self.weights), places)
        return rng.permutation(np.minimum(chosen, len(self.weights) - 1))


@dataclasses.dataclass(frozen=True, eq=False)
class _Student:
    """A multivariate t proposal with `drawn` draws, of which those outside the box have no density to evaluate."""

    centre: np.ndarray
    factor: np.ndarray
    drawn: int = 0

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        normal = rng.normal(size=(count, len(self.centre)))
        heavy = np.sqrt(_DOF / rng.chisquare(_DOF, size=(count, 1)))
        return self.centre + heavy * normal @ self.factor.T

    def log_density(self, z: np.ndarray) -> np.ndarray:
        n = len(self.centre)
        scaled = np.linalg.solve(self.factor, (z - self.centre).T)
        constant = math.lgamma((_DOF + n) / 2) - math.lgamma(_DOF / 2) - n / 2 * math.log(_DOF * math.pi)
        volume = float(np.sum(np.log(np.abs(np.diag(self.factor)))))
        return constant - volume - (_DOF + n) / 2 * np.log1p(np.sum(scaled**2, axis=0) / _DOF)


def sample(
    log_density: Callable[[np.ndarray], float],
    centre: np.ndarray,
    covariance: np.ndarray,
    rng: np.random.Generator,
    *,
    count: int,
    low: np.ndarray,
    high: np.ndarray,
    progress: Callable[[int], None] = lambda done: None,
) -> Weighted:
    """`count` weighted draws from exp(log_density) in the box [low, high].

    log_density: of a point (n,), up to a constant; -inf or NaN where the point is impossible.
    centre, covariance: of the first proposal, (n,) and (n, n); the centre is in the box.
    progress: is called with the number of draws so far.
    """
    points, values, proposals = [], [], [_Student(centre, _factor(covariance))]
    each = [count // _ROUNDS + (i < count % _ROUNDS) for i in range(_ROUNDS)]
    for r, wanted in enumerate(each):
        proposal = proposals[-1]
        z, drawn = _inside(proposal, rng, wanted, low, high)
        proposals[-1] = dataclasses.replace(proposal, drawn=drawn)
        for point in z:
            value = log_density(point)
            points.append(point)
            values.append(value if np.isfinite(value) else -np.inf)
            progress(len(points))
        if r + 1 < len(each):
            found = _weighted(np.array(points), np.array(values), proposals)
            proposals.append(_adapted(found, proposals[0]))
    return _weighted(np.array(points), np.array(values), proposals)


def _inside(
    proposal: _Student, rng: np.random.Generator, wanted: int, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, int]:
    """About `wanted` draws in the box, at least one, and how many were made for them."""
    kept, drawn, have = [], 0, 0
    while have < wanted and drawn < _TRIES * wanted:
        z = proposal.draw(rng, wanted)
        inside = np.all((z >= low) & (z <= high), axis=1)
        # The draw that completes the number is the last that counts.
        reached = np.flatnonzero(np.cumsum(inside) >= wanted - have)
        last = int(reached[0]) + 1 if len(reached) else wanted
        kept.append(z[:last][inside[:last]])
        drawn, have = drawn + last, have + int(inside[:last].sum())
    found = np.concatenate(kept)
    return (found, drawn) if have else (np.clip(proposal.centre, low, high)[None], drawn)


def _weighted(z: np.ndarray, values: np.ndarray, proposals: list[_Student]) -> Weighted:
    shares = np.log([p.drawn / sum(q.drawn for q in proposals) for p in proposals])
    parts = np.stack([p.log_density(z) + share for p, share in zip(proposals, shares, strict=True)])
    most = parts.max(0)
    mixture = most + np.log(np.exp(parts - most).sum(0))
    weights, k = smoothed(values - mixture)
    return Weighted(z, weights, k, len(z))


def _adapted(found: Weighted, first: _Student) -> _Student:
    """The proposal with the moments of the draws so far; where they are few, with those of the first one mixed in."""
    n = found.z.shape[1]
    trust = found.effective / (found.effective + 2 * n)
    centre = trust * found.mean() + (1 - trust) * first.centre
    # A t distribution is wider than its scale matrix by DOF / (DOF - 2).
    own = found.covariance() * (_DOF - 2) / _DOF * 1.2
    return _Student(centre, _factor(trust * own + (1 - trust) * first.factor @ first.factor.T))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Lower-triangular L with L L^T = covariance; a direction without any spread gets a little."""
    size = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    correlation = covariance / np.outer(size, size)
    values, vectors = np.linalg.eigh((correlation + correlation.T) / 2)
    sound = (vectors * np.maximum(values, 1e-12 * max(values.max(), 1.0))) @ vectors.T
    return size[:, None] * np.linalg.cholesky(sound + 1e-14 * np.eye(len(size)))


def smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (N,) that sum to 1, with their largest ones Pareto-smoothed, and the Pareto shape k; inf if no weight is left."""
    if not np.isfinite(log_weights).any():
        return np.full(len(log_weights), 1 / max(len(log_weights), 1)), math.inf
    weights = np.exp(log_weights - log_weights.max())
    count = len(weights)
    tail = int(min(0.2 * count, 3 * math.sqrt(count)))
    order = np.argsort(weights)
    if tail < _SHORTEST_TAIL:
        return weights / weights.sum(), math.inf
    largest, cutoff = order[-tail:], weights[order[-tail - 1]]
    beyond = weights[largest] - cutoff
    if not beyond[-1] > 1e-12:  # all weights are alike
        return weights / weights.sum(), -math.inf
    k, sigma = generalised_pareto(np.maximum(beyond, 1e-12 * beyond[-1]))
    places = (np.arange(tail) + 0.5) / tail
    quantiles = -sigma * np.log1p(-places) if abs(k) < 1e-9 else sigma / k * np.expm1(-k * np.log1p(-places))
    weights = weights.copy()
    weights[largest] = np.minimum(cutoff + quantiles, 1.0)
    return weights / weights.sum(), float(k)


def generalised_pareto(x: np.ndarray) -> tuple[float, float]:
    """Shape k and scale of the generalised Pareto distribution of sorted x (m,) > 0.

    The estimator of Zhang and Stephens (Technometrics 51, 2009), with the weak prior on k of Vehtari et al. (2024).
    """
    m = len(x)
    points = 30 + int(math.sqrt(m))
    quartile = x[int(m / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    with np.errstate(divide="ignore", invalid="ignore"):
        shapes = np.mean(np.log1p(-b[:, None] * x), axis=1)
        likelihood = m * (np.log(-b / shapes) - shapes - 1)
    likelihood = np.where(np.isfinite(likelihood), likelihood, -np.inf)
    weights = np.exp(likelihood - likelihood.max())
    middle = float(weights @ b / weights.sum())
    k = float(np.mean(np.log1p(-middle * x)))
    sigma = -k / middle
    return (m * k + 10 * 0.5) / (m + 10), sigma
