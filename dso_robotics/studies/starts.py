"""Several starts of one search. If the cost has local optima, many short searches run and the best one continues."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings, StartError
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.parameters.vector import ParameterVector

# Numbers without two bounds are drawn around their start value. This is the standard deviation of the logarithm.
_FACTOR = np.log(3.0)
# Iterations of each short search.
_SHORT = 8


def draw(vector: ParameterVector, count: int, seed: int) -> np.ndarray:
    """(count, n) start coordinates, the declared ones first.

    A number between two bounds is drawn uniformly. A positive number is drawn log-normally around its start value. Other
    numbers are drawn normally with their scale. A full inertia is drawn within one standard deviation of its prior.
    """
    rng = np.random.default_rng(seed)
    points = np.tile(vector.initial, (count, 1))
    at = 0
    for p in vector.parameters:
        here = slice(at, at + p.size)
        at += p.size
        normal = rng.normal(size=(count - 1, p.size))
        uniform = rng.uniform(size=(count - 1, p.size))
        if p.factor is not None and p.prior is not None:
            drawn = p.prior.std * normal
        elif np.isfinite(p.high - p.low).all():
            drawn = p.low + uniform * (p.high - p.low)
        elif (p.low >= 0).all():
            drawn = np.where(p.initial > 0, p.initial, p.scale) * np.exp(_FACTOR * normal)
        else:
            drawn = p.initial + p.scale * normal
        points[1:, here] = np.clip(drawn, p.low, p.high)
    return points


def best_start(
    problem: Callable[[], WindowedIdentification],
    points: np.ndarray,
    x: np.ndarray,
    progress: Callable[[int, float], None],
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """The final coordinates (n,) and noise scales of the best short search from `points` (K, n), and a summary.

    Start states `x` keep their measured values. A start that diverges is skipped. If all diverge, the first is returned.
    """
    vector = problem().vector
    best: tuple[float, np.ndarray, np.ndarray | None, int] = (np.inf, points[0], None, 0)
    costs: list[float | None] = []
    settings = Settings(iterations=_SHORT, cost_tolerance=1e-2, noise_tolerance=0.1)
    for i, z in enumerate(points):
        trial = problem()
        try:
            found = solve(trial, z, x, low=vector.low, high=vector.high, scale=vector.scale, settings=settings)
        except (StartError, np.linalg.LinAlgError):
            costs.append(None)
            continue
        costs.append(float(found.cost))
        if found.cost < best[0]:
            best = float(found.cost), found.z, trial.sigma, i
        progress(i, best[0])
    return best[1], best[2], {"tried": len(points), "costs": costs, "chosen": best[3]}
