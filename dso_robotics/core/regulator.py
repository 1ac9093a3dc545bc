"""The linear-quadratic regulator of a linear model, as a differentiable function of that model."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.core.implicit import Inverse, fixed_point, implied
from dso_robotics.errors import DsoError


def regulator(
    a: Float[Array, "nx nx"],
    b: Float[Array, "nx nu"],
    state_cost: Float[Array, "nx nx"],
    action_cost: Float[Array, "nu nu"],
    *,
    gamma: float = 1.0,
    inverse: Inverse | None = None,
    value: Float[Array, "nx nx"] | None = None,
) -> tuple[Float[Array, "nu nx"], Float[Array, "nx nx"]]:
    """Gain K of u = -K x and value matrix P, V(x) = x.P.x, that minimise sum_t gamma^t (x.Q.x + u.R.u) under x' = A x + B u.

    P is the fixed point of the Riccati recursion. It is differentiated implicitly, by all arguments.

    value: P at these arguments, as a solver of the Riccati equation has found it; by default the recursion is iterated. A P
      with NaN gives a gain with NaN.

    Raises:
      DsoError: gamma is not in (0, 1].
      RuntimeError: the recursion does not settle: (A, B) cannot be stabilised. Not raised with a `value`.
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
    if value is None:
        p = fixed_point(riccati, state_cost, system, inverse=inverse)
    else:
        p = implied(lambda p, system: p - riccati(p, system), value, system, inverse=inverse)
    return gain(p, system), p
