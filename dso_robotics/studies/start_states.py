"""Start states that a search has missed.

Given the parameters, each window looks for its own start state, and may end in a minimum of its own: a joint at rest where it
slid, an activation that no sensor shows. The parameters then make up for the error. Where the window before ends tells another
start state, and so does the log.
"""

import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings, StartError
from dso_robotics.core.method.normal import block_cost
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.state import Tangent
from dso_robotics.robot.prediction import CPrediction

# A start state is another one if a component differs by this share of how much it differs between windows.
_OTHER = 0.1
# By how much all windows together must be better explained [nats], and relative to the cost.
_GAIN, _SHARE = 2.0, 1e-4
_QUICK = Settings(iterations=12, cost_tolerance=1e-5)


def missed(problem: WindowedIdentification, z: np.ndarray, x: np.ndarray, measured: np.ndarray) -> np.ndarray | None:
    """Start states (B, nq+nv+na) that explain the windows better at z (n,) than `x` does; None if none are much better.

    measured: (B, nq+nv+na) the start states of the log.

    With a continuity, windows are not independent, and nothing is looked for.
    """
    windows, vector = problem.windows, problem.vector
    if not problem.free_starts or problem.continuity is not None or len(windows) < 2:
        return None
    engine = CPrediction(vector, windows)
    _, ends = engine.predict_ends(z, x)
    before = np.full_like(x, np.nan)
    before[1:] = ends[:-1]
    best, cost = np.array(x), _costs(problem, z, x)
    for other in (before, measured):
        wanted = np.array(np.isfinite(other).all(1))
        wanted[wanted] = _apart(vector, best[wanted], other[wanted], measured)
        wanted &= np.isfinite(_costs(problem, z, np.where(wanted[:, None], other, best)))
        if not wanted.any():
            continue
        only = np.flatnonzero(wanted)
        trial = problem.part(wanted, CPrediction(vector, windows.only(wanted)))
        try:
            found = solve(trial, z, other[wanted], low=z, high=z, scale=vector.scale, settings=_QUICK).x
        except (StartError, np.linalg.LinAlgError):
            continue
        costs = _costs(trial, z, found)
        lower = costs < cost[only]
        best[only[lower]], cost[only[lower]] = found[lower], costs[lower]
    whole = _costs(problem, z, x)
    gain = float((whole - cost).sum())
    return best if gain > max(_GAIN, _SHARE * abs(whole.sum())) else None


def _costs(problem: WindowedIdentification, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    costs = block_cost(problem.residual(z, x))
    return np.where(np.isfinite(costs), costs, np.inf)


def _apart(vector: ParameterVector, here: np.ndarray, other: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Which of the states `other` (K, nq+nv+na) are not near those of `here`, by how those of the log (B, nq+nv+na) differ."""
    tangent = Tangent(vector.mj)
    usual = tangent.difference(measured[:1], measured).std(0)
    return (np.abs(tangent.difference(here, other)) > _OTHER * np.maximum(usual, 1e-9)).any(1)
