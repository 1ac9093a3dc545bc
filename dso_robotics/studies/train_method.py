"""The method of a training: the one that a study names or, for `auto`, the one that suits its costs, with the reason in words.

Blocks that only likelihoods of a log move are often ill-scaled: a damping, a mass and a bias have nothing in common. If they
are few, their steps are scaled by the Gauss-Newton matrix of these likelihoods, in every method.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.curved_step import Curvature
from dso_robotics.core.method.settings import THROUGH_THE_CHAIN
from dso_robotics.costs.supervised import Supervised
from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies.flow import ROLLOUTS, Flow

# One forward derivative is computed for each entry, so there must not be many.
_FEW, _FEW_ALONE = 64, 500
AUTO, ASKED = "auto", "asked for"
# For costs that only step.
STEPPED = "sac"


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The method of a training.

    name: of the method in `core.method.TRAINING`.
    reason: why, in words.
    scaled: the entries of theta whose steps are scaled by a Gauss-Newton matrix, by block; empty if none are.
    rate: the share of such a step that is taken.
    """

    name: str
    reason: str
    scaled: tuple[np.ndarray, ...] = ()
    rate: float = 1.0


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
        reason = TRAINING[name].reason if asked == AUTO else ASKED
        if TRAINING[name].rolls:
            raise DsoError(
                f"{source}: [training] method = '{name}' trains by rollouts, and no cost is of the motion; use 'auto', "
                "'gauss_newton' or 'likelihood_adam'."
            )
        return Choice(name, reason, (at,) if good else ())
    name = "pathwise" if asked == AUTO else asked
    method = TRAINING[name]
    if not method.rolls:
        raise DsoError(
            f"{source}: [training] method = '{name}' minimises costs of logs alone, and some costs are of the motion; use "
            "'auto', 'pathwise' or 'mixed'."
        )
    reason = ASKED
    if asked == AUTO:
        reason = (
            "the derivative of the physics is exact and serves every block; a score has none for physics and corrector"
        )
    if not (method.supervises and blocks):
        return Choice(name, reason)
    told = f"{', '.join(blocks)}: steps scaled by the Gauss-Newton matrix of the likelihoods"
    return Choice(name, f"{reason}; {told}", tuple(_entries(chain, [block]) for block in blocks), 0.3)


def without_slope(
    asked: str, choice: Choice, steps: Sequence[str], goals: Sequence[str], flow: Flow, check: Callable[[str], None]
) -> tuple[Choice, list[str]]:
    """The method where some costs of the motion only step, so that a gradient through the chain does not see them.

    What it still sees of them is the critic's slope. An actor-critic learns from their values. It is chosen where no method was
    asked for, every goal is of that kind, and nothing but the policy is to be found; docs/companions.md has the figures.

    asked: the method of the study.
    steps: names of such costs.
    goals: names of the costs that are not of the action alone.
    check: raises DsoError if a method does not suit the study.

    Returns the choice and sentences for the summary.
    """
    if not steps or choice.name not in THROUGH_THE_CHAIN:
        return choice, []
    named = " and ".join(f"cost.{name}" for name in steps)
    suits = set(_moved(flow)) <= {"policy", "action noise"}
    try:
        check(STEPPED)
    except DsoError:
        suits = False
    if suits and asked == AUTO and set(goals) <= set(steps):
        verb, it, its = ("steps", "it", "its") if len(steps) == 1 else ("step", "them", "their")
        reason = (
            f"{named} {verb}: a gradient through the chain does not see {it}, an actor-critic learns from {its} values"
        )
        return dataclasses.replace(choice, name=STEPPED, reason=reason), []
    more = f", or take method = '{STEPPED}'" if suits else ""
    return choice, [
        f"{named}: the derivative is zero wherever there is one, so a gradient sees it through the critic alone. Let it grow "
        f"with the distance from what is wanted (kind 'product' has such factors){more}."
    ]


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


def curvature(choice: Choice, supervised: Mapping[str, Supervised]) -> Curvature | None:
    """The Gauss-Newton matrix sum_i w_i J_i^T J_i of the residuals of all costs that have them, by the entries scaled."""
    if not choice.scaled:
        return None
    costs = [cost for cost in supervised.values() if hasattr(cost.cost, "residual")]
    at, sizes = np.concatenate(choice.scaled), [part.size for part in choice.scaled]
    blocks = tuple(np.split(np.arange(at.size), np.cumsum(sizes)[:-1]))

    def matrix(chain: Any, theta: jax.Array) -> jax.Array:
        total = jnp.zeros((at.size, at.size))
        for cost in costs:
            residual: Any = cost.cost

            def moved(part: jax.Array, residual: Any = residual, cost: Supervised = cost) -> jax.Array:
                return residual.residual(chain, cost.held(theta.at[at].set(part)))

            slope = jax.jacfwd(moved)(theta[at])
            total = total + cost.weight * slope.T @ slope
        return total

    return Curvature(at, matrix, choice.rate, blocks)
