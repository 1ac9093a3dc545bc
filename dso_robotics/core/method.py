"""Ways to take a step: optax optimisers, natural gradient, Chain Iteration, PCO and Newton, for the descent loop."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import curvature, surrogate
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.natural import TrustRegion, natural_direction, newton_direction
from dso_robotics.core.sampler import Sample
from dso_robotics.errors import DsoError


class Proposal(eqx.Module):
    """Where to go, the method's state if it is gone to, and the reduction of J it promises (NaN: no promise)."""

    theta: Float[Array, " n"]
    state: Any
    predicted: Float[Array, ""]


class Method(eqx.Module):
    """A step rule. `judged` methods have the actual reduction of J compared with the promised one."""

    judged: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def init(self, theta: Float[Array, " n"]) -> Any:
        """State before the first step."""

    @abc.abstractmethod
    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """The step, times `scale` <= 1, which the loop lowers after rejections."""

    def judge(
        self, sample: Sample, proposal: Proposal, value: Callable[[], Float[Array, ""]] | None
    ) -> tuple[bool, Any]:
        """Whether to accept, and the next state; `value()` is J at the proposal under the noise of the sample."""
        return True, proposal.state


def _batch(sample: Sample, name: str) -> Batch:
    if sample.batch is None:
        raise DsoError(
            f"{name} needs the rollouts behind the gradient and their log P, which this sampler does not give. Use a "
            "ScoreSampler or MixedSampler, or a FirstOrder method."
        )
    return sample.batch


class FirstOrder(Method):
    """Any optax optimiser, fed with the gradient."""

    optimiser: optax.GradientTransformation
    judged: bool = eqx.field(static=True, default=False)

    def init(self, theta: Float[Array, " n"]) -> Any:
        """The optimiser's state."""
        return self.optimiser.init(theta)

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """theta + scale * update."""
        change, state = self.optimiser.update(sample.estimate.gradient, state, theta)
        return Proposal(theta + scale * jnp.asarray(change), state, jnp.asarray(jnp.nan))


class Natural(Method):
    """Natural gradient by conjugate gradients, within a KL trust region whose radius follows actual over predicted.

    `closed` takes the Fisher matrix from the closed-form KL of the chain, else from the sampled scores.
    """

    trust: TrustRegion = TrustRegion()
    damping: float = 1e-3
    iterations: int = eqx.field(static=True, default=50)
    closed: bool = eqx.field(static=True, default=False)
    judged: bool = eqx.field(static=True, default=True)

    def init(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The radius, a KL a step of the chain."""
        return jnp.asarray(self.trust.radius)

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """The natural step of mean KL at most the radius."""
        batch = _batch(sample, "Natural")
        product = curvature.divergence_product if self.closed else curvature.fisher_product
        # G sums over the steps of a rollout: the radius is a KL a step, so it is multiplied by how many there are.
        steps = jnp.mean(jnp.sum(batch.credit.move_weight, axis=1)) / batch.problem.objective.discount
        direction = natural_direction(
            lambda vector: product(batch, vector),
            sample.estimate.gradient,
            damping=self.damping,
            divergence_limit=state * jnp.maximum(steps, 1e-12),
            iterations=self.iterations,
        )
        return Proposal(theta + scale * direction.step, state, scale * direction.predicted)

    def judge(self, sample: Sample, proposal: Proposal, value: Callable | None) -> tuple[bool, Any]:
        """Accept by the ratio of reductions, and adapt the radius."""
        return _by_trust(self.trust, sample, proposal, value)


def _by_trust(trust: TrustRegion, sample: Sample, proposal: Proposal, value: Callable | None) -> tuple[bool, Any]:
    actual = float(sample.estimate.value) - float(value() if value is not None else np.nan)
    accepted, radius = trust.judge(float(proposal.state), actual, float(proposal.predicted))
    return accepted, jnp.asarray(radius)


class ChainIteration(Method):
    """theta + eta delta*, with delta* the minimum of the surrogate plus weight KL (63)."""

    eta: float = 0.5
    divergence_weight: float = 0.1
    updates: int = eqx.field(static=True, default=10)
    judged: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not 0.0 < self.eta <= 1.0:
            raise DsoError(f"eta: the step of Chain Iteration must lie in (0, 1], got {self.eta}.")

    def init(self, theta: Float[Array, " n"]) -> None:
        """Nothing."""
        return

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """theta + scale eta delta*."""
        step = surrogate.chain_iteration(
            key,
            _batch(sample, "ChainIteration"),
            divergence_weight=self.divergence_weight,
            updates=self.updates,
            entries=sample.estimate.entries,
        )
        return Proposal(theta + scale * self.eta * step.delta, state, step.predicted)


class Proximal(Method):
    """Proximal Chain Optimization: several Adam updates of the clipped surrogate on one batch."""

    clip: surrogate.Clip = surrogate.ProximalClip()
    updates: int = eqx.field(static=True, default=20)
    learning_rate: float = 1e-2
    divergence_limit: float = 0.05
    judged: bool = eqx.field(static=True, default=False)

    def init(self, theta: Float[Array, " n"]) -> None:
        """Nothing: every batch has a fresh Adam."""
        return

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """theta + scale delta."""
        step = surrogate.proximal_chain_optimization(
            key,
            _batch(sample, "Proximal"),
            clip=self.clip,
            updates=self.updates,
            learning_rate=self.learning_rate,
            divergence_limit=self.divergence_limit,
            entries=sample.estimate.entries,
        )
        return Proposal(theta + scale * step.delta, state, step.predicted)


class Newton(Method):
    """A Newton step on |H|, with H from the batch or from `hessian(theta)`, within a length that follows the trust ratio."""

    hessian: Callable[[Float[Array, " n"]], Float[Array, "n n"]] | None = None
    trust: TrustRegion = TrustRegion(radius=1.0, largest=1e3)
    corrected: bool = eqx.field(static=True, default=True)
    judged: bool = eqx.field(static=True, default=True)

    def init(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The radius, a length of theta."""
        return jnp.asarray(self.trust.radius)

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """The step of length at most the radius; the surrogate Hessian, corrected to be exact unless told otherwise."""
        if self.hessian is not None:
            matrix = self.hessian(theta)
        else:
            batch = _batch(sample, "Newton without a hessian")
            matrix = curvature.exact_hessian(batch) if self.corrected else curvature.surrogate_hessian(batch)
        direction = newton_direction(matrix, sample.estimate.gradient, longest=state)
        predicted = -(sample.estimate.gradient @ direction.step) * scale - 0.5 * scale**2 * direction.curvature
        return Proposal(theta + scale * direction.step, state, predicted)

    def judge(self, sample: Sample, proposal: Proposal, value: Callable | None) -> tuple[bool, Any]:
        """Accept by the ratio of reductions, and adapt the radius."""
        return _by_trust(self.trust, sample, proposal, value)
