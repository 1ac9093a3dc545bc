"""What an identification found, in the words and numbers of summary.json (contract 1)."""

from typing import Any

import numpy as np

from dso_robotics.core.covariance import Uncertainty, describe
from dso_robotics.core.gauss_newton import Solution
from dso_robotics.data.match import Channels
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.studies.evaluate import Evaluation

_Z95 = 1.959963984540054
# Two numbers correlated beyond this are named: their sum or difference is known far better than either.
_STRONG = 0.98


def parameters(vector: ParameterVector, solution: Solution, spread: Uncertainty) -> dict[str, Any]:
    """The table of contract 1: each physical number with its start and its 95% interval, within the bounds."""
    blocks, begin, table = vector.split(solution.z), 0, {}
    for p in vector.parameters:
        here = slice(begin, begin + p.size)
        begin += p.size
        value, z = p.report(blocks[p.path]), blocks[p.path]
        h = 1e-6 * p.scale
        jacobian = np.stack([(p.report(z + d) - p.report(z - d)) / (2 * d.sum()) for d in np.diag(h)], -1)
        deviation = np.sqrt(np.maximum(np.diag(jacobian @ spread.covariance[here, here] @ jacobian.T), 0.0))
        low, high = value - _Z95 * deviation, value + _Z95 * deviation
        if p.factor is None:
            low, high = np.maximum(low, np.minimum(p.low, value)), np.minimum(high, np.maximum(p.high, value))
        at_bound = (
            solution.active[here] if p.factor is None else np.full(len(p.labels), bool(solution.active[here].any()))
        )
        initial = p.report(p.initial)
        for i, label in enumerate(p.labels):
            table[label] = {
                "value": float(value[i]),
                "initial": float(initial[i]),
                "unit": p.units[i],
                "low95": float(low[i]),
                "high95": float(high[i]),
                "at_bound": bool(at_bound[i]),
            }
    return table


def fit(channels: Channels, evaluation: Evaluation) -> dict[str, Any]:
    """Prediction errors by channel: `rmse` is the mean over windows, `pooled_rmse` that over all samples together."""
    return {
        name: {
            "rmse": float(evaluation.rmse[c]),
            "unit": channels.sensor_units[c],
            "nrmse_percent": float(evaluation.nrmse_percent[c]),
            "pooled_rmse": float(evaluation.pooled[c]),
        }
        for c, name in enumerate(channels.sensor_names)
    }


def warnings(
    vector: ParameterVector,
    solution: Solution,
    spread: Uncertainty,
    evaluations: dict[str, Evaluation],
) -> list[str]:
    """What a user should know before believing the result, each with its cure."""
    found, names = [], vector.coordinate_names
    if not solution.converged:
        found.append(
            f"The search did not converge: {solution.message}. Values and intervals are those of where it stopped."
        )
    held = [names[i] for i in np.flatnonzero(solution.active)]
    if held:
        found.append(
            f"At a bound: {', '.join(held)}. The bound, not the data, sets the value; widen it or fix the number."
        )
    for text in describe(spread.unseen, names):
        found.append(
            f"The data do not determine {text}: only what is perpendicular to it. Fix one of these, give a prior, or record "
            "motions that excite them differently."
        )
    strong = np.argwhere(np.triu(np.abs(spread.correlation), 1) > _STRONG)
    for i, j in strong[:5]:
        found.append(
            f"{names[i]} and {names[j]} are correlated {spread.correlation[i, j]:+.3f}: hard to tell apart in this log."
        )
    for part, e in evaluations.items():
        if e.diverged:
            found.append(
                f"{e.diverged} of {e.windows} {part} windows diverged and count as a prediction that stands still."
            )
        if e.start == "estimated":
            found.append(
                f"The sensors do not show the whole state, so {part} windows start at states estimated from themselves."
            )
    if "hold_out" not in evaluations:
        found.append("No run was held out, so nothing here tells how the model does on motions it was not fitted to.")
    if any(p.sensor >= 0 for p in vector.parameters):
        found.append("MJCF has no place for a sensor bias, so model.xml does not carry the ones identified here.")
    return found
