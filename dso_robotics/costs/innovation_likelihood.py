"""The negative log-likelihood of a Kalman filter's innovations, as a problem for Fisher scoring."""

import numpy as np

from dso_robotics.robot.kalman_filter import KalmanFilter


class InnovationLikelihood:
    """The sum over all counted readings of (e' S^-1 e + log det S)/2, and the prior of the filter's theta."""

    def __init__(self, chain: KalmanFilter):
        self.chain = chain

    def evaluate(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """See `core.method.scoring.LogLikelihood`."""
        run = self.chain.run(z, derivatives=True)
        prior, slope = self.chain.theta.prior(z)
        cost = float(run.cost.sum() + 0.5 * prior @ prior)
        return cost, run.gradient.sum(0) + slope.T @ prior, run.information + slope.T @ slope

    def terms(self, z: np.ndarray) -> dict[str, float]:
        """The cost by term."""
        prior, _ = self.chain.theta.prior(z)
        return {"estimation": float(self.chain.run(z).cost.sum()), "prior": 0.5 * float(prior @ prior)}
