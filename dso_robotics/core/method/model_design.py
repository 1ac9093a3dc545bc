"""Optimal Model Design: the numbers of a model are moved by the cost that the policy planned with the model has on the chain.

    numbers of the model -> optimal policy of the model -> cost on the chain

The second arrow is the course's (`Course.planned`); its derivative is that of an implicit function, so no planner is unrolled.
The third arrow is the gradient of windows by the policy, as other methods have it: through the chain, or by the score, which
needs no derivative of the chain. Nikishin et al. 2022, arXiv 2106.14080.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import surrogate
from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.estimate import Estimate
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.action_space import ActionSpace
from dso_robotics.core.method.learner import Learner, Step
from dso_robotics.core.method.short_horizon import ShortHorizon
from dso_robotics.core.method.windowed import Windowed
from dso_robotics.core.rollout import Trajectory


class Planned(Windowed):
    """Windows under the policy that is planned with a model; the model's numbers move, and the policy follows.

    Theta holds both. The policy's entries are no unknowns: after every step they are planned anew. A step to numbers for which
    there is no policy is not taken.
    """

    supervises = False

    def _begun(self, key: PRNGKeyArray, theta: Array) -> Learner:
        learner = super()._begun(key, self.course.planned(theta, self.course.memory))
        planned = self.course.planned(theta, learner.memory)
        return dataclasses.replace(learner, theta=planned, anchor=planned)

    def pulled(self, learner: Learner, gradient: Float[Array, " n"]) -> Float[Array, " n"]:
        """The gradient of J(planned(theta)) by theta, from that of J by all entries. It is zero for what is planned."""
        _, pull = jax.vjp(lambda theta: self.course.planned(theta, learner.memory), learner.theta)
        return pull(gradient)[0]

    def taken(self, learner: Learner, step: Step) -> Step:
        """The step, or none if it is not finite or there is no policy at its end."""
        accepted = step.accepted & jnp.all(jnp.isfinite(self.course.planned(step.theta, learner.memory)))
        theta, optimiser = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (step.theta, step.optimiser),
            (learner.theta, learner.optimiser),
        )
        return Step(theta, optimiser, accepted, step.norm)

    def _onwards(
        self, learner: Learner, keys: tuple[PRNGKeyArray, ...], paths: Trajectory, moved: Step, error: Array
    ) -> tuple[Learner, tuple[Array, ...]]:
        following, news = super()._onwards(learner, keys, paths, moved, error)
        planned = self.course.planned(following.theta, following.memory)
        return dataclasses.replace(following, theta=planned), news


@TRAINING.register("model_design")
class ModelDesign(Planned, ShortHorizon):
    """Model design with the derivative of windows through the chain."""

    reason = "the policy is planned with a model, whose numbers move by the cost that it leads to"

    def _moved(self, learner: Learner, estimate: Estimate, progress: Array) -> Step:
        own = eqx.tree_at(lambda e: e.gradient, estimate, self.pulled(learner, estimate.gradient))
        return self.taken(learner, super()._moved(learner, own, progress))


@TRAINING.register("model_design_score")
class ModelDesignByScore(Planned, ActionSpace):
    """Model design with the score of the actions, as on a robot whose physics has no derivative."""

    reads_c = True

    @staticmethod
    def entries(method: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
        """The entries that choose the action. Others, such as the model's numbers, act through them alone."""
        return chain.scored(theta)

    def improved(self, key: PRNGKeyArray, learner: Learner, batch: Batch, rate: Array) -> Step:
        """See `ActionSpace`."""
        slope = jax.grad(lambda delta: surrogate.surrogate(batch, delta))(jnp.zeros_like(learner.theta))
        own = self.pulled(learner, slope)
        finite, norm = jnp.all(jnp.isfinite(own)), jnp.linalg.norm(own)
        theta, optimiser = self.descended(learner.theta, learner.optimiser, jnp.where(finite, own, 0.0), rate)
        return self.taken(learner, Step(theta, optimiser, finite, norm))
