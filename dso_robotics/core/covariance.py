"""Uncertainty of a least-squares estimate, and the directions that its data do not determine."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dso_robotics.core.method.least_squares import Solution

# The 97.5% quantile of the normal distribution.
Z95 = 1.959963984540054
# A standard deviation of more than this many typical sizes: nothing holds the number, and its interval is not printed.
ENDLESS = 1e3
# With fewer blocks than this per coordinate, the spread of the block scores is too poor an estimate of the noise.
BLOCKS_PER_COORDINATE = 3
# With fewer blocks than this per coordinate, that spread is uncertain, and may be smaller than white noise makes it by chance.
SURE_BLOCKS_PER_COORDINATE = 10
# Variance, in sizes squared, of a direction without any curvature: practically infinite, but still a number.
NOWHERE = 1e12


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Covariance of the coordinates.

    covariance: (n, n). A direction that the data do not determine has the prior's width, or without a prior a standard
      deviation of a million sizes. Coordinates at a bound have the variance they would have without bounds, and zero
      covariance with all others.
    centre: (n,) the centre of the intervals: the estimate. For a coordinate at a bound, where it would be without the bound.
    correlation: (n, n) in [-1, 1].
    method: "jackknife" if the changes of the estimate without each block were used. This is also right if residuals are
      correlated in time or the model is not exact. "likelihood" if only the noise scales were used.
    data: (n, n) like `covariance`, but directions that only the prior determines are left open.
    unseen: (m, n) directions, in coordinates divided by their size. They span what the data alone determine worse than
      `vague`.
    blocks: number of blocks. With fewer than BLOCKS_PER_COORDINATE per free coordinate, only the likelihood can be used.
    quantile: half-width of a 95% interval in standard deviations: of the normal distribution, or with a jackknife of Student's
      with one degree of freedom less than blocks.
    """

    covariance: np.ndarray
    centre: np.ndarray
    correlation: np.ndarray
    method: str
    data: np.ndarray
    unseen: np.ndarray
    blocks: int
    quantile: float = Z95

    @property
    def std(self) -> np.ndarray:
        """Standard deviations (n,)."""
        return np.sqrt(np.diag(self.covariance))


