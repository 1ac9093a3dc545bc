"""Many steps in one scan, ended where the simulation diverges."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.divergence import State, diverged


class Rollout(eqx.Module):
    """T steps. After it has diverged, a rollout repeats its last valid state, so all its numbers are finite."""

    states: State  # leaves (T+1, ...), the start first
    alive: Bool[Array, " T+1"]  # whether a state was reached; weight costs by it

    @property
    def ended(self) -> Bool[Array, ""]:
        """Whether the simulation diverged before the last step."""
        return ~self.alive[..., -1]

    @property
    def steps(self) -> Array:
        """Number of steps before the end."""
        return self.alive.sum(-1) - 1


def rollout(
    model: mjx.Model, start: State, ctrl: Float[Array, "T nu"], *, products: physics.Products | None = None
) -> Rollout:
    """Simulate from `start` with the controls `ctrl`, one row for each time step.

    Value and derivative, forward and reverse, are those of the rollout cut before the step that diverged. If `start` has
    already diverged, no state of the rollout is alive, and all are at the model's reference configuration.
    """
    rest = physics.make_state(model)

    def chosen(flag: Bool[Array, ""], this: State, other: State) -> State:
        return jax.tree.map(lambda one, two: jnp.where(flag, one, two), this, other)

    def body(carry: tuple[State, Bool[Array, ""]], row: Float[Array, " nu"]) -> tuple:
        state, alive = carry
        # A rollout that has ended steps from rest, where a step is cheap; its last state would diverge every time.
        following = physics.advance(model, chosen(alive, state, rest), jnp.where(alive, row, 0.0), products=products)
        alive &= ~diverged(following)
        state = chosen(alive, following, state)
        return (state, alive), (state, alive)

    sound = ~diverged(start)
    start = chosen(sound, start, rest)
    _, (states, alive) = jax.lax.scan(body, (start, sound), ctrl)
    states = jax.tree.map(lambda first, others: jnp.concatenate([first[None], others]), start, states)
    return Rollout(states, jnp.concatenate([sound[None], alive]))
