"""Natural gradient (69-74): Fisher systems solved by conjugate gradients, within a trust region."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core import curvature
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.rule_steps import RuleSteps
from dso_robotics.core.method.sampled import Proposal, Rule, by_trust, rollouts_of
from dso_robotics.core.method.trust_region import Direction, TrustRegion, Vector
from dso_robotics.core.sampler import Sample
from dso_robotics.errors import DsoError


def solve(
    product: Callable[[Vector], Vector], right: Vector, *, damping: Float[Array, ""] | float, iterations: int = 50
) -> tuple[Vector, Bool[Array, ""]]:
    """(G + damping I)^-1 right, by conjugate gradients. Only products with G are needed."""
    operator = lineax.FunctionLinearOperator(
        lambda vector: product(vector) + damping * vector,
        jax.ShapeDtypeStruct(right.shape, right.dtype),
        lineax.positive_semidefinite_tag,
    )
    solver = lineax.CG(rtol=1e-6, atol=1e-12, max_steps=iterations)
    solution = lineax.linear_solve(operator, right, solver, throw=False)
    return solution.value, solution.result == lineax.RESULTS.successful


def natural_direction(
    product: Callable[[Vector], Vector],
    gradient: Vector,
    *,
    damping: Float[Array, ""] | float = 1e-3,
    divergence_limit: Float[Array, ""] | float | None = None,
    iterations: int = 50,
) -> Direction:
    """(G + damping I) d = -g, shortened so that the mean KL of the move, d.G.d / 2, stays below its limit (69-74).

    `damping` is relative to the mean curvature along the gradient, g.G.g / g.g, so it has no unit.
    """
    if isinstance(damping, float) and damping < 0.0:
        raise DsoError(f"damping: must not be negative, got {damping}.")
    squared = gradient @ gradient
    scale = jnp.where(squared > 0.0, gradient @ product(gradient) / jnp.where(squared > 0.0, squared, 1.0), 1.0)
    # Entries without a score have no Fisher curvature. For them, only the damping sets the scale.
    level = damping * jnp.where(scale > 0.0, scale, 1.0)
    step, solved = solve(product, -gradient, damping=level, iterations=iterations)
    curvature = step @ product(step)
    if divergence_limit is not None:
        shrink = jnp.sqrt(2.0 * divergence_limit / jnp.maximum(curvature, 2.0 * divergence_limit))
        step, curvature = shrink * step, shrink**2 * curvature
    return Direction(step, curvature, -(gradient @ step), solved)


class Natural(Rule):
    """Natural gradient by conjugate gradients within a KL trust region.

    The ratio of actual to predicted reduction sets the radius. With `closed`, the Fisher matrix comes from the closed-form KL
    of the chain, otherwise from the sampled scores.
    """

    trust: TrustRegion = TrustRegion()
    damping: float = 1e-3
    iterations: int = eqx.field(static=True, default=50)
    closed: bool = eqx.field(static=True, default=False)
    judged: bool = eqx.field(static=True, default=True)

    def init(self, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The radius: a KL per step of the chain."""
        return jnp.asarray(self.trust.radius)

    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """The natural step whose mean KL is at most the radius."""
        batch = rollouts_of(sample, "Natural")
        product = curvature.divergence_product if self.closed else curvature.fisher_product
        # G is a sum over the steps of a rollout. The radius is a KL per step, so it is multiplied by the number of steps.
        steps = jnp.mean(jnp.sum(batch.credit.move_weight, axis=1)) / batch.problem.objective.gamma
        direction = natural_direction(
            lambda vector: product(batch, vector),
            sample.estimate.gradient,
            damping=self.damping,
            divergence_limit=state * jnp.maximum(steps, 1e-12),
            iterations=self.iterations,
        )
        return Proposal(theta + scale * direction.step, state, scale * direction.predicted)

    def judge(self, sample: Sample, proposal: Proposal, value: Callable | None) -> tuple[Bool[Array, ""], Any]:
        """Accept by the ratio of actual to predicted reduction, and adapt the radius."""
        return by_trust(self.trust, sample, proposal, value)


@TRAINING.register("natural")
class NaturalSteps(RuleSteps):
    """Training by natural-gradient steps. One iteration moves the policy by a mean KL of `settings.divergence`."""

    trusts = True

    def rule(self, rate: Array) -> tuple[Rule, Any]:
        """See `RuleSteps`."""
        s = self.settings
        return Natural(closed=True, iterations=s.updates), s.divergence * rate
