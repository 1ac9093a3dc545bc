"""A weighted sum of step costs that can report each term separately."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.costs.task import PolicyTerm, Proximity, Term
from dso_robotics.errors import DsoError
from dso_robotics.robot.scene import Scene


class Composite(eqx.Module):
    """sum_i weight_i term_i(scene), in order.

    limits: of terms that are hard constraints, the mean that they may have; None for the others. () stands for none.
    multipliers: (c,) the weights of the constraints; None: zero, so that the sum is what is minimised within them.
    """

    parts: tuple[Term, ...]
    names: tuple[str, ...] = eqx.field(static=True)
    weights: tuple[float, ...] = eqx.field(static=True)
    limits: tuple[float | None, ...] = eqx.field(static=True, default=())
    multipliers: Float[Array, " c"] | None = None

    @property
    def constrained(self) -> tuple[int, ...]:
        """Which terms are constraints."""
        return tuple(i for i, limit in enumerate(self.limits) if limit is not None)

    def terms(self, scene: Scene) -> Float[Array, " k"]:
        """Every weighted term (k,)."""
        parts = [weight * part(scene) for weight, part in zip(self.weights, self.parts, strict=True)]
        for c, i in enumerate(self.constrained):
            factor = None if self.multipliers is None else self.multipliers[c] / self.weights[i]
            parts[i] = jnp.zeros(()) if factor is None else factor * parts[i]
        return jnp.stack(parts) if parts else jnp.zeros(0)

    def measured(self, scene: Scene) -> Float[Array, " c"]:
        """The constraints' terms, without weights."""
        parts = [self.parts[i](scene) for i in self.constrained]
        return jnp.stack(parts) if parts else jnp.zeros(0)

    def __call__(self, scene: Scene) -> Float[Array, ""]:
        """The sum."""
        return jnp.sum(self.terms(scene))

    def of_the_policy(self) -> Callable[[Scene], Array]:
        """The part that depends on theta at a given state: the costs of how the policy chooses its action."""
        parts = zip(self.names, self.weights, self.parts, strict=True)
        mine = [(weight, part) for name, weight, part in parts if name in self.policy_names]
        return lambda scene: sum((weight * part(scene) for weight, part in mine), jnp.zeros(()))

    @property
    def policy_names(self) -> tuple[str, ...]:
        """The terms of that part."""
        parts = zip(self.names, self.parts, strict=True)
        return tuple(name for name, part in parts if isinstance(getattr(part, "part", part), PolicyTerm))

    @property
    def anchored(self) -> int:
        """Iterations after which the policy that a proximal cost measures from is replaced; 0 without such a cost."""
        found = {part.every for part in (getattr(p, "part", p) for p in self.parts) if isinstance(part, Proximity)}
        if len(found) > 1:
            told = ", ".join(map(str, sorted(found)))
            raise DsoError(
                f"costs of kind proximal: there is one earlier policy, so `every` must be the same, not {told}."
            )
        return next(iter(found), 0)


def composite(parts: Mapping[str, tuple[float, Term]], limits: Mapping[str, float] = MappingProxyType({})) -> Composite:
    """name -> (weight, term) as one cost; without a term it is zero.

    limits: of the terms that are hard constraints.

    Raises:
      DsoError: a weight is negative or no number: a reward is not a cost.
    """
    for name, (weight, _) in parts.items():
        if not math.isfinite(weight):
            raise DsoError(f"cost {name}: its weight is {weight}; give a finite number.")
        if weight < 0:
            raise DsoError(
                f"cost {name}: its weight is {weight:g}. Costs are minimised, so a negative weight makes a reward of it, which "
                'has no floor; write what is missing instead, with kind = "hinge" or "product" and a positive weight.'
            )
    bounds = tuple(limits.get(name) for name in parts) if limits else ()
    return Composite(tuple(t for _, t in parts.values()), tuple(parts), tuple(w for w, _ in parts.values()), bounds)
