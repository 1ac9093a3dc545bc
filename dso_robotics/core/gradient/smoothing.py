"""Randomised smoothing: the gradient of E_w[f(x + w)], w ~ N(0, sigma^2 I), to first and zeroth order.

A cost through contact may jump, be flat or be stiff; its mean over random inputs is smooth. First order is the mean of the
derivatives: right where f is continuous, blind to jumps, and noisy where f is stiff. Zeroth order is the mean of
(f(x + w) - f(x - w)) w / (2 sigma^2): right in all cases, needs values only, and has more variance where f is smooth.
`core.gradient.mixed.combine` weights the two by inverse variance.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.gradient.estimate import Estimate, summarise
from dso_robotics.errors import DsoError

Vector = Float[Array, " n"]
Points = Float[np.ndarray, "N n"]


def _check(sigma: float, count: int) -> None:
    if not (np.isfinite(sigma) and sigma > 0.0):
        raise DsoError(f"sigma: expected a positive standard deviation of the inputs, got {sigma}.")
    if count < 2 or count % 2:
        raise DsoError(f"count: expected an even number of samples from 2, got {count}.")


def noisy_points(key: PRNGKeyArray, x: Vector, *, sigma: float, count: int) -> Float[Array, "N n"]:
    """`count` inputs around `x` (n,), in pairs x + w and x - w: the first half and the second."""
    _check(sigma, count)
    half = sigma * jax.random.normal(key, (count // 2, x.shape[0]), x.dtype)
    return jnp.concatenate([x + half, x - half])


def first_order(
    key: PRNGKeyArray,
    slopes: Callable[[Points], tuple[np.ndarray | Array, np.ndarray | Array]],
    x: Vector,
    *,
    sigma: float,
    count: int,
) -> Estimate:
    """The mean of the derivatives at `count` inputs around x.

    slopes: inputs (N, n) -> values (N,) and derivatives (N, n). A pair that is not finite is left out and counted.

    Where f jumps this is biased: no derivative shows a jump, and the standard error does not tell.
    """
    points = noisy_points(key, x, sigma=sigma, count=count)
    values, gradients = (jnp.asarray(part) for part in slopes(np.asarray(points)))
    # Only pairs are independent of one another, so the standard error is that of their means.
    return _summary(_halved(values), _halved(gradients))


def zeroth_order(
    key: PRNGKeyArray, values: Callable[[Points], np.ndarray | Array], x: Vector, *, sigma: float, count: int
) -> Estimate:
    """(f(x + w) - f(x - w)) w / (2 sigma^2), averaged over pairs: `count` values of f, and no derivative.

    values: inputs (N, n) -> f (N,), such as rollouts of C MuJoCo. It is called once. A pair that is not finite is left out.
    """
    points = noisy_points(key, x, sigma=sigma, count=count)
    found = jnp.asarray(values(np.asarray(points)))
    above, below = jnp.split(found, 2)
    noise = points[: count // 2] - x
    gradients = (above - below)[:, None] * noise / (2.0 * sigma**2)
    return _summary((above + below) / 2.0, gradients)


def _halved(samples: Float[Array, "N *m"]) -> Float[Array, "N/2 *m"]:
    above, below = jnp.split(samples, 2)
    return (above + below) / 2.0


def _summary(values: Float[Array, " N"], gradients: Float[Array, "N n"]) -> Estimate:
    failed = ~jnp.isfinite(values) | ~jnp.all(jnp.isfinite(gradients), axis=1)
    return summarise(values, gradients, failed, jnp.ones(gradients.shape[1], bool))


def differenced(
    values: Callable[[Points], np.ndarray | Array], *, step: float
) -> Callable[[Points], tuple[np.ndarray, np.ndarray]]:
    """`slopes` for `first_order` by central differences of `values`, in one call with (2n + 1) N inputs.

    step: of the differences. It has to be much shorter than sigma, or the jumps that first order cannot see come in.

    Raises:
      DsoError: the step is not positive.
    """
    if not (np.isfinite(step) and step > 0.0):
        raise DsoError(f"step: expected a positive length of the differences, got {step}.")

    def slopes(points: Points) -> tuple[np.ndarray, np.ndarray]:
        moves = step * np.eye(points.shape[1])
        every = np.concatenate([points, *(points + move for move in moves), *(points - move for move in moves)])
        found = np.asarray(values(every)).reshape(-1, len(points))
        above, below = np.split(found[1:], 2)
        return found[0], (above - below).T / (2.0 * step)

    return slopes
