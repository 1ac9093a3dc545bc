"""The gradient of one window: through the simulator, by the score, or mixed (by the score where it exists)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dso_robotics.core.chain import Chain, State, covered
from dso_robotics.core.gradient.pathwise import pathwise_loss
from dso_robotics.core.gradient.score import DriftBaseline, advantages, score_loss
from dso_robotics.core.objective import Problem
from dso_robotics.core.rollout import Trajectory, credit, rollout
from dso_robotics.core.value import Value

Bind = Callable[[Any, Array, State], Chain]


def scored_entries(form: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
    """Which entries of theta (n,) use the score. form: "score", "mixed", or any other name for pathwise.

    moved: (n,) the entries that the cost of rollouts moves; all by default. The others need no score.

    Raises:
      DsoError: an entry should use the score but has none.
    """
    if form == "score":
        covered(chain, theta, moved)
        return np.ones(np.shape(theta)[0], bool)
    return chain.scored(theta) if form == "mixed" else np.zeros(np.shape(theta)[0], bool)


def window_loss(
    key: PRNGKeyArray,
    problem: Problem,
    theta: Float[Array, " n"],
    *,
    start: State,
    horizon: int | Int[Array, ""],
    value: Value,
    by_score: np.ndarray,
    bind: Bind = lambda chain, theta, start: chain,
) -> tuple[Float[Array, ""], Trajectory]:
    """A function of theta whose gradient is the estimate for one window that begins at `start`; it also returns the window.

    Entries of the mask `by_score` use the term of Algorithm 1 with the baseline V(F(x)) of (58). The others use the pathwise
    form. `bind` computes once everything in the chain that theta fixes for the whole window.
    """
    chain = problem.chain

    def at(theta: Array) -> Problem:
        return eqx.tree_at(lambda p: p.chain, problem, bind(chain, theta, start))

    if not by_score.any():
        return pathwise_loss(key, at(theta), theta, horizon=horizon, value=value, start=start)
    held = jax.lax.stop_gradient(theta)
    if by_score.all():
        loss, path = jnp.zeros(()), rollout(key, at(held), held, start=start)
    else:
        through = jnp.where(by_score, held, theta)
        loss, path = pathwise_loss(key, at(through), through, horizon=horizon, value=value, start=start)
    path, fixed = jax.lax.stop_gradient(path), at(held)
    earned = credit(path, problem.objective, value)
    advantage = advantages(fixed, held, path, earned.to_go, DriftBaseline(value))
    earned, advantage = jax.lax.stop_gradient((earned, advantage))
    scored = jnp.where(by_score, theta, held)
    return loss + score_loss(fixed, scored, path, earned, advantage, jnp.zeros(())), path
