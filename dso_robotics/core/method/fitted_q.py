"""Fitted Q iteration with embedded optimisation: a solver finds the greedy action of the last Q at every base point.

Q_n+1 is fitted to L(x') + gamma min_u Q_n(x', u). The policy of theta is fitted to the solver's actions, so that there is one
to play, to judge and to keep.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.experience import Experience, Transitions, no_experience
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.nfqca import FittedIteration
from dso_robotics.core.method.off_policy import Action, Player, Update
from dso_robotics.core.method.settings import Settings
from dso_robotics.errors import DsoError

# Points from which the solver starts besides the policy's own action, and its first step, as a share of half the box.
_STARTS, _STEP = 3, 0.3


class Solved(Transitions):
    """Base points: transitions with the greedy action (N, nu), as it acts, at the state after."""

    greedy: Float[Array, "N nu"]


def least(
    cost: Callable[[Action], Float[Array, ""]], starts: Float[Array, "S nu"], low: Action, high: Action, *, steps: int
) -> Action:
    """argmin of `cost` in the box from `low` to `high`: projected Adam from each of `starts`, and the best point found.

    It is never worse than the best of the starts. Step sizes fall linearly to 0.
    """
    middle, half = (high + low) / 2.0, (high - low) / 2.0
    optimiser = optax.adam(optax.linear_schedule(_STEP, 0.0, steps))

    def search(start: Action) -> Action:
        def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
            place, state = carry
            change, state = optimiser.update(jax.grad(lambda v: cost(middle + half * v))(place), state)
            return (jnp.clip(place + jnp.asarray(change), -1.0, 1.0), state), None

        (place, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), None, length=steps)
        return place

    begun = jnp.clip((starts - middle) / jnp.where(half > 0.0, half, 1.0), -1.0, 1.0)
    points = middle + half * jnp.concatenate([begun, jax.vmap(search)(begun)])
    return points[jnp.argmin(jax.vmap(cost)(points))]


class EmbeddedOptimisation(FittedIteration):
    """Fitted iterations with a solver for greedy actions at `settings.basepoints` transitions of the replay.

    The base points of the last `window` iterations are kept in `spare`, and the policy is fitted to their actions.
    """

    @property
    def window(self) -> int:
        """For how many iterations the solver's actions are kept."""
        return 1

    @staticmethod
    def suits(settings: Settings) -> None:
        """Raise DsoError if the replay is shorter than an iteration or than the base points of one."""
        FittedIteration.suits(settings)
        if settings.basepoints > settings.replay:
            raise DsoError(
                f"basepoints: {settings.basepoints} are more than the replay keeps, replay = {settings.replay}; give fewer."
            )

    def spare(self, key: PRNGKeyArray, row: int) -> Experience:
        """Room for the base points of the window."""
        actions = len(self.course.limited)
        empty = no_experience(self.window * self.settings.basepoints, row, actions)
        k = empty.kept
        greedy = jnp.zeros_like(k.action)
        return Experience(Solved(k.row, k.action, k.cost, k.following, k.ended, k.valid, greedy), empty.count)

    def renewed(self, key: PRNGKeyArray, at: Update, learner: Player, experience: Experience) -> Update:
        """Solve at new base points with the Q of the last iteration, and keep them in the place of the oldest."""
        at = super().renewed(key, at, learner, experience)
        draw, solve = jax.random.split(key)
        points = experience.drawn(draw, self.settings.basepoints)
        solved = Solved(
            points.row,
            points.action,
            points.cost,
            points.following,
            points.ended,
            points.valid,
            self.solved(solve, at, learner, points),
        )
        return Update(
            at.theta, at.optimiser, at.critic, at.slow, at.critic_optimiser, at.slow_theta, at.spare.stored(solved)
        )

    def solved(self, key: PRNGKeyArray, at: Update, learner: Player, points: Transitions) -> Float[Array, "N nu"]:
        """The greedy actions, as they act, at the states after `points`.

        An action without a range is sought within those that were played: Q knows no others.
        """
        memory, limited = learner.memory, jnp.asarray(self.course.limited)
        played = jnp.where(points.valid[:, None], points.action, 0.0)
        low = jnp.where(limited, -1.0, jnp.min(played, axis=0))
        high = jnp.where(limited, 1.0, jnp.max(played, axis=0))
        others = jax.random.uniform(key, (len(points.cost), _STARTS, len(limited)), low.dtype, low, high)

        def one(row: Array, more: Array) -> Action:
            own = self.bounded(self.course.mean(at.theta, memory, row))

            def cost(acting: Action) -> Float[Array, ""]:
                return self.value(at.slow, memory, row, acting)[0]

            starts = jnp.concatenate([own[None].astype(more.dtype), more])
            return least(cost, starts, low, high, steps=self.settings.solver_steps)

        return jax.vmap(one)(points.following, others)

    def improve(
        self, key: PRNGKeyArray, at: Update, learner: Player, batch: Transitions, rate: Array
    ) -> tuple[Array, Any, Any]:
        """A step of theta towards the solver's actions."""
        memory, pairs = learner.memory, at.spare.drawn(key, self.settings.critic_batch)

        def apart(theta: Array) -> Float[Array, ""]:
            own = jax.vmap(lambda row: self.bounded(self.course.mean(theta, memory, row)))(pairs.following)
            return pairs.weights @ jnp.sum((own - pairs.greedy) ** 2, axis=1)

        return *self.descended(at.theta, at.optimiser, jax.grad(apart)(at.theta), rate), at.spare


@TRAINING.register("fitted_q")
class FittedQ(EmbeddedOptimisation):
    """Q is fitted at the base points, and every target is by the solver."""

    def source(self, at: Update, experience: Experience) -> Experience:
        """The base points of this iteration."""
        return at.spare

    def target(self, key: PRNGKeyArray, at: Update, learner: Player, batch: Any) -> Float[Array, " N"]:
        """min_u Q_n(x', u), at the solver's u."""
        found = jax.vmap(lambda row, u: self.value(at.slow, learner.memory, row, u))(batch.following, batch.greedy)
        return found[:, 0]
