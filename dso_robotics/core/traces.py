"""Generalised advantages in two forms: a batch backwards in time, and one step after another with an eligibility trace.

    A_t = sum_k (gamma lam)^k delta_{t+k},   delta_t = L_t + gamma V(x_{t+1}) - V(x_t)
    sum_t A_t grad log P_t = sum_t delta_t e_t,   e_t = gamma lam e_{t-1} + grad log P_t

The second line needs no future: the gradient grows while the rollout goes on. `fitting.bellman_errors` gives delta.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def generalised_advantages(errors: Float[Array, " T"], decay: Float[Array, ""] | float) -> Float[Array, " T"]:
    """A (T,) of one rollout, of its Bellman errors delta (T,), 0 after its end. decay: gamma lam."""

    def back(following: Array, error: Array) -> tuple[Array, Array]:
        here = error + decay * following
        return here, here

    return jax.lax.scan(back, jnp.zeros_like(errors[0]), errors, reverse=True)[1]


class Trace(eqx.Module):
    """The gradient sum_t A_t s_t of the steps so far, of scores s_t = grad log P_t.

    trace: e (n,). gradient: (n,).
    """

    trace: Float[Array, " n"]
    gradient: Float[Array, " n"]

    def stepped(self, score: Float[Array, " n"], error: Float[Array, ""], decay: Float[Array, ""] | float) -> "Trace":
        """After one more step with this score and Bellman error."""
        trace = decay * self.trace + score
        return Trace(trace, self.gradient + error * trace)


def no_trace(size: int) -> Trace:
    """Before the first step."""
    return Trace(jnp.zeros(size), jnp.zeros(size))
