"""Weights in words: `weight = "balance"` makes the gradients of two costs equally long over the blocks that both move.

A log-likelihood and a task are on different scales, and no number is right for every log. Balanced at the start, neither hides
the other. The weight that was found is in the summary.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.compiling import quick_jit
from dso_robotics.costs.composite import Composite
from dso_robotics.costs.supervised import Supervised
from dso_robotics.errors import DsoError
from dso_robotics.robot.stepwise import differentiable
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState
from dso_robotics.studies.flow import ROLLOUTS, Flow

_ROLLOUTS = 16
_LEAST = 1e-12


def balanced(
    chain: RobotSystem,
    scene_cost: Composite,
    supervised: Mapping[str, Supervised],
    flow: Flow,
    words: tuple[str, ...],
    *,
    horizon: int,
    gamma: float,
    source: str,
) -> tuple[dict[str, float], list[str]]:
    """Weights of the costs named in `words`, and a sentence about each.

    scene_cost, supervised: the costs; those in `words` have weight 1.
    horizon, gamma: of the windows in which the gradients of costs of the motion are estimated, from 16 starts.

    Raises:
      DsoError: no cost has a number for its weight, so there is nothing to balance with.
    """
    fixed = [name for name in (*supervised, *scene_cost.names) if name not in words]
    if not fixed:
        raise DsoError(
            f'{source}: every cost has weight = "balance", so there is nothing to balance with; give one of them a number.'
        )
    theta = jnp.asarray(chain.layout.initial)
    gradients: dict[str, np.ndarray] = {}
    for name, cost in supervised.items():
        gradients[name] = np.asarray(quick_jit(jax.grad(lambda at, cost=cost: cost(chain, at)))(theta))
    if scene_cost.names:
        rows = _by_term(chain, theta, horizon, gamma) * flow.masks[ROLLOUTS]
        gradients |= dict(zip(scene_cost.names, rows, strict=True))
    whole, found, told = np.sum([gradients[name] for name in fixed], axis=0), {}, []
    for name in words:
        shared = [
            block.name
            for block, here in chain.layout.places()
            if block.free and min(np.linalg.norm(whole[here]), np.linalg.norm(gradients[name][here])) > _LEAST
        ]
        at = np.concatenate([np.zeros(0, int), *(np.r_[chain.layout.where(block)] for block in shared)])
        if shared:
            found[name] = float(np.linalg.norm(whole[at]) / np.linalg.norm(gradients[name][at]))
            told.append(
                f"cost {name}: weight {found[name]:.4g}. With it, its gradient by {' and '.join(shared)} is as long at the "
                f"start as that of {', '.join(fixed)}."
            )
        else:
            found[name] = 1.0
            told.append(
                f"cost {name}: weight 1. It moves no block that {', '.join(fixed)} moves, so there is nothing to balance."
            )
    return found, told


def _by_term(chain: RobotSystem, theta: jax.Array, horizon: int, gamma: float) -> np.ndarray:
    """Gradients (k, n) of the discounted sums of each weighted term over a window, averaged over starts."""
    composite: Any = chain.scene_cost
    chain = differentiable(chain)

    def sums(at: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            first, draws = jax.random.split(key)
            start = chain.initial(first, at)
            bound = chain.bind(at, start)

            def step(state: RobotState, given: tuple[jax.Array, jax.Array]) -> tuple[RobotState, jax.Array]:
                noise, factor = given
                state = bound.move(noise, state, at)
                return state, factor * composite.terms(bound.scene(state, at))

            inputs = chain.draw(draws, at, horizon), gamma ** jnp.arange(horizon)
            return jnp.sum(jax.lax.scan(step, start, inputs)[1], axis=0)

        return jnp.mean(jax.vmap(one)(jax.random.split(jax.random.key(0), _ROLLOUTS)), axis=0)

    return np.nan_to_num(np.asarray(quick_jit(jax.jacrev(sums))(theta)))
