"""Solving with a symmetric positive definite matrix, differentiated implicitly."""

import jax
from jaxtyping import Array, Float


def solve_spd(matrix: Float[Array, "n n"], rhs: Float[Array, "n *columns"]) -> Float[Array, "n *columns"]:
    """The solution x of `matrix` x = `rhs`, for a symmetric positive definite `matrix`.

    dx = matrix⁻¹ (d rhs − d matrix x). The Cholesky factor is never differentiated, which saves operations. Derivatives of
    any order are correct.
    """
    factor = jax.scipy.linalg.cho_factor(jax.lax.stop_gradient(matrix))
    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x, rhs, lambda _, b: jax.scipy.linalg.cho_solve(factor, b), symmetric=True
    )
