"""Other searches beside the first one, from drawn start values, where they are cheap.

A minimum may be one of many. Nothing at the minimum itself tells so; a lower cost elsewhere does.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings, StartError
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.studies.checkpoint import Reading
from dso_robotics.studies.starts import draw

# Most work of one linearisation, in time steps of a robot without joints, for which others are tried: some 2 s for a search.
_CHEAP = 1e5
# A joint costs this share of a time step more.
_JOINT = 0.5
# How many other starts.
_DRAWN = 2
# By how much a cost must be lower to count as lower [nats], and relative to the cost.
_GAIN, _SHARE = 2.0, 1e-4
_SHORT = Settings(iterations=10, cost_tolerance=1e-3, noise_tolerance=0.1)

Point = tuple[np.ndarray, np.ndarray, np.ndarray]


def cheap(vector: ParameterVector, windows: Windows) -> bool:
    """Whether a search takes so little that others are tried beside it."""
    model = vector.mj
    steps = (1 + vector.size + 2 * model.nv + model.na) * len(windows) * windows.ctrl.shape[1]
    return not windows.single and steps * (1 + _JOINT * model.nv) <= _CHEAP


def race(
    problem: WindowedIdentification,
    z: np.ndarray,
    x: np.ndarray,
    measured: np.ndarray,
    *,
    options: dict[str, Any],
    seed: int,
    progress: Callable[[int, float], None],
) -> tuple[Point | None, dict[str, Any]]:
    """Search elsewhere than at the minimum z (n,), x (B, nq+nv+na) of `problem`.

    measured: (B, nq+nv+na) the start states of the log.

    Returns: coordinates, start states and noise scales of a lower cost, or None; and how many were "tried", their "costs"
      (None: diverged), the cost "reached" by the first search, and which one is "chosen" (-1: none).
    """
    vector, windows = problem.vector, problem.windows
    box: dict[str, Any] = {"low": vector.low, "high": vector.high, "scale": vector.scale, "settings": _SHORT}
    points = draw(vector, 1 + _DRAWN, seed)[1:]
    reached = _cost(problem, z, x)
    best, chosen, costs = reached - max(_GAIN, _SHARE * abs(reached)), -1, []
    found: Point | None = None
    for i, point in enumerate(points):
        engine = CPrediction(vector, windows)
        trial = WindowedIdentification(vector, windows, engine, free_starts=False, **options)
        try:
            rough = solve(trial, point, measured, **box).z
            trial = WindowedIdentification(vector, windows, engine, sigma=trial.sigma, **options)
            there = solve(trial, rough, measured, **box)
        except (StartError, np.linalg.LinAlgError):
            costs.append(None)
            continue
        finally:
            problem.prediction.steps += engine.steps
        costs.append(float(there.cost))
        if there.cost < best:
            best, chosen, found = float(there.cost), i, (there.z, there.x, trial.sigma)
        progress(i + 1, min(best, reached))
    return found, {"tried": len(points), "costs": costs, "reached": reached, "chosen": chosen}


def _cost(problem: WindowedIdentification, z: np.ndarray, x: np.ndarray) -> float:
    prior, _ = problem.prior(z)
    return 0.5 * float(np.sum(problem.residual(z, x) ** 2) + np.sum(prior**2)) + problem.log_scale()


def stored(group: Any, path: Path) -> dict[str, Any] | None:
    """The outcome of `race` as the run file at `path` keeps it; None if it keeps none. Raises DsoError if it is damaged."""
    if group is None:
        return None
    with Reading(path):
        found = json.loads(group["outcome"])
        costs = [None if cost is None else float(cost) for cost in found["costs"]]
        chosen = int(found["chosen"])
        if chosen >= 0 and costs[chosen] is None:
            raise ValueError("a start that diverged was chosen")
        return {"tried": int(found["tried"]), "costs": costs, "reached": float(found["reached"]), "chosen": chosen}


def told(outcome: dict[str, Any] | None) -> list[str]:
    """A warning if another start led to a lower cost."""
    if outcome is None or outcome["chosen"] < 0:
        return []
    gain = outcome["reached"] - outcome["costs"][outcome["chosen"]]
    return [
        f"The search from the given start values ended in a local minimum: from drawn start values the cost is {gain:.3g} "
        "lower, and the result is from there. There may be lower minima still: give --starts 10, better start values, or a "
        "longer --window."
    ]
