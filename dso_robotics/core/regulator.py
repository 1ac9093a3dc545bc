"""The linear-quadratic regulator of a linear model, as a differentiable function of that model."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.core.implicit import Inverse, fixed_point
from dso_robotics.errors import DsoError


def regulator(
    a: Float[Array, "nx nx"],
    b: Float[Array, "nx nu"],
    state_cost: Float[Array, "nx nx"],
    action_cost: Float[Array, "nu nu"],
    *,
    gamma: float = 1.0,
    inverse: Inverse | None = None,
) -> tuple[Float[Array, "nu nx"], Float[Array, "nx nx"]]:
    """Gain K of u = -K x and value matrix P, V(x) = x.P.x, that minimise sum_t gamma^t (x.Q.x + u.R.u) under x' = A x + B u.

    P is the fixed point of the Riccati recursion. It is differentiated implicitly, by all arguments.

    Raises:
      DsoError: gamma is not in (0, 1].
      RuntimeError: the recursion does not settle: (A, B) cannot be stabilised.
    """
    if not 0.0 < gamma <= 1.0:
        raise DsoError(f"gamma: the discount must lie in (0, 1], got {gamma}.")

    def gain(p: Array, system: tuple[Array, ...]) -> Array:
        a, b, _, action_cost = system
        return jnp.linalg.solve(action_cost + gamma * b.T @ p @ b, gamma * b.T @ p @ a)

    def riccati(p: Array, system: tuple[Array, ...]) -> Array:
        a, b, state_cost, action_cost = system
        k = gain(p, system)
        closed = a - b @ k
        # Joseph's form keeps P symmetric and positive semidefinite.
        return state_cost + k.T @ action_cost @ k + gamma * closed.T @ p @ closed

    system = (a, b, state_cost, action_cost)
    p = fixed_point(riccati, state_cost, system, inverse=inverse)
    return gain(p, system), p
