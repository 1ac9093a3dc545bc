"""What training by windows asks of a chain besides its own functions."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State
from dso_robotics.errors import DsoError


class Course(eqx.Module):
    """What training by windows asks of a chain besides its own functions; this one serves any chain.

    features: the critic's inputs at a state, which has `width` numbers of them.
    """

    chain: Chain
    width: int = eqx.field(static=True)
    features: Callable[[State, Array], Array] | None = eqx.field(static=True, default=None)

    @property
    def memory(self) -> Any:
        """What is learned on the way besides theta, before the first iteration."""
        return None

    def at(self, memory: Any, progress: Array | None = None) -> Chain:
        """The chain under `memory`, as it is to be at this part of the training (0 to 1), or as it is in the end."""
        return self.chain

    def fresh(self, key: PRNGKeyArray, theta: Array) -> State:
        """The state from which a window starts anew."""
        return self.chain.initial(key, theta)

    @property
    def places(self) -> bool:
        """Whether `placed` does anything."""
        return False

    def placed(self, chain: Any, state: State, new: Array, theta: Array) -> State:
        """A window's first state; where it is `new`, as theta puts it, which has a derivative."""
        return state

    def bind(self, chain: Any, theta: Array, start: State) -> Chain:
        """The chain with all that theta decides for a whole window, which begins at `start`, made once."""
        return chain

    def inputs(self, memory: Any, theta: Array) -> Callable[[State], Array]:
        """What the critic sees of a state."""
        features = self.features
        if features is None:
            raise DsoError("features: a critic needs numbers to see of a state; give a function of state and theta.")
        return lambda state: features(state, theta)

    def remembered(self, memory: Any, theta: Array, states: State) -> Any:
        """`memory` after states with one leading axis were seen."""
        return memory

    def terms(self, theta: Array, states: State) -> Float[Array, " k"]:
        """Mean of every term of the cost over states with one leading axis."""
        return jnp.zeros(0)
