"""What happens to a robot between two windows of its training: commands change and it is pushed.

The window that follows starts from what this makes of the last state, so a policy learns to go on from there. No derivative
passes, and the critic is that of a robot that nothing happens to.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.robot.context import Context
from dso_robotics.robot.system_state import RobotState


class Between(eqx.Module):
    """Draws what happens at the end of a window.

    context: the numbers of an episode, of which tasks may be redrawn.
    chances: probability that each task is redrawn, (k,).
    push: probability of a push.
    change: largest change of each velocity by a push, (nv,) [m/s, rad/s]; it is uniform in both directions.
    """

    context: Context = eqx.field(static=True)
    chances: tuple[float, ...] = eqx.field(static=True)
    push: float = eqx.field(static=True)
    change: Float[Array, " nv"]

    def __call__(self, key: PRNGKeyArray, state: RobotState) -> RobotState:
        """The state from which the next window starts."""
        one, two, three, four = jax.random.split(key, 4)
        if any(self.chances):
            tasks = len(self.chances)
            again = jax.random.bernoulli(one, np.array(self.chances))
            drawn = jnp.where(again, self.context.draw(two)[:tasks], state.context[:tasks])
            state = eqx.tree_at(lambda s: s.context, state, state.context.at[:tasks].set(drawn))
        if self.push:
            size = jnp.where(jax.random.bernoulli(three, self.push), self.change, 0.0)
            qvel = state.body.qvel + size * jax.random.uniform(four, size.shape, minval=-1.0)
            state = eqx.tree_at(lambda s: s.body.qvel, state, qvel)
        return state


def chance(every: float | None, seconds: float) -> float:
    """Probability that something happens at the end of a window of `seconds` that happens on average once in `every` [s]."""
    return 0.0 if every is None else min(seconds / every, 1.0)
