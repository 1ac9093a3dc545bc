"""The smoother of Rauch, Tung and Striebel: the distribution of every state of a linear model given all readings.

Numbers that are shared by all states and readings are unknowns beside them in `jointly`. The states are linear in them, so the
smoother runs once for the states without them, and beside it, with the same gains, once for the derivative by each of them.
That is the elimination of the states from normal equations of arrow shape: a band of the states, with a border of the numbers.
"""

from typing import NamedTuple

import numpy as np

from dso_robotics.robot.correctors.kalman import correction, transposed


class LinearProblem(NamedTuple):
    """d[0] ~ N(mean, start),  d[t+1] = a[t] d[t] + c[t] + noise of covariance q[t],  e[t] = h[t] d[t] + noise of variances r.

    Arrays have the leading axis of B runs: mean (B, K), start (B, K, K), a (B, T-1, K, K), c (B, T-1, K), q (B, T-1, K, K),
    h (B, T, ny, K), r (ny,), e (B, T, ny), seen (B, T, ny) bool.

    With m shared numbers p, g[t] p is added to d[t+1], g (B, T-1, K, m), and s[t] p to e[t], s (B, T, ny, m); None for none.
    """

    mean: np.ndarray
    start: np.ndarray
    a: np.ndarray
    c: np.ndarray
    q: np.ndarray
    h: np.ndarray
    r: np.ndarray
    e: np.ndarray
    seen: np.ndarray
    g: np.ndarray | None = None
    s: np.ndarray | None = None


class Jointly(NamedTuple):
    """All d for any shared numbers p (m,), and what the readings of each run tell of p.

    mean: (B, T, K), for p = 0. slope: (B, T, K, m), the derivative of the mean by p. covariance: (B, T, K, K), for a given p.
    information: (B, m, m) and pull: (B, m), so that minus the logarithm of the likelihood of a run's readings is
    p' information p / 2 - pull' p, but for a constant.
    """

    mean: np.ndarray
    slope: np.ndarray
    covariance: np.ndarray
    information: np.ndarray
    pull: np.ndarray


def smoothed(problem: LinearProblem) -> tuple[np.ndarray, np.ndarray]:
    """Means (B, T, K) and covariances (B, T, K, K) of all d given all readings, for shared numbers of zero.

    It needs no inverse of q, so noises may be as small as they like.
    """
    found = jointly(problem._replace(g=None, s=None))
    return found.mean, found.covariance


def jointly(problem: LinearProblem) -> Jointly:
    """The distribution of all d given all readings and the shared numbers, and the likelihood of those."""
    (b, length, _), m = problem.e.shape, 0 if problem.g is None else problem.g.shape[-1]
    # The first column is the mean for p = 0, the others its derivatives by p.
    mean, p = np.concatenate([problem.mean[..., None], np.zeros((*problem.mean.shape, m))], -1), problem.start
    means, spreads = np.empty((b, length, *mean.shape[1:])), np.empty((b, length, *p.shape[1:]))
    expected, forecast = np.empty_like(means), np.empty_like(spreads)
    information, pull = np.zeros((b, m, m)), np.zeros((b, m))
    for t in range(length):
        if t:
            a = problem.a[:, t - 1]
            mean = a @ mean
            mean[..., 0] += problem.c[:, t - 1]
            if problem.g is not None:
                mean[..., 1:] += problem.g[:, t - 1]
            p = a @ p @ transposed(a) + problem.q[:, t - 1]
            p = (p + transposed(p)) / 2
        expected[:, t], forecast[:, t] = mean, p
        if problem.seen[:, t].any():
            h, seen = problem.h[:, t], problem.seen[:, t]
            off = -h @ mean
            off[..., 0] += problem.e[:, t]
            if problem.s is not None:
                off[..., 1:] -= problem.s[:, t]
            off = np.where(seen[..., None], off, 0.0)
            done = correction(p, h, problem.r, off[..., 0], seen)
            mean, p = mean + done.gain @ off, done.covariance
            if m:
                weighed = transposed(np.linalg.solve(done.spread, off[..., 1:]))
                information += weighed @ off[..., 1:]
                pull -= (weighed @ off[..., :1])[..., 0]
        means[:, t], spreads[:, t] = mean, p
    for t in range(length - 2, -1, -1):
        back = transposed(_solved(forecast[:, t + 1], problem.a[:, t] @ spreads[:, t]))
        means[:, t] += back @ (means[:, t + 1] - expected[:, t + 1])
        found = spreads[:, t] + back @ (spreads[:, t + 1] - forecast[:, t + 1]) @ transposed(back)
        spreads[:, t] = (found + transposed(found)) / 2
    return Jointly(means[..., 0], means[..., 1:], spreads, information, pull)


def _solved(spread: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The inverse of covariances (B, K, K) times `right`, scaled first: states have different units."""
    size = 1 / np.sqrt(np.maximum(np.diagonal(spread, axis1=-2, axis2=-1), 1e-300))
    scaled = spread * size[..., :, None] * size[..., None, :]
    return size[..., :, None] * np.linalg.solve(scaled, size[..., :, None] * right)


def square(off: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """off' covariance^-1 off of the last axes."""
    size = 1 / np.sqrt(np.maximum(np.abs(np.diagonal(covariance, axis1=-2, axis2=-1)), 1e-300))
    scaled, off = covariance * size[..., :, None] * size[..., None, :], off * size
    return np.sum(off * np.linalg.solve(scaled, off[..., None])[..., 0], -1)
