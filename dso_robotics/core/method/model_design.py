"""Optimal Model Design: the numbers of a model are moved by the cost that the policy planned with the model has on the chain.

    numbers of the model -> optimal policy of the model -> cost on the chain

The second arrow is the course's (`Course.planned`); its derivative is that of an implicit function, so no planner is unrolled.
The third arrow is the gradient of windows by the policy, as other methods have it. Nikishin et al. 2022, arXiv 2106.14080.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.gradient.estimate import Estimate
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.learner import Learner, Step
from dso_robotics.core.method.short_horizon import ShortHorizon
from dso_robotics.core.rollout import Trajectory


@TRAINING.register("model_design")
class ModelDesign(ShortHorizon):
    """Windows of `ShortHorizon` under the policy that is planned with the model; the model's numbers move, the policy follows.

    Theta holds both. The policy's entries are no unknowns: after every step they are planned anew. A step to numbers for which
    there is no policy is not taken.
    """

    supervises = False
    reason = "the policy is planned with a model, whose numbers move by the cost that it leads to"

    def _begun(self, key: PRNGKeyArray, theta: Array) -> Learner:
        learner = super()._begun(key, self.course.planned(theta, self.course.memory))
        planned = self.course.planned(theta, learner.memory)
        return dataclasses.replace(learner, theta=planned, anchor=planned)

    def pulled(self, learner: Learner, gradient: Float[Array, " n"]) -> Float[Array, " n"]:
        """The gradient of J(planned(theta)) by theta, from that of J by all entries. It is zero for what is planned."""
        _, pull = jax.vjp(lambda theta: self.course.planned(theta, learner.memory), learner.theta)
        return pull(gradient)[0]

    def _moved(self, learner: Learner, estimate: Estimate, progress: Array) -> Step:
        own = eqx.tree_at(lambda e: e.gradient, estimate, self.pulled(learner, estimate.gradient))
        step = super()._moved(learner, own, progress)
        accepted = step.accepted & jnp.all(jnp.isfinite(self.course.planned(step.theta, learner.memory)))
        old = learner.theta, learner.optimiser
        theta, optimiser = jax.tree.map(
            lambda new, before: jnp.where(accepted, new, before), (step.theta, step.optimiser), old
        )
        return Step(theta, optimiser, accepted, step.norm)

    def _onwards(
        self, learner: Learner, keys: tuple[PRNGKeyArray, ...], paths: Trajectory, moved: Step, error: Array
    ) -> tuple[Learner, tuple[Array, ...]]:
        following, news = super()._onwards(learner, keys, paths, moved, error)
        planned = self.course.planned(following.theta, following.memory)
        return dataclasses.replace(following, theta=planned), news
