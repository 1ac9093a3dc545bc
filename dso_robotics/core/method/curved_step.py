"""A step by a matrix of curvature, for entries of theta whose likelihoods are costs."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, eq=False)
class Curvature:
    """A matrix that scales the gradient of some entries: the Gauss-Newton matrix of the likelihoods among the costs.

    entries: indices (c,) of theta.
    matrix: chain, theta -> (c, c), positive semi-definite, in the units of the total cost.
    rate: fraction of the Gauss-Newton step that is taken in an iteration.
    blocks: positions in `entries` of each block of theta. A step that is too long in one block does not shorten the others.
    """

    entries: np.ndarray
    matrix: Callable[[Any, Array], Array]
    rate: float = 0.3
    blocks: tuple[np.ndarray, ...] = ()


# Added to the diagonal of the matrix: a fraction of it, and a fraction of the mean curvature, which holds back entries that the
# costs hardly determine. The largest change of an entry in one step.
_DAMPING, _RIDGE, _LONGEST = 1e-3, 1e-3, 0.3


def curved_step(
    matrix: Float[Array, "c c"], gradient: Float[Array, " c"], blocks: Sequence[np.ndarray] = ()
) -> Float[Array, " c"]:
    """(M + damping)^-1 g, shortened in each of `blocks` so that no entry exceeds 0.3.

    Entries without curvature do not move.
    """
    curved = jnp.maximum(jnp.diag(matrix), 0.0)
    ridge = _RIDGE * jnp.sum(curved) / jnp.maximum(jnp.sum(curved > 0), 1)
    extra = jnp.where(curved > 0, _DAMPING * curved + ridge, 1.0)
    step = jnp.where(curved > 0, jnp.linalg.solve(matrix + jnp.diag(extra), gradient), 0.0)
    for at in blocks or (np.arange(len(gradient)),):
        step = step.at[at].multiply(jnp.minimum(1.0, _LONGEST / (jnp.max(jnp.abs(step[at])) + 1e-30)))
    return step
