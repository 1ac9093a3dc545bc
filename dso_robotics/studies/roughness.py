"""Whether the cost is as smooth as the intervals suppose: simulated again at values and start states within their uncertainty.

The search follows derivatives, and the intervals are those of a parabola. Where bodies chatter on each other, stick and slip,
or hit, a motion may change wholly with a change of micrometres. The derivatives are then right and say nothing: a search stops
where it happens to be, with narrow intervals. At half a standard deviation from a minimum the cost is higher by a known number.
If it is higher by many times that, neither the values nor the intervals are worth much.
"""

import numpy as np

from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.studies.misfit import likeness, own_noise

# How far from the minimum [standard deviations], and pairs of points, one on each side.
_AWAY, _PAIRS = 0.5, 3
# A rise of the cost by this many times that of a parabola puts the result in doubt.
_MANY = 10.0
# Directions whose variance is larger, in sizes squared of the numbers or in units of a state, are unknown and stay.
_UNKNOWN = 1.0
# Residuals are noise if they are no larger than their scatter, and neighbours no more alike, by so many standard errors.
_SURE = 3.0
# Channels that a sentence names.
_NAMED = 3


def rise(problem: WindowedIdentification, solution: Solution, seed: int = 0) -> tuple[float, np.ndarray]:
    """The rise of the cost over that of a parabola (about 1 where the cost is smooth), and how much each channel (C,) changes.

    The change is that of the prediction beyond what the derivatives say, root mean square, over the channel's noise scale.
    Both are medians over points. NaN where windows are tied, or nothing is known.
    """
    z, x, vector = solution.z, solution.x, problem.vector
    none = np.full(problem.windows.measured.shape[-1], np.nan)
    if problem.continuity is not None:
        return np.nan, none
    rng = np.random.default_rng(seed)
    free = np.flatnonzero(~solution.active)
    size = np.maximum(vector.scale, np.abs(z))[free]
    known, basis = np.linalg.eigh(solution.information[np.ix_(free, free)] * np.outer(size, size))
    seen = known > 1 / _UNKNOWN
    private, bases = np.linalg.eigh(solution.private)
    told = (private > 0) & (private < _UNKNOWN) if problem.free_starts else np.zeros_like(private, bool)
    if not (seen.any() or told.any()):
        return np.nan, none
    here, before = problem.error(z, x), _cost(problem, z, x)
    rises, changes = [], []
    scales = problem.sigma[problem.windows.rollout][:, None]
    for _ in range(_PAIRS):
        u, v = rng.normal(size=len(known)) * seen, rng.normal(size=private.shape) * told
        dz = np.zeros_like(z)
        dz[free] = _AWAY * size * (basis @ (u / np.sqrt(np.maximum(known, 1e-300))))
        dx = _AWAY * np.einsum("bij,bj->bi", bases, v * np.sqrt(np.maximum(private, 0.0)))
        dx = dx - (solution.response @ dz if problem.free_starts else 0.0)
        sides = []
        for sign in (1.0, -1.0):
            at = np.clip(z + sign * dz, vector.low, vector.high)
            moved = problem.retract(x, sign * dx)
            sides.append((_cost(problem, at, moved), problem.error(at, moved) - here))
        expected = 0.5 * _AWAY**2 * float((u**2).sum() + (v**2).sum())
        rises.append((np.mean([cost for cost, _ in sides]) - before) / max(expected, 1e-12))
        changes.append(np.sqrt(np.mean(((sides[0][1] + sides[1][1]) / 2 / scales) ** 2, axis=(0, 1))))
    return float(np.median(np.nan_to_num(rises, nan=np.inf, posinf=np.inf))), np.median(changes, axis=0)


def _cost(problem: WindowedIdentification, z: np.ndarray, x: np.ndarray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return sum(problem.terms(z, x).values())


def rough(problem: WindowedIdentification, solution: Solution) -> tuple[str, bool]:
    """A sentence if the cost is no parabola within the uncertainty of the result, or "", and whether the result is in doubt.

    Residuals that are white noise in every channel are those of the true motion: no other one would leave them on such a cost.
    """
    times, changes = rise(problem, solution)
    if not times > _MANY:
        return "", False
    doubt = not white(problem, solution)
    names = problem.windows.channels.sensor_names
    worst = [c for c in np.argsort(-np.nan_to_num(changes)) if np.isfinite(changes[c]) and changes[c] > 0][:_NAMED]
    told = ", ".join(f"{names[c]} by {changes[c]:.2g} times its noise" for c in worst)
    much = f"rises {times:.2g} times as much as" if np.isfinite(times) else "is not finite, unlike what"
    text = (
        f"The motion jumps within the uncertainty of the result: half a standard deviation away the cost {much} the intervals "
        f"suppose{f' (beyond the derivatives change {told})' if told else ''}. Bodies that chatter on each other, stick and "
        "slip, or hit do this. "
    )
    if not doubt:
        return text + "The residuals are white, so the values are probably right, but the intervals are rough.", False
    return (
        text
        + "A search on such a cost stops where it happens to be, so values may be wrong by far more than their intervals. "
        "Compare the results of several --window and of --starts 10, and believe only what agrees and predicts held-out runs. "
        "If the model chatters where the robot does not, give it a smaller timestep."
    ), True


def white(problem: WindowedIdentification, solution: Solution) -> bool:
    """Whether the residuals of each channel are no larger than their scatter, and neighbours not alike."""
    seen = np.isfinite(problem.windows.measured)
    error = np.where(seen, problem.error(solution.z, solution.x), np.nan)
    count = np.maximum(seen.sum((0, 1)), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        times = np.sqrt(np.nansum(error**2, axis=(0, 1)) / count) / own_noise(error)
    alike, sure = likeness(error)
    return bool(np.all((times <= 1 + _SURE / np.sqrt(count)) | ~np.isfinite(times)) and np.all(alike <= _SURE * sure))
