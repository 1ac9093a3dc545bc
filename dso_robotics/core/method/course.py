"""What training by windows needs from a chain besides the chain's own functions."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State
from dso_robotics.errors import DsoError


class Course(eqx.Module):
    """What training by windows needs from a chain besides the chain's own functions. This base class works for any chain.

    features: the critic's inputs at a state, a vector (width,).
    width: number of features.
    """

    chain: Chain
    width: int = eqx.field(static=True)
    features: Callable[[State, Array], Array] | None = eqx.field(static=True, default=None)

    @property
    def memory(self) -> Any:
        """Everything that is learned besides theta, before the first iteration."""
        return None

    def at(self, memory: Any, progress: Array | None = None) -> Chain:
        """The chain under `memory` at the fraction `progress` (0 to 1) of the training. Without `progress`: the final chain."""
        return self.chain

    @property
    def anchored_every(self) -> int:
        """Iterations after which the theta that `anchored` is given is replaced by the present one; 0: never."""
        return 0

    def anchored(self, chain: Any, anchor: Array) -> Chain:
        """The chain with a cost of moving away from the chain at theta = `anchor` (R-MDP)."""
        return chain

    def fresh(self, key: PRNGKeyArray, theta: Array) -> State:
        """A new first state for a window that restarts."""
        return self.chain.initial(key, theta)

    @property
    def places(self) -> bool:
        """Whether `placed` changes anything."""
        return False

    def placed(self, chain: Any, state: State, new: Array, theta: Array) -> State:
        """The first state of a window. Where `new`, the state is set from theta, with a derivative."""
        return state

    def between(self, key: PRNGKeyArray, state: State) -> State:
        """The state from which a window goes on, after the last state of the one before."""
        return state

    def bind(self, chain: Any, theta: Array, start: State) -> Chain:
        """The chain with everything that theta fixes for a whole window computed once. The window begins at `start`."""
        return chain

    def planned(self, theta: Array, memory: Any) -> Array:
        """Theta (n,) with the entries that follow from others, such as a policy planned with a model. Differentiable."""
        return theta

    def inputs(self, memory: Any, theta: Array) -> Callable[[State], Array]:
        """A function from a state to the critic's inputs."""
        features = self.features
        if features is None:
            raise DsoError("features: a critic needs numbers to see of a state; give a function of state and theta.")
        return lambda state: features(state, theta)

    def tangent(self, state: State, slope: State) -> State:
        """The part of a derivative by the state that belongs to possible changes of it."""
        return slope

    def remembered(self, memory: Any, theta: Array, states: State) -> Any:
        """The updated `memory` after `states`, which have one leading axis."""
        return memory

    def kept(self, new: Any, old: Any, early: Array) -> Any:
        """The memory after an iteration: `new` if `early`, else `old`, except for what never ends to be learned."""
        return jax.tree.map(lambda a, b: jnp.where(early, a, b), new, old)

    def terms(self, theta: Array, states: State) -> Float[Array, " k"]:
        """Mean of each term of the cost over `states`, which have one leading axis."""
        return jnp.zeros(0)
