"""Amortised fitted Q iteration: a policy learns the solver's actions of the last iterations and stands in for the solver."""

from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.fitted_q import EmbeddedOptimisation


@TRAINING.register("amortised_q")
class AmortisedQ(EmbeddedOptimisation):
    """Targets L(x') + gamma Q_n(x', pi_n(x')) at all transitions of the replay.

    The solver works at `settings.basepoints` transitions an iteration only. The policy is fitted to its actions of the last
    `settings.window` iterations: older ones were greedy for a Q that is no more.
    """

    @property
    def window(self) -> int:
        """See `EmbeddedOptimisation`."""
        return self.settings.window
