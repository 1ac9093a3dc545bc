"""Samples of the numbers of an identification, given its logs: the posterior, with its diagnostics in words.

Two routes. `laplace`: importance sampling from the likelihood of the numbers alone, in which start states and noise scales are
integrated out; on either engine, without JAX, for few numbers. `nuts`: Hamiltonian Monte Carlo over numbers, start states and
noise scales by blackjax, on the MJX engine.

Both believe that the model is exact and the noise white. The jackknife does not, so it stays the interval of the table.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dso_robotics.core.covariance import ENDLESS, NOWHERE, Uncertainty
from dso_robotics.core.importance import UNRELIABLE_K, sample
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.costs.marginal import Marginal, Point
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector

# With fewer effective draws than this the ends of a 95% interval are not known.
_FEWEST = 100
# Importance sampling from more numbers than this rarely works.
_MANY = 20
# Numbers in the start states that are kept.
_KEPT_STARTS = 2_000_000
# A posterior this much narrower than the jackknife's interval takes an inexact model for exact.
NARROW = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of equal weight.

    names: the coordinates (n,).
    z: (N, n) draws of the coordinates.
    sigma: (N, R, C) draws of the noise scales, by recording and channel.
    starts: (M, B, nq+nv+na) start states of the fitted windows in the first M draws; M is N unless they are many.
    route: "laplace" or "nuts".
    diagnostics: pareto_k and effective (laplace); rhat, effective and divergences (nuts); evaluations; seconds.
    reliable: whether the draws can be used.
    told: the diagnostics in words, and what to do if they are bad.
    """

    names: tuple[str, ...]
    z: np.ndarray
    sigma: np.ndarray
    starts: np.ndarray
    route: str
    diagnostics: Mapping[str, float]
    reliable: bool
    told: str

    def as_dict(self) -> dict[str, Any]:
        """The arrays and texts, as stored in the run file."""
        arrays = {"z": self.z, "sigma": self.sigma, "starts": self.starts}
        told = {"names": list(self.names), "route": self.route, "told": self.told, "reliable": int(self.reliable)}
        return arrays | told | {"diagnostics": {k: float(v) for k, v in self.diagnostics.items()}}