def uncertainty(solution: "Solution", scale: np.ndarray, *, vague: float = 1.0, redundancy: float = 1.0) -> Uncertainty:
    """Covariance of `solution.z` by the linearised delete-one-block jackknife.

    Without block b the estimate would move by (H - H_b)^-1 s_b, where s_b is its score and H_b its share of the Hessian. The
    sum of outer products of these moves is the covariance (the cluster-robust estimator CR3 of Bell and McCaffrey, 2002).

    Blocks (windows) are assumed independent, but not the samples within them. Model error and filtered sensors make
    neighbouring residuals similar, and the plain inverse Hessian is then far too small. `scale` (n,) holds typical sizes. A
    direction is reported as unseen if its standard deviation is more than `vague` of these sizes, and of the values.

    redundancy: number of samples over that of samples less unknowns. A noise scale at the minimum of the cost is too small by
      its square root.

    With few blocks the jackknife is itself uncertain. Then no standard deviation is below that of white noise.
    """
    n, free = len(scale), np.flatnonzero(~solution.active)
    size = np.maximum(scale, np.abs(solution.z))
    unit = np.outer(size, size)
    hessian, prior = solution.information * unit, solution.prior_information * unit
    scores, shares = solution.scores * size, solution.block_information * unit
    blocks = len(scores)
    # An active bound leaves a gradient, which is not scatter. It is removed from the problem without bounds.
    parts = [(np.arange(n), scores - scores.mean(0) * solution.active), (free, scores)]
    enough = blocks >= BLOCKS_PER_COORDINATE * len(free)

    def both(method: str) -> list[np.ndarray]:
        return [
            spread(
                hessian[np.ix_(i, i)], s[:, i], shares[:, i][:, :, i], prior[np.ix_(i, i)], method=method, vague=vague
            )
            for i, s in parts
        ]

    method = "jackknife" if enough else "likelihood"
    whole, part = both(method)
    if not (np.isfinite(whole).all() and np.isfinite(part).all()):
        method = "likelihood"
        whole, part = both(method)
    inner, centre = np.ix_(free, free), solution.z.copy()
    scaled = np.diag(np.diag(whole))
    scaled[inner] = part
    if method == "likelihood":
        scaled *= redundancy
    elif blocks < SURE_BLOCKS_PER_COORDINATE * len(free):
        white = np.diag(both("likelihood")[0]) * redundancy
        white[free] = np.diag(both("likelihood")[1]) * redundancy
        wider = np.sqrt(np.maximum(white / np.maximum(np.diag(scaled), 1e-300), 1.0))
        scaled = wider[:, None] * scaled * wider
    if len(free) < n:
        pull = (scores.sum(0) + solution.prior_gradient * size) * solution.active
        centre -= solution.active * size * np.linalg.lstsq(hessian, pull, rcond=1e-12)[0]
    deviation = np.sqrt(np.maximum(np.diag(scaled), 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = scaled / np.outer(deviation, deviation)
    correlation = np.where(np.isfinite(correlation), np.clip(correlation, -1, 1), 0.0)
    np.fill_diagonal(correlation, 1.0)
    data = scaled + _open_ended(hessian - prior, vague)
    unseen = _unseen(scaled[inner] + _open_ended((hessian - prior)[inner], vague), free, n, vague)
    quantile = student95(blocks - 1) if method == "jackknife" else Z95
    return Uncertainty(scaled * unit, centre, correlation, method, data * unit, unseen, blocks, quantile)


def student95(freedom: int) -> float:
    """The 97.5% quantile of Student's distribution, by the expansion of Hill (1970) in powers of 1 / freedom; from 3 on."""
    z, n = Z95, max(freedom, 3)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**k for k, term in enumerate(terms, start=1))


def spread(
    hessian: np.ndarray,
    scores: np.ndarray,
    shares: np.ndarray,
    prior: np.ndarray,
    *,
    method: str = "jackknife",
    vague: float = 1.0,
) -> np.ndarray:
    """Covariance (n, n) from the Hessian (n, n), block scores (B, n), block Hessians (B, n, n) and the prior's Hessian.

    All are in coordinates divided by their sizes. The prior counts as one more observation, whose scatter is its own Hessian.
    Where the data contain no information, the prior's width remains. Directions with an inverse curvature above `vague`
    squared
    keep that inverse curvature: the blocks cannot disagree on them, because they contain no information. NaN if the jackknife
    does not exist.
    """
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    seen = values > vague**-2
    known, blind = vectors[:, seen], vectors[:, ~seen]
    part = (known / values[seen]) @ known.T
    floor = (blind / np.maximum(values[~seen], 1 / NOWHERE)) @ blind.T
    if method != "jackknife":
        return part + floor
    # How the estimate would move without each block. Scores alone give too small a move if one block has a large influence.
    kept = np.eye(len(hessian)) - shares @ part
    try:
        moves = np.linalg.solve(kept, scores[..., None])[..., 0] @ part
    except np.linalg.LinAlgError:
        return np.full_like(hessian, np.nan)
    return moves.T @ moves + part @ prior @ part + floor


def _open_ended(data: np.ndarray, vague: float) -> np.ndarray:
    """Inverse (n, n) of a Hessian of the data alone, in the directions that it leaves undetermined."""
    values, vectors = np.linalg.eigh((data + data.T) / 2)
    blind = values <= vague**-2
    return (vectors[:, blind] / np.maximum(values[blind], 1 / NOWHERE)) @ vectors[:, blind].T


def _unseen(covariance: np.ndarray, free: np.ndarray, n: int, vague: float) -> np.ndarray:
    """Directions (m, n) in which `covariance` of the free coordinates is larger than `vague` allows."""
    values, vectors = np.linalg.eigh(covariance)
    chosen = vectors[:, np.sqrt(np.maximum(values, 0.0)) > vague].T[::-1]
    directions = np.zeros((len(chosen), n))
    directions[:, free] = _sparse(chosen)
    return directions


def _sparse(rows: np.ndarray) -> np.ndarray:
    """Rows that span the same space with as few nonzero numbers as elimination gives. Only the space itself has a meaning."""
    rows = rows.copy()
    for i in range(len(rows)):
        pivot = np.unravel_index(np.argmax(np.abs(rows[i:])), rows[i:].shape)
        first, column = i + int(pivot[0]), int(pivot[1])
        rows[[i, first]] = rows[[first, i]]
        rows[i] /= rows[i, column]
        others = np.arange(len(rows)) != i
        rows[others] -= rows[others, column][:, None] * rows[i]
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)


def describe(directions: np.ndarray, names: tuple[str, ...], *, least: float = 0.25) -> list[str]:
    """Each direction as text, such as "body/a/mass + 0.8 body/b/mass", largest part first."""
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
