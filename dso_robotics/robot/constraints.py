"""Hard constraints of a training by an augmented Lagrangian, with what training learns besides theta.

A constraint is that the mean g of a cost over the steps is at most its limit. Its weight in an iteration is

    w = max(0, multiplier + penalty (g - limit))

the derivative of the augmented Lagrangian by g, with a running mean of g over the windows. After each iteration the multiplier
moves by a part of penalty (g - limit), and the penalty grows while the constraint is violated.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.robot.observation import Scaling

TOLERANCE = 1e-3
"""How far above its limit a constraint's mean may be and still be met."""
# Share of a new window in the running mean; share of an augmented step that the multiplier takes; growth of the penalty.
_NEW, _STEP, _GROWTH = 0.2, 0.1, 1.05
_MOST = 1e8


class Constrained(Scaling):
    """A scaling of the observation, and the multipliers (c,), penalties (c,) and running violations (c,) of constraints."""

    multiplier: Float[Array, " c"] = eqx.field(default_factory=lambda: jnp.zeros(0))
    penalty: Float[Array, " c"] = eqx.field(default_factory=lambda: jnp.zeros(0))
    violation: Float[Array, " c"] = eqx.field(default_factory=lambda: jnp.zeros(0))

    @property
    def weights(self) -> Float[Array, " c"]:
        """The constraints' weights."""
        return jnp.clip(self.multiplier + self.penalty * self.violation, 0.0, _MOST)

    def updated(self, batch: Float[Array, "N size"], *, keep: float = 1e7) -> "Constrained":
        """See `Scaling`."""
        s = Scaling(self.mean, self.square, self.count).updated(batch, keep=keep)
        return Constrained(s.mean, s.square, s.count, self.multiplier, self.penalty, self.violation)

    def moved(self, excess: Float[Array, " c"]) -> "Constrained":
        """After one iteration whose windows were so far above the limits; what is not finite counts as no news."""
        excess = jnp.where(jnp.isfinite(excess), excess, self.violation)
        violation = (1.0 - _NEW) * self.violation + _NEW * excess
        multiplier = jnp.clip(self.multiplier + _STEP * self.penalty * violation, 0.0, _MOST)
        grown = jnp.where(violation > TOLERANCE, _GROWTH, 1.0)
        penalty = jnp.minimum(self.penalty * grown, _MOST)
        return Constrained(self.mean, self.square, self.count, multiplier, penalty, violation)

    def held(self, before: "Constrained") -> "Constrained":
        """The multipliers of this one with the scaling of `before`."""
        scaling = before.mean, before.square, before.count
        return Constrained(*scaling, self.multiplier, self.penalty, self.violation)


def constrained(scaling: Scaling, weights: list[float]) -> Constrained:
    """At the start: no multiplier, and the penalties of the study."""
    none, penalty = jnp.zeros(len(weights)), jnp.asarray(weights, float)
    return Constrained(scaling.mean, scaling.square, scaling.count, none, penalty, none)