def draw(
    problem: WindowedIdentification,
    solution: Solution,
    spread: Uncertainty,
    *,
    route: str = "laplace",
    count: int = 500,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Posterior:
    """`count` draws from the posterior of the numbers of `problem`, near its `solution`.

    spread: the intervals of the solution; their width tells whether a number has a posterior at all.

    Raises:
      DsoError: nothing holds one of the numbers: neither the data nor a prior nor bounds.
    """
    vector = problem.vector
    _refuse_improper(vector, solution, spread)
    rng = np.random.default_rng(seed)
    if route == "nuts":
        from dso_robotics.studies.posterior_nuts import draw_nuts

        return draw_nuts(problem, solution, count=count, seed=seed, progress=progress)
    began, marginal = time.perf_counter(), Marginal(problem, solution)
    points: dict[bytes, Point] = {}

    def log_density(z: np.ndarray) -> float:
        point = marginal.at(z)
        points[z.tobytes()] = point
        return -point.cost

    found = sample(
        log_density,
        solution.z,
        laplace_covariance(problem, solution),
        rng,
        count=count,
        low=vector.low,
        high=vector.high,
        progress=progress,
    )
    rows = found.z[found.resampled(rng, count)]
    at = [points[z.tobytes()] for z in rows]
    width = max(at[0].x.size, 1)
    kept = at[: max(_KEPT_STARTS // width, 1)]
    told, reliable = _importance_told(found.k, found.effective, vector.size, count)
    return Posterior(
        vector.coordinate_names,
        rows,
        np.stack([marginal.drawn_sigma(point, rng) for point in at]),
        np.stack([marginal.drawn_starts(point, rng) for point in kept]),
        "laplace",
        {
            "pareto_k": found.k,
            "effective": found.effective,
            "evaluations": found.evaluations,
            "seconds": time.perf_counter() - began,
        },
        reliable,
        told,
    )


def laplace_covariance(problem: WindowedIdentification, solution: Solution) -> np.ndarray:
    """Covariance (n, n) of the normal approximation at the solution; bounds hold what nothing else does."""
    vector = problem.vector
    size = np.maximum(vector.scale, np.abs(solution.z))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_bounds = np.where(np.isfinite(vector.high - vector.low), 12 * (size / (vector.high - vector.low)) ** 2, 0.0)
    hessian = solution.information * np.outer(size, size) / max(problem.redundancy, 1.0) + np.diag(by_bounds)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    covariance = (vectors / np.maximum(values, 1 / NOWHERE)) @ vectors.T
    return covariance * np.outer(size, size)


def _refuse_improper(vector: ParameterVector, solution: Solution, spread: Uncertainty) -> None:
    size = np.maximum(vector.scale, np.abs(solution.z))
    bounded = np.isfinite(vector.low) & np.isfinite(vector.high)
    loose = [
        name
        for name, wide, box in zip(vector.coordinate_names, spread.std > ENDLESS * size, bounded, strict=True)
        if wide and not box
    ]
    if loose:
        raise DsoError(
            f"no posterior: neither the data nor a prior nor bounds hold {', '.join(loose)}; give bounds with @LOW:HIGH, a "
            "prior in a study file, or do not free it."
        )


def _importance_told(k: float, effective: float, size: int, count: int) -> tuple[str, bool]:
    """What the Pareto shape and the number of effective draws say, and whether the draws can be used."""
    limit = min(1 - 1 / math.log10(max(count, 11)), UNRELIABLE_K)
    many = " With this many numbers, `--engine mjx --sampler nuts` mixes better." if size > _MANY else ""
    cure = (
        "Do not use these draws: take more (--draws 4000), give priors or narrower bounds to what the data do not determine, "
        f"or use --engine mjx --sampler nuts.{many}"
    )
    if not k < limit:
        return (
            f"The importance weights have too heavy a tail (Pareto k = {k:.2f}, at most {limit:.2f} is usable): the posterior "
            f"is far from normal and the draws miss parts of it. {cure}"
        ), False
    if effective < _FEWEST:
        return (
            f"Only {effective:.0f} of {count} draws count (effective sample size; {_FEWEST} are needed for an interval). {cure}"
        ), False
    quality = "good" if k < 0.5 else "usable"
    return f"The importance weights are {quality} (Pareto k = {k:.2f}); {effective:.0f} of {count} draws count.", True


def table(vector: ParameterVector, posterior: Posterior, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Median, 95% interval and standard deviation of every physical number, and how they compare with the `rows` of the table.

    over_jackknife: width of the interval over that of the row; None where that has none.
    """
    found = {}
    for label, (drawn, unit) in vector.report(posterior.z).items():
        low, middle, high = np.quantile(drawn, [0.025, 0.5, 0.975])
        row = rows.get(label, {})
        ends = row.get("low95"), row.get("high95")
        width = ends[1] - ends[0] if None not in ends else math.nan  # type: ignore[operator]
        found[label] = {
            "median": float(middle),
            "low95": float(low),
            "high95": float(high),
            "std": float(np.std(drawn)),
            "unit": unit,
            "over_jackknife": float((high - low) / width) if np.isfinite(width) and width > 0 else None,
        }
    return found


def noise_table(problem: WindowedIdentification, posterior: Posterior) -> dict[str, Any]:
    """Median and 95% interval of the noise scale of every channel, over all recordings together."""
    channels = problem.windows.channels
    pooled = np.sqrt(np.mean(posterior.sigma**2, axis=1))
    low, middle, high = np.quantile(pooled, [0.025, 0.5, 0.975], axis=0)
    return {
        name: {"median": float(m), "low95": float(a), "high95": float(b), "unit": unit}
        for name, unit, a, m, b in zip(channels.sensor_names, channels.sensor_units, low, middle, high, strict=True)
    }


def warnings(posterior: Posterior, rows: Mapping[str, Mapping[str, Any]], method: str) -> list[str]:
    """What a reader should know before the draws are used."""
    found = [] if posterior.reliable else [f"Posterior: {posterior.told}"]
    narrow = [label for label, row in rows.items() if (row["over_jackknife"] or 1.0) < NARROW]
    if method == "jackknife" and narrow:
        found.append(
            f"The posterior of {', '.join(narrow)} is less than half as wide as the interval of the table: it takes the model "
            "for exact and the noise for white, and the windows disagree more than that. The error is in the model; believe "
            "the interval of the table."
        )
    return found
