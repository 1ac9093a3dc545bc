"""Functions of NumPy, such as rollouts of C MuJoCo, as functions of JAX: their derivatives are central differences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError


def measured(
    function: Callable[[np.ndarray], np.ndarray | float],
    shape: tuple[int, ...] = (),
    *,
    step: float | np.ndarray = 1e-4,
) -> Callable[[Float[Array, " n"]], Float[Array, "*shape"]]:
    """`function` of a vector (n,), which returns an array of `shape`, as a function of JAX with a first derivative.

    A derivative costs 2n further calls. It exists forward and reverse, once: the derivative itself has none. `function` must
    return the same for the same input, so noise has to be drawn before.

    step: of the differences, a number or one for each entry (n,). Too short a step is lost in rounding.

    Raises:
      DsoError: a step is not positive.
    """
    size = np.asarray(step, float)
    if not np.all(np.isfinite(size) & (size > 0.0)):
        raise DsoError(f"step: expected positive lengths of the differences, got {step}.")

    def value(theta: np.ndarray) -> np.ndarray:
        return np.asarray(function(np.asarray(theta, float)), theta.dtype).reshape(shape)

    def slope(theta: np.ndarray) -> np.ndarray:
        at = np.asarray(theta, float)
        steps = np.broadcast_to(size, at.shape)
        moves = [(one, np.eye(len(at))[i] * one) for i, one in enumerate(steps)]
        columns = [
            (np.asarray(function(at + move)) - np.asarray(function(at - move))) / (2.0 * one) for one, move in moves
        ]
        return np.stack([np.asarray(column, theta.dtype).reshape(shape) for column in columns], axis=-1)

    @jax.custom_jvp
    def through(theta: Float[Array, " n"]) -> Array:
        told = jax.ShapeDtypeStruct(shape, theta.dtype)
        return jax.pure_callback(value, told, theta, vmap_method="sequential")

    @through.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        (theta,), (moved,) = primals, tangents
        told = jax.ShapeDtypeStruct((*shape, theta.shape[0]), theta.dtype)
        jacobian = jax.pure_callback(slope, told, jax.lax.stop_gradient(theta), vmap_method="sequential")
        return through(theta), jnp.tensordot(jacobian, moved, axes=1)

    return through
