"""Solving with a symmetric positive definite matrix, differentiated implicitly."""

import jax
from jaxtyping import Array, Float


def solve_spd(matrix: Float[Array, "n n"], rhs: Float[Array, "n *columns"]) -> Float[Array, "n *columns"]:
    """The x with `matrix` x = `rhs`, `matrix` symmetric positive definite.

    dx = matrix⁻¹ (d rhs − d matrix x): the Cholesky factor itself is never differentiated, which saves most of the
    operations that differentiating it would add, and derivatives of any order are right.
    """
    factor = jax.scipy.linalg.cho_factor(jax.lax.stop_gradient(matrix))
    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x, rhs, lambda _, b: jax.scipy.linalg.cho_solve(factor, b), symmetric=True
    )
