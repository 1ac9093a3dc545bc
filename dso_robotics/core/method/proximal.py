"""Proximal Chain Optimization: updates of the clipped surrogate on one batch."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import surrogate
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.rule_steps import RuleSteps
from dso_robotics.core.method.sampled import Proposal, Rule, rollouts_of
from dso_robotics.core.sampler import Sample


class Proximal(Rule):
    """Proximal Chain Optimization: several Adam updates of the clipped surrogate on one batch."""

    clip: surrogate.Clip = surrogate.ProximalClip()
    updates: int = eqx.field(static=True, default=20)
    learning_rate: Array | float = 1e-2
    divergence_limit: float = 0.05
    judged: bool = eqx.field(static=True, default=False)

    def init(self, theta: Float[Array, " n"]) -> None:
        """No state is needed: every batch starts with a new Adam."""
        return

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """theta + scale delta."""
        step = surrogate.proximal_chain_optimization(
            key,
            rollouts_of(sample, "Proximal"),
            clip=self.clip,
            updates=self.updates,
            learning_rate=self.learning_rate,
            divergence_limit=self.divergence_limit,
            entries=sample.estimate.entries,
        )
        return Proposal(theta + scale * step.delta, state, step.predicted)


@TRAINING.register("pco")
class ProximalSteps(RuleSteps):
    """Training by PCO: `settings.updates` updates of the clipped surrogate, within a mean KL of `settings.divergence`."""

    def rule(self, rate: Array) -> tuple[Rule, Any]:
        """See `RuleSteps`."""
        s = self.settings
        return Proximal(updates=s.updates, learning_rate=s.learning_rate * rate, divergence_limit=s.divergence), None
