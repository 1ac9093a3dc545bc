"""Draws from a normal distribution that is cut off at the sides of a box."""

import numpy as np

# Draws that are tried for each one wanted before the slower way is taken, and the steps of that way.
_TRIES, _STEPS = 20, 150


def truncated_normal(
    rng: np.random.Generator,
    mean: np.ndarray,
    covariance: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    count: int,
    *,
    inside: np.ndarray,
) -> np.ndarray:
    """`count` draws (count, n) from the normal distribution in the box [low, high].

    inside: (n,) a point in the box. Draws that fall into the box are taken as they are. If too few do, the others are walks of
    hit-and-run steps from `inside`: along a random direction, to a draw of the normal distribution on the line in the box.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    values = np.maximum(values, 1e-14 * max(values.max(), 1e-300))
    factor = vectors * np.sqrt(values)
    tried = mean + rng.normal(size=(_TRIES * count, len(mean))) @ factor.T
    found = tried[np.all((tried >= low) & (tried <= high), axis=1)][:count]
    left = count - len(found)
    if not left:
        return found
    from scipy.stats import truncnorm

    at = np.tile(np.clip(inside, low, high), (left, 1))
    precision = (vectors / values) @ vectors.T
    for step in range(_STEPS):
        # Principal directions in turn with random ones: the box may be narrow across either.
        principal = np.tile(factor[:, step // 2 % len(mean)], (left, 1))
        direction = principal if step % 2 else rng.normal(size=at.shape) @ factor.T
        curvature = np.einsum("mi,ij,mj->m", direction, precision, direction)
        best = np.einsum("mi,ij,mj->m", direction, precision, mean - at) / curvature
        width = 1 / np.sqrt(curvature)
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([(low - at) / direction, (high - at) / direction])
        still = direction == 0
        first = np.where(still, -np.inf, ends.min(0)).max(1)
        last = np.where(still, np.inf, ends.max(0)).min(1)
        a, b = (first - best) / width, (last - best) / width
        moves = b - a > 1e-12
        drawn = truncnorm.rvs(np.where(moves, a, -1.0), np.where(moves, b, 1.0), random_state=rng)
        at = at + np.where(moves, best + width * drawn, 0.0)[:, None] * direction
        at = np.clip(at, low, high)
    return np.concatenate([found, at])
