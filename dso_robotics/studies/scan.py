"""A start for parameters of contacts: the cost over a wide grid of each, since a search alone stops at the first bend.

Where a body slides or bounces, the cost has a bend or a jump at every contact made or lost. Its slope tells nothing about
values far away, so Gauss-Newton steps end near their start. One simulation of every window costs little.
"""

from collections.abc import Callable

import numpy as np

from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.vector import ParameterVector

# Coefficients of sliding friction that are tried, and factors on other numbers.
_FRICTION, _FACTORS = np.geomspace(0.01, 3.0, 17), np.geomspace(1 / 30, 30.0, 17)
# Values tried between the neighbours of the best one.
_BETWEEN = 9
# Numbers in a row of a field, and which of them are sliding friction.
_ROWS = {
    "geom_friction": (3, (0,)),
    "pair_friction": (5, (0, 1)),
    "geom_solref": (2, ()),
    "pair_solref": (2, ()),
}

Problem = Callable[[], WindowedIdentification]


def scanned(vector: ParameterVector) -> list[tuple[Parameter, int]]:
    """The parameters of contacts among those of `vector`, each with its coordinate."""
    found = []
    for p, here in vector.places():
        if p.slots and p.size == 1 and all(slot.field in _ROWS for slot in p.slots):
            found.append((p, here.start))
    return found


def scan(
    problem: Problem, z: np.ndarray, x: np.ndarray, tell: Callable[[int, float], None] = lambda tried, cost: None
) -> tuple[np.ndarray, np.ndarray, float]:
    """The coordinates (n,) of the lowest cost found, their noise scales, and that cost, with start states `x` fixed.

    Each parameter of a contact is varied alone, from `z`, and twice if there are several. `tell` gets the number of values
    tried so far, and the lowest cost.
    """
    trial = problem()
    numbers = scanned(trial.vector)
    best, sigma = _cost(trial, z, x)
    tried = 0
    for _ in range(2 if len(numbers) > 1 else 1):
        for p, at in numbers:
            for fine in (False, True):
                values = _near(z[at], _grid(p)) if fine else _grid(p)
                for value in values[(values >= p.low[0]) & (values <= p.high[0])]:
                    point = np.array(z)
                    point[at] = value
                    cost, scales = _cost(problem(), point, x)
                    if cost < best:
                        best, sigma, z = cost, scales, point
                    tried += 1
                    tell(tried, best)
    return z, sigma, best


def _grid(p: Parameter) -> np.ndarray:
    width, sliding = _ROWS[p.slots[0].field]
    if p.slots[0].at[0] % width in sliding:
        return _FRICTION
    return max(float(p.initial[0]), 1e-3 * float(p.scale[0])) * _FACTORS


def _near(value: float, grid: np.ndarray) -> np.ndarray:
    """Values between the neighbours of `value` in `grid`."""
    i = int(np.searchsorted(grid, value))
    return np.geomspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], _BETWEEN)


def _cost(trial: WindowedIdentification, z: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray]:
    """The cost at z with the noise scales that are best there, and those; infinite if a window diverges."""
    if not np.isfinite(trial.residual(z, x)).all():
        return np.inf, trial.sigma
    trial.reweight(z, x)
    prior, _ = trial.prior(z)
    cost = 0.5 * float(np.sum(trial.residual(z, x) ** 2) + np.sum(prior**2)) + trial.log_scale()
    return cost, trial.sigma


def lower(
    vector: ParameterVector,
    problem: Problem,
    z: np.ndarray,
    x: np.ndarray,
    tell: Callable[[int, float], None] = lambda tried, cost: None,
) -> list[str]:
    """A warning if a parameter of a contact has a lower cost elsewhere than at the solution z with start states x."""
    if not scanned(vector):
        return []
    cost, _ = _cost(problem(), z, x)
    other, _, least = scan(problem, z, x, tell)
    if not least < cost - max(1.0, 1e-6 * abs(cost)):
        return []
    moved = [p for p, at in scanned(vector) if other[at] != z[at]]
    names = ", ".join(p.path for p in moved)
    values = ", ".join(f"{p.path}={other[at]:.4g}" for p, at in scanned(vector) if p in moved)
    return [
        f"The data do not determine {names}: the search stopped where a contact is made or lost, and the cost is lower "
        f"elsewhere; start there, with --free {values}, or give --starts 10 or a shorter --window."
    ]
