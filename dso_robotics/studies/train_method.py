"""The method of a training: the one that a study names or, for `auto`, the one that suits its costs, with the reason in words.

Blocks that only likelihoods of a log move are often ill-scaled: a damping, a mass and a bias have nothing in common. If they
are few, their steps are scaled by the Gauss-Newton matrix of these likelihoods, in every method.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.short_horizon import Curvature
from dso_robotics.costs.supervised import Supervised
from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies.flow import ROLLOUTS, Flow

# One forward derivative is computed for each entry, so there must not be many.
_FEW, _FEW_ALONE = 64, 500
AUTO = "auto"


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """name: of the method in `core.method.TRAINING`. reason: why, in words. curvature: for blocks of few numbers, or None."""

    name: str
    reason: str
    curvature: Curvature | None


def choose(
    asked: str, chain: RobotSystem, supervised: Mapping[str, Supervised], flow: Flow, *, rolls: bool, source: str
) -> Choice:
    """The method for a chain and its costs.

    rolls: whether there are costs of the motion.

    Raises:
      DsoError: the method named does not suit the costs.
    """
    blocks = _likely(chain, supervised, flow)
    if not rolls:
        at = _entries(chain, _moved(flow))
        good = all(hasattr(cost.cost, "residual") for cost in supervised.values()) and at.size <= _FEW_ALONE
        name = asked if asked != AUTO else "gauss_newton" if good else "likelihood_adam"
        reason = TRAINING[name].reason if asked == AUTO else "asked for"
        if TRAINING[name].rolls:
            raise DsoError(
                f"{source}: [training] method = '{name}' trains by rollouts, and no cost is of the motion; use 'auto', "
                "'gauss_newton' or 'likelihood_adam'."
            )
        return Choice(name, reason, _curvature(at, supervised, 1.0) if good else None)
    name = "pathwise" if asked == AUTO else asked
    method = TRAINING[name]
    if not method.rolls:
        raise DsoError(
            f"{source}: [training] method = '{name}' minimises costs of logs alone, and some costs are of the motion; use "
            "'auto', 'pathwise' or 'mixed'."
        )
    reason = "asked for"
    if asked == AUTO:
        reason = (
            "the derivative of the physics is exact and serves every block; a score has none for physics and corrector"
        )
    if not (method.supervises and blocks):
        return Choice(name, reason, None)
    chosen = [block for block in _moved(flow) if block in blocks]
    at, sizes = _entries(chain, chosen), [_entries(chain, [block]).size for block in chosen]
    parts = tuple(np.split(np.arange(at.size), np.cumsum(sizes)[:-1]))
    told = f"{', '.join(blocks)}: steps scaled by the Gauss-Newton matrix of the likelihoods"
    return Choice(name, f"{reason}; {told}", _curvature(at, supervised, 0.3, parts))


def _moved(flow: Flow) -> list[str]:
    return [block for block, sources in flow.moved.items() if sources]


def _likely(chain: RobotSystem, supervised: Mapping[str, Supervised], flow: Flow) -> list[str]:
    """The blocks whose steps are scaled: moved by likelihoods with residuals and by nothing else.

    Where rollouts move a block too, their gradient is noisy, and Adam averages it; a scaled step would not.
    """
    found, count = [], 0
    sizes = {block.name: block.size for block in chain.layout.free}
    for block, sources in flow.moved.items():
        data = [name for name in sources if name != ROLLOUTS]
        only = len(data) == len(sources)
        good = data and all(hasattr(supervised[name].cost, "residual") for name in data)
        if block not in ("policy", "action noise") and only and good and count + sizes[block] <= _FEW:
            found.append(block)
            count += sizes[block]
    return found


def _entries(chain: RobotSystem, blocks: list[str]) -> np.ndarray:
    parts = [np.arange(here.start, here.stop) for here in map(chain.layout.where, blocks)]
    return np.concatenate([np.zeros(0, int), *parts])


def _curvature(
    at: np.ndarray, supervised: Mapping[str, Supervised], rate: float, blocks: tuple[np.ndarray, ...] = ()
) -> Curvature:
    """The Gauss-Newton matrix sum_i w_i J_i^T J_i of the residuals of all costs that have them, by the entries `at`."""
    costs = [cost for cost in supervised.values() if hasattr(cost.cost, "residual")]

    def matrix(chain: Any, theta: jax.Array) -> jax.Array:
        total = jnp.zeros((at.size, at.size))
        for cost in costs:
            residual: Any = cost.cost

            def moved(part: jax.Array, residual: Any = residual, cost: Supervised = cost) -> jax.Array:
                return residual.residual(chain, cost.held(theta.at[at].set(part)))

            slope = jax.jacfwd(moved)(theta[at])
            total = total + cost.weight * slope.T @ slope
        return total

    return Curvature(at, matrix, rate, blocks)
