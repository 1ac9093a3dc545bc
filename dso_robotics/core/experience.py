"""Transitions of earlier policies, kept for learning: a ring of fixed length from which batches are drawn."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Transitions(eqx.Module):
    """N transitions, in single precision.

    row, following: (N, r) what policy and critic see of the states before and after.
    action: (N, nu) before squashing.
    cost: (N,) L of the state after.
    ended: (N,) whether that state is terminal. A time limit ends nothing.
    valid: (N,) whether the transition took place; others count in no mean.
    """

    row: Float[Array, "N r"]
    action: Float[Array, "N nu"]
    cost: Float[Array, " N"]
    following: Float[Array, "N r"]
    ended: Bool[Array, " N"]
    valid: Bool[Array, " N"]

    @property
    def weights(self) -> Float[Array, " N"]:
        """Weights of a mean over those that took place; all are 0 if none did."""
        return (self.valid / jnp.maximum(jnp.sum(self.valid), 1)).astype(jnp.float32)


class Experience(eqx.Module):
    """The last `capacity` transitions.

    count: how many were ever stored.
    """

    kept: Transitions
    count: Int[Array, ""]

    @property
    def capacity(self) -> int:
        """How many transitions there is room for."""
        return self.kept.cost.shape[0]

    def stored(self, new: Transitions) -> "Experience":
        """With new transitions, at most `capacity`, in the place of the oldest."""
        number = new.cost.shape[0]
        at = (self.count + jnp.arange(number)) % self.capacity
        kept = jax.tree.map(lambda old, rows: old.at[at].set(rows.astype(old.dtype)), self.kept, new)
        return dataclasses.replace(self, kept=kept, count=self.count + number)

    def drawn(self, key: PRNGKeyArray, number: int) -> Transitions:
        """A batch, drawn uniformly with replacement from what is kept."""
        index = jax.random.randint(key, (number,), 0, jnp.minimum(self.count, self.capacity))
        return jax.tree.map(lambda leaf: leaf[index], self.kept)


def no_experience(capacity: int, rows: int, actions: int) -> Experience:
    """Room for `capacity` transitions between states seen as `rows` numbers under `actions` numbers."""
    number, seen = jnp.zeros(capacity, jnp.float32), jnp.zeros((capacity, rows), jnp.float32)
    no = jnp.zeros(capacity, bool)
    kept = Transitions(seen, jnp.zeros((capacity, actions), jnp.float32), number, seen, no, no)
    return Experience(kept, jnp.zeros((), int))
