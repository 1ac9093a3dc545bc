"""Natural and Newton steps: curvature products solved by conjugate gradients, within a trust region."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jaxtyping import Array, Bool, Float

from dso_robotics.errors import DsoError

Vector = Float[Array, " n"]


class Direction(eqx.Module):
    """A step d of the quadratic model g.d + d.G.d / 2, with what it promises.

    curvature: d.G.d (twice the KL for a Fisher matrix). predicted: the reduction -g.d of a linear or -g.d - d.G.d / 2 of
    a quadratic model. solved: whether conjugate gradients converged.
    """

    step: Vector
    curvature: Float[Array, ""]
    predicted: Float[Array, ""]
    solved: Bool[Array, ""]


def solve(
    product: Callable[[Vector], Vector], right: Vector, *, damping: Float[Array, ""] | float, iterations: int = 50
) -> tuple[Vector, Bool[Array, ""]]:
    """(G + damping I)^-1 right by conjugate gradients on products with G only."""
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
    """(G + damping I) d = -g, shortened so that the mean KL of the move, d.G.d / 2, stays under its limit (69-74).

    `damping` is relative to the mean curvature along the gradient, g.G.g / g.g, so that it has no unit.
    """
    if isinstance(damping, float) and damping < 0.0:
        raise DsoError(f"damping: must not be negative, got {damping}.")
    squared = gradient @ gradient
    scale = jnp.where(squared > 0.0, gradient @ product(gradient) / jnp.where(squared > 0.0, squared, 1.0), 1.0)
    # Entries on which the chain has no score have no Fisher curvature: damping alone sets their scale.
    level = damping * jnp.where(scale > 0.0, scale, 1.0)
    step, solved = solve(product, -gradient, damping=level, iterations=iterations)
    curvature = step @ product(step)
    if divergence_limit is not None:
        shrink = jnp.sqrt(2.0 * divergence_limit / jnp.maximum(curvature, 2.0 * divergence_limit))
        step, curvature = shrink * step, shrink**2 * curvature
    return Direction(step, curvature, -(gradient @ step), solved)


def newton_direction(
    hessian: Float[Array, "n n"], gradient: Vector, *, floor: float = 1e-6, longest: Float[Array, ""] | float = jnp.inf
) -> Direction:
    """A Newton step with |H|: eigenvalues are replaced by their size, at least `floor` of the largest, so d goes down.

    `longest` limits the length of the step.
    """
    values, vectors = jnp.linalg.eigh((hessian + hessian.T) / 2.0)
    size = jnp.maximum(jnp.abs(values), floor * jnp.max(jnp.abs(values)))
    size = jnp.where(size > 0.0, size, 1.0)
    step = -vectors @ ((vectors.T @ gradient) / size)
    length = jnp.linalg.norm(step)
    step = step * jnp.minimum(1.0, longest / jnp.where(length > 0.0, length, 1.0))
    curvature = step @ hessian @ step
    return Direction(step, curvature, -(gradient @ step) - curvature / 2.0, jnp.all(jnp.isfinite(step)))


class TrustRegion(eqx.Module):
    """Radius rule: accept a step by its actual over predicted reduction, and adapt the radius to that ratio."""

    radius: float = 0.01
    smallest: float = 1e-8
    largest: float = 1.0
    accept: float = 0.1
    shrink_below: float = 0.25
    grow_above: float = 0.75

    def __check_init__(self) -> None:
        if not 0.0 < self.smallest <= self.radius <= self.largest:
            raise DsoError(
                f"radius: expected 0 < smallest <= radius <= largest, got {self.smallest}, {self.radius}, {self.largest}."
            )
        if not 0.0 <= self.accept <= self.shrink_below < self.grow_above:
            raise DsoError("accept: expected 0 <= accept <= shrink_below < grow_above.")

    def judge(self, radius: float, actual: float, predicted: float) -> tuple[bool, float]:
        """Whether the step is accepted, and the next radius. A non-finite outcome is a refusal."""
        ratio = actual / predicted if np.isfinite(actual) and predicted > 0.0 else -np.inf
        if ratio < self.shrink_below:
            return ratio >= self.accept, max(radius / 2.0, self.smallest)
        return True, min(radius * 2.0, self.largest) if ratio > self.grow_above else radius
