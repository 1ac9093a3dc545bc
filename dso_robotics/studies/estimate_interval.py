"""95% intervals of the physics and sensor numbers that were learned beside an estimator."""

import dataclasses
from typing import Any

import numpy as np

from dso_robotics.core.covariance import Uncertainty, uncertainty
from dso_robotics.core.descent import Status
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.kalman_filter import KalmanFilter
from dso_robotics.robot.kalman_theta import KalmanTheta
from dso_robotics.studies import summary as summaries


def of_likelihood(theta: KalmanTheta, chain: KalmanFilter, z: np.ndarray) -> tuple[Solution, Uncertainty]:
    """The minimum z (n,) of a Kalman filter's likelihood, and its covariance by the scores of the windows.

    The Fisher information is known of all windows together; each has an equal share of it.
    """
    run = chain.run(z, derivatives=True)
    shares = np.broadcast_to(run.information / len(run.gradient), (len(run.gradient), *run.information.shape))
    found = Solution.of_blocks(
        z, run.cost, run.gradient, shares, theta.prior(z), theta.low, theta.high, status=Status.CONVERGED
    )
    return found, uncertainty(found, theta.scale)


def table(
    physics: ParameterVector, physical: np.ndarray, known: tuple[Solution, Uncertainty] | None, here: slice
) -> dict[str, Any]:
    """The physics and sensor numbers at `physical` (m,), as in contract 1; without intervals if nothing is `known` of them.

    here: the places of the physics among the coordinates of `known`.
    """
    if not physics.size:
        return {}
    if known is not None:
        solution, spread = known
        own = dataclasses.replace(solution, z=physical, active=solution.active[here])
        parts = {name: getattr(spread, name)[here, here] for name in ("covariance", "correlation", "data")}
        return summaries.parameters(
            physics,
            own,
            dataclasses.replace(spread, centre=spread.centre[here], unseen=spread.unseen[:, here], **parts),
        )
    begin, open_ended = physics.report(physics.initial), {"low95": None, "high95": None, "at_bound": False}
    return {
        label: {"value": float(value), "initial": float(begin[label][0]), "unit": unit, **open_ended}
        for label, (value, unit) in physics.report(physical).items()
    }
