"""The gradient of one window: through the simulator, by the score, or by the score where it exists and through it elsewhere."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import covered
from dso_robotics.core.gradient.pathwise import pathwise_loss
from dso_robotics.core.gradient.score import DriftBaseline, advantages, score_loss
from dso_robotics.core.objective import Problem
from dso_robotics.core.rollout import Trajectory, credit, rollout
from dso_robotics.core.value import Value
from dso_robotics.errors import DsoError
from dso_robotics.robot.chain import RobotChain

METHODS = ("pathwise", "score", "mixed")
IN_ACTION_SPACE = ("pco", "natural")


def scored_entries(method: str, chain: RobotChain) -> np.ndarray:
    """Which entries of theta (n,) `method` differentiates by the score.

    Raises:
      DsoError: there is no such method, or it asks for the score of an entry that has none.
    """
    theta = jnp.asarray(chain.layout.initial)
    if method == "pathwise":
        return np.zeros(chain.layout.size, bool)
    if method == "mixed":
        return chain.scored(theta)
    if method == "score" or method in IN_ACTION_SPACE:
        return covered(chain, theta)
    raise DsoError(f"method = '{method}' is not one of {', '.join((*METHODS, *IN_ACTION_SPACE))}.")


def window_loss(
    key: PRNGKeyArray, problem: Problem, theta: Float[Array, " n"], *, horizon: int, value: Value, by_score: np.ndarray
) -> tuple[Float[Array, ""], Trajectory]:
    """A function of theta whose gradient is one window's estimate, and the window.

    Entries of the mask `by_score` have the term of Algorithm 1 with the baseline V(F(x)) of (58), the others the pathwise
    form; the chain of `problem` must not have been bound to theta.
    """
    chain = problem.chain
    if not isinstance(chain, RobotChain):
        raise DsoError(f"a window is one of a robot's chain, not of {type(chain).__name__}.")

    def at(theta: Array) -> Problem:
        return eqx.tree_at(lambda p: p.chain, problem, chain.bind(theta, chain.start(key)))

    if not by_score.any():
        return pathwise_loss(key, at(theta), theta, horizon=horizon, value=value)
    held = jax.lax.stop_gradient(theta)
    if by_score.all():
        loss, path = jnp.zeros(()), rollout(key, at(held), held)
    else:
        through = jnp.where(by_score, held, theta)
        loss, path = pathwise_loss(key, at(through), through, horizon=horizon, value=value)
    path, fixed = jax.lax.stop_gradient(path), at(held)
    earned = credit(path, problem.objective, value)
    advantage = advantages(fixed, held, path, earned.to_go, DriftBaseline(value))
    earned, advantage = jax.lax.stop_gradient((earned, advantage))
    scored = jnp.where(by_score, theta, held)
    return loss + score_loss(fixed, scored, path, earned, advantage, jnp.zeros(())), path
