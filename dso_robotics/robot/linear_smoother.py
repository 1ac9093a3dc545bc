"""The smoother of Rauch, Tung and Striebel: the distribution of every state of a linear model given all readings."""

from typing import NamedTuple

import numpy as np

from dso_robotics.robot.correctors.kalman import correction, transposed


class LinearProblem(NamedTuple):
    """d[0] ~ N(mean, start),  d[t+1] = a[t] d[t] + c[t] + noise of covariance q[t],  e[t] = h[t] d[t] + noise of variances r.

    Arrays have the leading axis of B runs: mean (B, K), start (B, K, K), a (B, T-1, K, K), c (B, T-1, K), q (B, T-1, K, K),
    h (B, T, ny, K), r (ny,), e (B, T, ny), seen (B, T, ny) bool.
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


def smoothed(problem: LinearProblem) -> tuple[np.ndarray, np.ndarray]:
    """Means (B, T, K) and covariances (B, T, K, K) of all d given all readings.

    It needs no inverse of q, so noises may be as small as they like.
    """
    mean, p = problem.mean, problem.start
    length = problem.e.shape[1]
    means, spreads = np.empty((*mean.shape[:1], length, mean.shape[1])), np.empty((len(p), length, *p.shape[1:]))
    expected, forecast = np.empty_like(means), np.empty_like(spreads)
    for t in range(length):
        if t:
            a = problem.a[:, t - 1]
            mean = (a @ mean[..., None])[..., 0] + problem.c[:, t - 1]
            p = a @ p @ transposed(a) + problem.q[:, t - 1]
            p = (p + transposed(p)) / 2
        expected[:, t], forecast[:, t] = mean, p
        if problem.seen[:, t].any():
            h = problem.h[:, t]
            off = problem.e[:, t] - (h @ mean[..., None])[..., 0]
            done = correction(p, h, problem.r, off, problem.seen[:, t])
            mean, p = mean + done.change, done.covariance
        means[:, t], spreads[:, t] = mean, p
    for t in range(length - 2, -1, -1):
        back = transposed(_solved(forecast[:, t + 1], problem.a[:, t] @ spreads[:, t]))
        means[:, t] += (back @ (means[:, t + 1] - expected[:, t + 1])[..., None])[..., 0]
        found = spreads[:, t] + back @ (spreads[:, t + 1] - forecast[:, t + 1]) @ transposed(back)
        spreads[:, t] = (found + transposed(found)) / 2
    return means, spreads


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
