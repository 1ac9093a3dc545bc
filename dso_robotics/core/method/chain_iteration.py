"""Chain Iteration (63): move part of the way to the minimum of the surrogate."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import surrogate
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.rule_steps import RuleSteps
from dso_robotics.core.method.sampled import Proposal, Rule, rollouts_of
from dso_robotics.core.sampler import Sample
from dso_robotics.errors import DsoError


class ChainIteration(Rule):
    """theta + eta delta*, where delta* minimises the surrogate plus weight KL (63)."""

    eta: float = 0.5
    divergence_weight: Array | float = 0.1
    updates: int = eqx.field(static=True, default=10)
    judged: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not 0.0 < self.eta <= 1.0:
            raise DsoError(f"eta: the step of Chain Iteration must lie in (0, 1], got {self.eta}.")

    def init(self, theta: Float[Array, " n"]) -> None:
        """No state is needed."""
        return

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """theta + scale eta delta*."""
        step = surrogate.chain_iteration(
            key,
            rollouts_of(sample, "ChainIteration"),
            divergence_weight=self.divergence_weight,
            updates=self.updates,
            entries=sample.estimate.entries,
        )
        return Proposal(theta + scale * self.eta * step.delta, state, step.predicted)


@TRAINING.register("chain_iteration")
class ChainIterationSteps(RuleSteps):
    """Training by Chain Iteration. A smaller `settings.divergence` gives the KL from the old policy more weight."""

    def rule(self, rate: Array) -> tuple[Rule, Any]:
        """See `RuleSteps`."""
        s = self.settings
        weight = 1.0 / (s.divergence * rate)
        return ChainIteration(divergence_weight=weight, updates=s.updates), None
