"""A step of a quadratic model, and the trust-region radius."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from dso_robotics.errors import DsoError

Vector = Float[Array, " n"]


class Direction(eqx.Module):
    """A step d of the quadratic model g.d + d.G.d / 2.

    curvature: d.G.d (twice the KL for a Fisher matrix).
    predicted: predicted reduction: -g.d of a linear model, or -g.d - d.G.d / 2 of a quadratic one.
    solved: whether conjugate gradients converged.
    """

    step: Vector
    curvature: Float[Array, ""]
    predicted: Float[Array, ""]
    solved: Bool[Array, ""]


class TrustRegion(eqx.Module):
    """Accept a step by the ratio of actual to predicted reduction, and adapt the radius to that ratio."""

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

    def judge(
        self, radius: ArrayLike, actual: ArrayLike, predicted: ArrayLike
    ) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        """Whether the step is accepted, and the next radius. A non-finite result is refused."""
        radius, actual, predicted = jnp.asarray(radius), jnp.asarray(actual), jnp.asarray(predicted)
        sound = jnp.isfinite(actual) & (predicted > 0.0)
        ratio = jnp.where(sound, actual / jnp.where(sound, predicted, 1.0), -jnp.inf)
        shrunk, grown = jnp.maximum(radius / 2.0, self.smallest), jnp.minimum(radius * 2.0, self.largest)
        following = jnp.where(ratio > self.grow_above, grown, radius)
        return ratio >= self.accept, jnp.where(ratio < self.shrink_below, shrunk, following)

    def compare(
        self, radius: ArrayLike, before: ArrayLike, after: ArrayLike, predicted: ArrayLike, *, error: ArrayLike = 0.0
    ) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        """`judge` of the J before and after a step, which must share their noise.

        Below the rounding of J, and below the standard error of the difference between the two reductions, the reductions say
        nothing. Adding both to the two accepts such a step (Conn, Gould and Toint, Trust-Region Methods, 2000, section 17.4.2).
        """
        value = jnp.asarray(before)
        least = 10.0 * jnp.finfo(value.dtype).eps * jnp.maximum(1.0, jnp.abs(value)) + error
        return self.judge(radius, value - after + least, predicted + least)
