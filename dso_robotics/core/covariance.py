"""Uncertainty of a least-squares estimate, and the directions its data cannot see."""

import dataclasses

import numpy as np

from dso_robotics.core.gauss_newton import Solution

# With fewer blocks than this many for each coordinate, the spread of their scores is too poor an estimate of the noise.
_BLOCKS_PER_COORDINATE = 3


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Covariance of the coordinates.

    covariance: (n, n); rows of coordinates at a bound are those of the problem without bounds.
    correlation: (n, n) in [-1, 1].
    method: "jackknife" when the estimate's changes without each block were used (right also when residuals are correlated
      in time or the model is not exact), "likelihood" when only the noise scales were.
    unseen: (m, n) unit directions, in coordinates divided by their size, whose standard deviation exceeds `vague`.
    """

    covariance: np.ndarray
    correlation: np.ndarray
    method: str
    unseen: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """Standard deviations (n,)."""
        return np.sqrt(np.diag(self.covariance))


def uncertainty(solution: Solution, scale: np.ndarray, *, vague: float = 1.0) -> Uncertainty:
    """Covariance of `solution.z` by the linearised delete-one-block jackknife.

    Without block b the estimate would move by (H - H_b)^-1 s_b, with s_b its score and H_b its share of the Hessian; the sum
    of outer products of these moves is the covariance (the cluster-robust estimator CR3 of Bell and McCaffrey, 2002).

    Blocks (windows) are taken as independent, not the samples within them: model error and filtered sensors make
    neighbouring residuals alike, and the plain inverse Hessian then promises far too much. `scale` (n,) are typical sizes;
    a direction whose standard deviation is more than `vague` of them, and of the values, is reported as unseen.
    """
    n = len(scale)
    free = np.flatnonzero(~solution.active)
    everything = _inverse(solution.information * np.outer(scale, scale))
    scaled = everything.copy()
    method = "likelihood"
    if len(free):
        part = _inverse((solution.information * np.outer(scale, scale))[np.ix_(free, free)])
        scores = (solution.scores * scale)[:, free]
        blocks = len(scores)
        if blocks >= _BLOCKS_PER_COORDINATE * len(free):
            shares = (solution.block_information * np.outer(scale, scale))[:, free][:, :, free]
            # How the estimate would move without each block: scores alone shrink where one block has much of the say.
            kept = np.eye(len(free)) - shares @ part
            moves = np.linalg.solve(kept, scores[..., None])[..., 0] @ part
            jackknife = moves.T @ moves
            if np.isfinite(jackknife).all():
                part, method = jackknife, "jackknife"
        scaled[np.ix_(free, free)] = part
    deviation = np.sqrt(np.maximum(np.diag(scaled), 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = scaled / np.outer(deviation, deviation)
    correlation = np.where(np.isfinite(correlation), np.clip(correlation, -1, 1), 0.0)
    np.fill_diagonal(correlation, 1.0)
    covariance = scaled * np.outer(scale, scale)
    size = np.maximum(scale, np.abs(solution.z))
    return Uncertainty(covariance, correlation, method, _unseen(covariance / np.outer(size, size), free, n, vague))


def _inverse(hessian: np.ndarray) -> np.ndarray:
    """Inverse of a positive semidefinite matrix; directions of no curvature get a huge but finite variance."""
    if not len(hessian):
        return hessian
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    floor = 1e-14 * max(float(values[-1]), 1e-100)
    return (vectors / np.maximum(values, floor)) @ vectors.T


def _unseen(scaled: np.ndarray, free: np.ndarray, n: int, vague: float) -> np.ndarray:
    if not len(free):
        return np.zeros((0, n))
    values, vectors = np.linalg.eigh(scaled[np.ix_(free, free)])
    chosen = vectors[:, np.sqrt(np.maximum(values, 0.0)) > vague].T[::-1]
    directions = np.zeros((len(chosen), n))
    directions[:, free] = chosen
    return directions


def describe(directions: np.ndarray, names: tuple[str, ...], *, least: float = 0.25) -> list[str]:
    """Each direction in words, such as "body/a/mass + 0.8 body/b/mass", largest part first."""
    sentences = []
    for direction in directions:
        order = np.argsort(-np.abs(direction))
        largest = direction[order[0]]
        parts = [(direction[i] / largest, names[i]) for i in order if abs(direction[i] / largest) >= least]
        text = parts[0][1]
        for share, name in parts[1:]:
            text += f" {'+' if share > 0 else '-'} {'' if abs(share) > 0.95 else f'{abs(share):.2g} '}{name}"
        sentences.append(text)
    return sentences
