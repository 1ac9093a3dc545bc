"""Newton steps on |H| within a trust region. H is the surrogate Hessian (75-76), corrected to be exact, or a given Hessian."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core import curvature
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.rule_steps import RuleSteps
from dso_robotics.core.method.sampled import Proposal, Rule, by_trust, rollouts_of
from dso_robotics.core.method.trust_region import Direction, TrustRegion, Vector
from dso_robotics.core.sampler import Sample


def newton_direction(
    hessian: Float[Array, "n n"], gradient: Vector, *, floor: float = 1e-6, longest: Float[Array, ""] | float = jnp.inf
) -> Direction:
    """A Newton step with |H|, which is always a descent direction.

    Eigenvalues are replaced by their absolute values, at least `floor` times the largest. `longest` limits the length of the
    step.
    """
    values, vectors = jnp.linalg.eigh((hessian + hessian.T) / 2.0)
    size = jnp.maximum(jnp.abs(values), floor * jnp.max(jnp.abs(values)))
    size = jnp.where(size > 0.0, size, 1.0)
    step = -vectors @ ((vectors.T @ gradient) / size)
    length = jnp.linalg.norm(step)
    step = step * jnp.minimum(1.0, longest / jnp.where(length > 0.0, length, 1.0))
    curvature = step @ hessian @ step
    return Direction(step, curvature, -(gradient @ step) - curvature / 2.0, jnp.all(jnp.isfinite(step)))


class Newton(Rule):
    """A Newton step on |H|, with H from the batch or from `hessian(theta)`. The trust ratio sets the largest step length."""

    hessian: Callable[[Float[Array, " n"]], Float[Array, "n n"]] | None = None
    trust: TrustRegion = TrustRegion(radius=1.0, largest=1e3)
    corrected: bool = eqx.field(static=True, default=True)
    judged: bool = eqx.field(static=True, default=True)

    def init(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The radius: a length in theta."""
        return jnp.asarray(self.trust.radius)

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """The step, at most as long as the radius. By default the surrogate Hessian is corrected to be exact."""
        if self.hessian is not None:
            matrix = self.hessian(theta)
        else:
            batch = rollouts_of(sample, "Newton without a hessian")
            matrix = curvature.exact_hessian(batch) if self.corrected else curvature.surrogate_hessian(batch)
        direction = newton_direction(matrix, sample.estimate.gradient, longest=state)
        predicted = -(sample.estimate.gradient @ direction.step) * scale - 0.5 * scale**2 * direction.curvature
        return Proposal(theta + scale * direction.step, state, predicted)

    def judge(self, sample: Sample, proposal: Proposal, value: Callable | None) -> tuple[Bool[Array, ""], Any]:
        """Accept by the ratio of actual to predicted reduction, and adapt the radius."""
        return by_trust(self.trust, sample, proposal, value)


@TRAINING.register("newton")
class NewtonSteps(RuleSteps):
    """Training by Newton steps on the surrogate's Hessian, at most `settings.learning_rate` long. For small policies."""

    trusts = True

    def rule(self, rate: Array) -> tuple[Rule, Any]:
        """See `RuleSteps`."""
        return Newton(corrected=False), self.settings.learning_rate * rate
