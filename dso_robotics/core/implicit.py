"""Solutions of equations as functions of their parameters, differentiated by the implicit function theorem.

w(theta) with f(w, theta) = 0 has dw/dtheta = -(df/dw)^-1 df/dtheta, whatever solver found w: a fixed point, or a minimiser
through its first-order condition. Derivatives of any order exist, forward and reverse (`jax.lax.custom_root`).
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError

Tree = Any
"""A pytree of float arrays."""


# Damping of the first Newton step of `minimiser`, as a share of the largest curvature.
_DAMPING = 1e-3


class Inverse(eqx.Module):
    """How a system with the Jacobian df/dw is solved."""

    @abc.abstractmethod
    def __call__(self, product: Callable[[Tree], Tree], right: Tree) -> Tree:
        """The v with product(v) = right. `product` is linear."""


class Dense(Inverse):
    """The Jacobian as a matrix, by LU. For up to some hundred unknowns."""

    def __call__(self, product: Callable[[Tree], Tree], right: Tree) -> Tree:
        """See `Inverse`."""
        flat, unravel = ravel_pytree(right)
        matrix = jax.jacfwd(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.zeros_like(flat))
        return unravel(jnp.linalg.solve(matrix, flat))


class ConjugateGradients(Inverse):
    """Conjugate gradients: products with the Jacobian and its transpose only.

    symmetric: the Jacobian is symmetric and positive definite, as the Hessian at a minimum is. If it is not, the method works
      on the normal equations.
    damping: added to the diagonal. With 0 the inverse is exact. A Hessian that is almost singular, such as a network's, needs
      some.
    tolerance: relative and absolute error of the solution.
    steps: largest number of iterations; None means ten times the number of unknowns. A system that is not solved by then is an
      error.
    """

    symmetric: bool = eqx.field(static=True, default=False)
    damping: float = eqx.field(static=True, default=0.0)
    tolerance: float = eqx.field(static=True, default=1e-10)
    steps: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if not self.damping >= 0.0:
            raise DsoError(f"damping: expected a number from 0, got {self.damping}.")
        if not self.tolerance > 0.0:
            raise DsoError(f"tolerance: expected a positive number, got {self.tolerance}.")

    def __call__(self, product: Callable[[Tree], Tree], right: Tree) -> Tree:
        """See `Inverse`."""

        def damped(vector: Tree) -> Tree:
            return jax.tree.map(lambda image, own: image + self.damping * own, product(vector), vector)

        shape = jax.eval_shape(lambda tree: tree, right)
        tags = lineax.positive_semidefinite_tag if self.symmetric else ()
        operator = lineax.FunctionLinearOperator(damped, shape, tags)
        more = {"rtol": self.tolerance, "atol": self.tolerance, "max_steps": self.steps}
        solver = lineax.CG(**more) if self.symmetric else lineax.Normal(lineax.CG(**more))
        return lineax.linear_solve(operator, right, solver).value


class Identity(Inverse):
    """The identity in the place of the inverse: one product less, and a derivative that is only approximate.

    It is the first term of the Neumann series of (I - A)^-1, so it fits conditions of the form w - g(w, theta).
    """

    def __call__(self, product: Callable[[Tree], Tree], right: Tree) -> Tree:
        """See `Inverse`."""
        return right


def implied(
    condition: Callable[[Tree, Any], Tree],
    start: Tree,
    theta: Any,
    *,
    solve: Callable[[Callable[[Tree], Tree], Tree], Tree] | None = None,
    inverse: Inverse | None = None,
) -> Tree:
    """The w near `start` with condition(w, theta) = 0, as a function of theta. It has no derivative by `start`.

    condition: f(w, theta), of the shape of w.
    solve: a function of f(., theta) and `start` that returns w. It is not differentiated. Without it `start` is taken as w, as
      when a search of its own has found it.
    inverse: of the Jacobian df/dw, `ConjugateGradients()` by default.
    """
    inverse = ConjugateGradients() if inverse is None else inverse
    found = (lambda f, w: w) if solve is None else solve
    return jax.lax.custom_root(lambda w: condition(w, theta), jax.lax.stop_gradient(start), found, inverse)


def fixed_point(
    function: Callable[[Tree, Any], Tree],
    start: Tree,
    theta: Any,
    *,
    inverse: Inverse | None = None,
    tolerance: float = 1e-12,
    iterations: int = 10_000,
) -> Tree:
    """The w = function(w, theta), found by iteration from `start`, as a function of theta.

    tolerance: largest change of an entry in the last iteration, relative to the largest entry or to 1.

    Raises:
      DsoError: `tolerance` or `iterations` is out of range.
      RuntimeError: the iteration did not settle, in a compiled function too.
    """
    _check(tolerance, iterations)

    def solve(condition: Callable[[Tree], Tree], w: Tree) -> Tree:
        def unsettled(carry: tuple[Array, Tree, Array]) -> Array:
            return (carry[0] < iterations) & ~(carry[2] <= tolerance)

        def sweep(carry: tuple[Array, Tree, Array]) -> tuple[Array, Tree, Array]:
            count, w, _ = carry
            change = condition(w)
            following = jax.tree.map(lambda own, moved: own - moved, w, change)
            size = jnp.maximum(1.0, _largest(following))
            return count + 1, following, _largest(change) / size

        least = jnp.zeros((), int), w, jnp.asarray(jnp.inf, ravel_pytree(w)[0].dtype)
        _, w, change = jax.lax.while_loop(unsettled, sweep, least)
        return eqx.error_if(
            w,
            ~(change <= tolerance),
            f"fixed_point: the iteration did not settle in {iterations} steps. The function must be a contraction near its "
            "fixed point; allow more iterations, a larger tolerance, or find the point yourself and use `implied`.",
        )

    def condition(w: Tree, theta: Any) -> Tree:
        return jax.tree.map(lambda own, image: own - image, w, function(w, theta))

    # Only Equinox's own jit gives the message of the error outside of a compiled function.
    @eqx.filter_jit
    def found(start: Tree, theta: Any) -> Tree:
        return implied(condition, start, theta, solve=solve, inverse=inverse)

    return found(start, theta)


def minimiser(
    cost: Callable[[Tree, Any], Float[Array, ""]],
    start: Tree,
    theta: Any,
    *,
    inverse: Inverse | None = None,
    tolerance: float = 1e-6,
    iterations: int = 200,
) -> Tree:
    """The w = argmin cost(w, theta) that damped Newton steps from `start` find, as a function of theta.

    Its derivative is that of the first-order condition d cost / d w = 0, so `cost` needs second derivatives. With a policy as
    w and the numbers of a model as theta this is the planner of Optimal Model Design, docs/model_design.md.

    inverse: of the Hessian, `ConjugateGradients(symmetric=True)` by default.
    tolerance: largest entry of the gradient at w, relative to the cost or to 1.
    iterations: largest number of steps. Each makes the Hessian as a matrix, so w may have some hundred entries. Negative
      eigenvalues count with their absolute value, so no step goes up.

    Raises:
      DsoError: `tolerance` or `iterations` is out of range.
      RuntimeError: no minimum was found, in a compiled function too.
    """
    _check(tolerance, iterations)
    inverse = ConjugateGradients(symmetric=True) if inverse is None else inverse
    slope = jax.grad(cost)

    def solve(condition: Callable[[Tree], Tree], w: Tree) -> Tree:
        flat, unravel = ravel_pytree(w)

        def price(v: Array) -> Float[Array, ""]:
            return cost(unravel(v), theta)

        def settled(price_now: Array, gradient: Array) -> Array:
            return jnp.max(jnp.abs(gradient)) <= tolerance * jnp.maximum(1.0, jnp.abs(price_now))

        def goes_on(carry: tuple[Array, ...]) -> Array:
            count, _, price_now, gradient, _ = carry
            return (count < iterations) & ~settled(price_now, gradient)

        def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            count, v, price_now, gradient, damping = carry
            values, axes = jnp.linalg.eigh(jax.hessian(price)(v))
            bend = jnp.abs(values) + damping * jnp.max(jnp.abs(values))
            trial = v - axes @ ((axes.T @ gradient) / bend)
            after, slope = jax.value_and_grad(price)(trial)
            # At the minimum, costs differ by rounding only.
            taken = (after <= price_now + 4.0 * jnp.finfo(v.dtype).eps * jnp.abs(price_now)) & jnp.all(
                jnp.isfinite(slope)
            )
            return (
                count + 1,
                jnp.where(taken, trial, v),
                jnp.where(taken, after, price_now),
                jnp.where(taken, slope, gradient),
                jnp.clip(jnp.where(taken, damping / 5.0, damping * 4.0), 1e-12, 1e12),
            )

        begun = jnp.zeros((), int), flat, *jax.value_and_grad(price)(flat), jnp.asarray(_DAMPING, flat.dtype)
        _, flat, reached, gradient, _ = jax.lax.while_loop(goes_on, step, begun)
        return unravel(
            eqx.error_if(
                flat,
                ~settled(reached, gradient),
                f"minimiser: no point with a gradient of zero was found in {iterations} steps. Begin nearer to the minimum, "
                "give the cost a finite value everywhere, or find the point yourself and use `implied`.",
            )
        )

    # Only Equinox's own jit gives the message of the error outside of a compiled function.
    @eqx.filter_jit
    def found(start: Tree, theta: Any) -> Tree:
        return implied(slope, start, theta, solve=solve, inverse=inverse)

    return found(start, theta)


def _check(tolerance: float, iterations: int) -> None:
    if not tolerance > 0.0:
        raise DsoError(f"tolerance: expected a positive number, got {tolerance}.")
    if iterations < 1:
        raise DsoError(f"iterations: expected at least 1, got {iterations}.")


def _largest(tree: Tree) -> Float[Array, ""]:
    return jnp.max(jnp.abs(ravel_pytree(tree)[0]))
